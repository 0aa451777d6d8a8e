"""One image through a model: grids, orders, regions, options, refusals, cancel, memory."""

import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from prosma.errors import Cancelled, EngineError
from prosma.image.geometry import Image
from prosma.image.intensity import foreground
from prosma.image.reading import read_image
from prosma.inference import devices, sliding_window
from prosma.inference.back_to_image import Restorer, normalised_entropy
from prosma.inference.memory_ladder import Effort
from prosma.inference.segmenter import Segmenter
from prosma.package.weights import load_network
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

ENGINE = Path(__file__).resolve().parents[2] / "training"
EVERYTHING = ("probabilities", "uncertainty", "gate_map")


@pytest.fixture(scope="module")
def segmenter(tiny):
    return Segmenter(tiny, "cpu")


@pytest.fixture(scope="module")
def resampling_package(tmp_path_factory):
    return make_tiny_package(tmp_path_factory.mktemp("m") / "m", spacing=[2.0, 2.0, 2.0], patch_size=[16, 16, 16])


def dice(one, two) -> float:
    return min(2 * ((one == v) & (two == v)).sum() / ((one == v).sum() + (two == v).sum()) for v in np.unique(one))


def test_the_result_is_the_networks_answer(tmp_path):
    """One tile that holds the whole volume: the labels are the argmax of the plain network on the normalised voxels."""
    package = make_tiny_package(tmp_path / "m", spacing=None, patch_size=[24, 20, 16])
    image = smooth_volume((24, 20, 16))
    result = Segmenter(package, "cpu").segment(image, EVERYTHING)
    array = image.array.astype(np.float32)
    array = (array - array.mean()) / array.std()
    with torch.inference_mode():
        scores = load_network(package)(torch.from_numpy(array)[None])[0].softmax(0).numpy()
    ahead = np.sort(scores, axis=0)
    sure = ahead[-1] > ahead[-2] + 2e-4
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(result.labels[sure], scores.argmax(0)[sure])
    np.testing.assert_allclose(result.probabilities / 255, scores, atol=0.003)
    np.testing.assert_allclose(result.uncertainty / 255, normalised_entropy(list(scores)), atol=0.004)
    assert len(np.unique(result.labels)) > 1


def test_results_lie_on_the_images_grid_and_agree_with_each_other(resampling_package):
    image = smooth_volume((30, 25, 21), matrix=np.diag([1.0, 1.3, 0.9, 1.0]))
    result = Segmenter(resampling_package, "cpu").segment(image, EVERYTHING)
    assert result.labels.shape == image.shape
    assert result.labels.dtype == np.uint8
    assert result.probabilities.shape == (3, *image.shape)
    assert result.uncertainty.shape == result.gate_map.shape == image.shape
    np.testing.assert_allclose(result.probabilities.sum(axis=0, dtype=int), 255, atol=2)
    ahead = np.sort(result.probabilities, axis=0)
    sure = ahead[-1] > ahead[-2]
    np.testing.assert_array_equal(result.labels[sure], result.probabilities.argmax(axis=0)[sure])
    assert (result.uncertainty[result.probabilities.max(axis=0) > 250] < 60).all()
    assert result.gate_map.max() > 0
    assert result.seconds["total"] >= result.seconds["network"] > 0


def test_labels_are_the_same_with_and_without_the_other_outputs(resampling_package):
    segmenter, image = Segmenter(resampling_package, "cpu"), smooth_volume((30, 25, 21))
    plain = segmenter.segment(image)
    assert plain.probabilities is None is plain.uncertainty
    np.testing.assert_array_equal(plain.labels, segmenter.segment(image, EVERYTHING).labels)


def test_same_input_same_bytes(tiny, segmenter, volume):
    first = segmenter.segment(volume).labels.tobytes()
    assert segmenter.segment(volume).labels.tobytes() == first
    assert Segmenter(tiny, "cpu").segment(volume).labels.tobytes() == first


def test_rounding_of_the_matrix_changes_no_voxel(resampling_package):
    segmenter, image = Segmenter(resampling_package, "cpu"), smooth_volume((30, 25, 21))
    noise = np.random.default_rng(0).uniform(-1e-8, 1e-8, (4, 4))
    other = Image(image.array, image.ijk_to_ras + noise)
    assert segmenter.segment(image).labels.tobytes() == segmenter.segment(other).labels.tobytes()


def test_every_storage_order_of_one_volume_gives_one_segmentation(resampling_package):
    segmenter, image = Segmenter(resampling_package, "cpu"), smooth_volume((26, 23, 20))
    expected = segmenter.segment(image).labels
    for order in itertools.permutations(range(3)):
        for flips in ((), (0,), (1, 2)):
            array = image.array.transpose(0, *(1 + axis for axis in order))
            matrix = image.ijk_to_ras.copy()
            matrix[:3, :3] = matrix[:3, order]
            for axis in flips:
                matrix[:3, 3] += matrix[:3, axis] * (array.shape[1 + axis] - 1)
                matrix[:3, axis] *= -1
                array = np.flip(array, 1 + axis)
            labels = segmenter.segment(Image(array, matrix)).labels
            for axis in flips:
                labels = np.flip(labels, axis)
            np.testing.assert_array_equal(labels.transpose(np.argsort(order)), expected)


def test_eight_orientations_of_a_real_head_agree_in_patient_space(shared, tmp_path):
    """Labels are compared where the same point of the patient lies in each storage order."""
    package = make_tiny_package(tmp_path / "m", spacing=[6.0, 6.0, 6.0])
    segmenter = Segmenter(package, "cpu")
    images = [read_image(f) for f in sorted((shared / "robust_volumes/nifti/orientations").glob("*.nii.gz"))]
    labels = [segmenter.segment(image).labels for image in images]
    grid = np.indices(images[0].shape).reshape(3, -1)
    points = images[0].ijk_to_ras @ np.vstack([grid, np.ones(grid.shape[1])])
    for image, label in zip(images[1:], labels[1:], strict=True):
        place = np.rint(np.linalg.inv(image.ijk_to_ras) @ points)[:3].astype(int)
        inside = ((place >= 0) & (place < np.array(image.shape)[:, None])).all(axis=0)
        assert inside.mean() > 0.95
        assert dice(labels[0].reshape(-1)[inside], label[tuple(place[:, inside])]) >= 0.99


# --- regions --------------------------------------------------------------------------------------------------------


def test_a_region_gives_what_its_crop_gives_on_the_whole_grid(segmenter, volume):
    box = ((4, 20), (2, 18), (0, 16))
    part = segmenter.segment(volume, EVERYTHING, roi=box)
    crop = segmenter.segment(volume.cropped(box), EVERYTHING)
    assert part.labels.shape == volume.shape
    assert part.box == box
    inside = tuple(slice(*pair) for pair in box)
    np.testing.assert_array_equal(part.labels[inside], crop.labels)
    np.testing.assert_array_equal(part.probabilities, crop.probabilities)
    outside = part.labels.copy()
    outside[inside] = 0
    assert not outside.any()
    assert part.labels.any()


def test_a_region_is_cut_to_the_volume_and_must_touch_it(segmenter, volume):
    assert segmenter.segment(volume, roi=((-5, 99), (3, 99), (0, 18))).box == ((0, 24), (3, 20), (0, 18))
    for roi in (((30, 40), (0, 5), (0, 5)), ((5, 5), (0, 5), (0, 5)), ((0, 5), (0, 5)), "everything"):
        with pytest.raises(EngineError, match="ROI") as refusal:
            segmenter.segment(volume, roi=roi)
        assert refusal.value.code == "bad_input"


@pytest.mark.parametrize("shape", [(2, 2, 2), (5, 4, 3), (2, 40, 30), (60, 2, 2), (17, 16, 15)])
def test_volumes_of_any_size(segmenter, resampling_package, shape):
    for machine in (segmenter, Segmenter(resampling_package, "cpu")):
        result = machine.segment(smooth_volume(shape), EVERYTHING)
        assert result.labels.shape == shape
        assert result.uncertainty.shape == shape


@pytest.mark.parametrize("value", [0, 7, -1024.5])
def test_constant_volumes_do_not_crash(segmenter, value):
    result = segmenter.segment(Image(np.full((1, 20, 20, 20), value, np.float32), np.eye(4)))
    assert result.labels.shape == (20, 20, 20)


# --- channels and dimensions ----------------------------------------------------------------------------------------


def test_a_2d_model_sees_slices_one_by_one(tiny_flat):
    segmenter = Segmenter(tiny_flat, "cpu")
    image = smooth_volume((40, 30, 11), channels=3)
    result = segmenter.segment(image, EVERYTHING)
    assert result.labels.shape == (40, 30, 11)
    for k in (0, 5, 10):
        alone = segmenter.segment(image.cropped(((0, 40), (0, 30), (k, k + 1))), EVERYTHING)
        np.testing.assert_array_equal(result.labels[..., k], alone.labels[..., 0])


def test_grey_for_colour_and_colour_for_grey_with_a_notice(tiny_flat, segmenter):
    grey = smooth_volume((40, 30, 1))
    result = Segmenter(tiny_flat, "cpu").segment(grey)
    assert "grey image" in result.notices[0]
    result = segmenter.segment(smooth_volume(channels=3))
    assert "turned into grey" in result.notices[0]


def test_a_wrong_number_of_channels_is_refused(segmenter, tiny_flat):
    with pytest.raises(EngineError, match="takes 1 channels") as refusal:
        segmenter.segment(smooth_volume(channels=2))
    assert refusal.value.code == "bad_input"
    assert refusal.value.remedy
    with pytest.raises(EngineError, match="channel 0, channel 1, channel 2"):
        Segmenter(tiny_flat, "cpu").segment(smooth_volume(channels=2))


def test_a_model_without_gates_gives_no_gate_map_and_says_so(tmp_path, volume):
    network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [4, 8], "skip": "plain"}
    package = make_tiny_package(tmp_path / "m", spacing=None, network=network, patch_size=[16, 16, 16])
    result = Segmenter(package, "cpu").segment(volume, EVERYTHING)
    assert result.gate_map is None
    assert any("gate map" in notice for notice in result.notices)
    assert result.statistics["levels"] == []


# --- options --------------------------------------------------------------------------------------------------------


def test_mirroring_averages_flips_and_says_when_it_cannot(tiny, tmp_path, volume):
    result = Segmenter(tiny, "cpu").segment(volume, mirror=True)
    assert any("flips" in notice for notice in result.notices)
    package = make_tiny_package(tmp_path / "m", spacing=None, patch_size=[24, 20, 20], mirror_axes=[0, 2])
    segmenter = Segmenter(package, "cpu")
    mirrored = segmenter.segment(volume, ("probabilities",), mirror=True).probabilities
    flipped = Image(volume.array[:, ::-1], volume.ijk_to_ras)  # not moved in space: other anatomy for the model
    other = segmenter.segment(flipped, ("probabilities",), mirror=True).probabilities
    np.testing.assert_allclose(other[:, ::-1].astype(int), mirrored, atol=1)
    assert np.abs(segmenter.segment(volume, ("probabilities",)).probabilities.astype(int) - mirrored).max() > 1


@pytest.mark.parametrize("options", [{"overlap": 0.95}, {"overlap": "much"}, {"outputs": ["heat"]}])
def test_options_that_mean_nothing_are_refused(segmenter, volume, options):
    with pytest.raises(EngineError) as refusal:
        segmenter.segment(volume, **options)
    assert refusal.value.code == "bad_input"


def test_gate_map_is_the_share_of_kept_features(tmp_path, volume):
    """Thresholds so high that every gate closes, then so low that none does."""
    for rho, share in ((20.0, 0), (-20.0, 255)):
        package = make_tiny_package(tmp_path / str(share), spacing=None, patch_size=[24, 20, 20])
        segmenter = Segmenter(package, "cpu")
        for name, parameter in segmenter.network.named_parameters():
            if name.endswith("rho"):
                parameter.data.fill_(rho)
            if name.endswith("spatial.gain"):
                parameter.data.fill_(0.01)
        result = segmenter.segment(volume, ("gate_map",))
        assert (result.gate_map == share).all()
        assert result.statistics["removed_share"] == pytest.approx(1 - share / 255)


def test_statistics_come_from_a_few_tiles_and_say_so(segmenter):
    result = segmenter.segment(smooth_volume((48, 32, 32)))
    statistics = result.statistics
    assert 0 <= statistics["removed_share"] <= 1
    assert len(statistics["levels"]) == 2
    assert 1 <= statistics["tiles"] <= 8 < statistics["of_tiles"]


# --- progress, cancel, errors ---------------------------------------------------------------------------------------


def test_progress_rises_to_one_and_estimates_the_time_left(segmenter):
    reports = []
    segmenter.segment(smooth_volume((40, 20, 20)), progress=lambda *report: reports.append(report))
    fractions = [fraction for _, fraction, _ in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert {stage for stage, _, _ in reports} >= {"Preparing", "Segmenting"}
    assert any(left is not None and left > 0 for _, _, left in reports)


def test_cancel_stops_within_a_tile_and_leaves_the_segmenter_usable(segmenter, volume):
    for calls in (0, 1, 3, 9):
        asked = itertools.count()
        with pytest.raises(Cancelled):
            segmenter.segment(volume, cancelled=lambda asked=asked, calls=calls: next(asked) >= calls)
    assert segmenter.segment(volume).labels.any()
    assert not any(module._forward_pre_hooks for module in segmenter.network.modules())


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((1, 0, 5, 5)), "empty"),
        (np.full((1, 8, 8, 8), np.nan), "no finite"),
        (np.zeros((1, 8, 8, 8), complex), "complex"),
        (np.zeros((1, 8, 8, 8, 2)), "dimensions"),
    ],
)
def test_unusable_volumes_are_refused_before_the_network_runs(segmenter, array, why):
    stages = []
    with pytest.raises(EngineError, match=why) as refusal:
        segmenter.segment(Image(array, np.eye(4)), progress=lambda stage, *_: stages.append(stage))
    assert refusal.value.code == "bad_input"
    assert refusal.value.remedy
    assert "Segmenting" not in stages


def test_a_grid_that_no_memory_holds_is_refused_at_once(resampling_package):
    image = Image(np.zeros((1, 300, 300, 300), np.uint8), np.diag([40.0, 40, 40, 1]))
    began = time.perf_counter()
    with pytest.raises(EngineError, match="GB") as refusal:
        Segmenter(resampling_package, "cpu").segment(image)
    assert refusal.value.code == "out_of_memory"
    assert time.perf_counter() - began < 5


def test_running_out_of_memory_is_said_in_words(segmenter, volume):
    def allocate(*_):
        raise MemoryError

    with pytest.raises(EngineError) as refusal:
        segmenter.segment(volume, allocate=allocate)
    assert refusal.value.code == "out_of_memory"


def test_bad_packages_are_refused(tmp_path, tiny):
    with pytest.raises(EngineError) as refusal:
        Segmenter(tmp_path / "nothing")
    assert refusal.value.code == "bad_model"
    package = make_tiny_package(tmp_path / "m")
    data = bytearray(package.weights_path.read_bytes())
    data[-1] ^= 1
    package.weights_path.write_bytes(data)
    with pytest.raises(EngineError, match="sha256") as refusal:
        Segmenter(package.folder)
    assert refusal.value.code == "bad_model"


# --- devices --------------------------------------------------------------------------------------------------------


def test_a_single_slice_is_refused_by_a_model_for_volumes(tiny):
    for shape in ((20, 20, 1), (1, 20, 20)):
        with pytest.raises(EngineError, match="single slice") as refusal:
            Segmenter(tiny, "cpu").segment(smooth_volume(shape))
        assert refusal.value.code == "bad_input"


def test_devices_that_do_not_exist_are_refused(tiny):
    for device in ("tpu", "cuda:x", "", "cpu:1"):
        with pytest.raises(EngineError) as refusal:
            Segmenter(tiny, device)
        assert refusal.value.code == "no_device"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA card is there")
def test_cuda_that_is_not_there_is_replaced_by_the_cpu_with_a_notice(tiny, volume):
    segmenter = Segmenter(tiny, "cuda")
    assert segmenter.device == "cpu"
    assert "CUDA was not used" in segmenter.segment(volume).notices[0]
    assert "CUDA was not used" in Segmenter(tiny, "auto").segment(volume).notices[0]
    assert Segmenter(tiny, "cpu").segment(volume).notices == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
def test_cuda_agrees_with_the_cpu(tiny, volume):
    on_card, on_cpu = Segmenter(tiny, "cuda"), Segmenter(tiny, "cpu")
    assert on_card.device == "cuda:0"
    assert (on_card.segment(volume).labels == on_cpu.segment(volume).labels).mean() > 0.999


def lack_memory_beyond(segmenter, most: int, monkeypatch) -> None:
    """The network fails as PyTorch does when memory ends, for inputs of more than `most` values."""
    forward = segmenter.network.forward

    def limited(x):
        if x.numel() > most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")
        return forward(x)

    monkeypatch.setattr(segmenter.network, "forward", limited)


def test_too_little_memory_means_smaller_tiles_and_a_notice(tiny, tmp_path, volume, monkeypatch):
    segmenter = Segmenter(tiny, "cpu")
    lack_memory_beyond(segmenter, 8 * 16 * 16, monkeypatch)
    result = segmenter.segment(volume, EVERYTHING, shortcuts=False)
    small = Segmenter(make_tiny_package(tmp_path / "m", spacing=None, patch_size=[8, 16, 16]), "cpu")
    if segmenter.network.can_halve_on_cpu():  # which is tried before, and kept
        small.network.half_on = "cpu"
    np.testing.assert_array_equal(result.labels, small.segment(volume, EVERYTHING, shortcuts=False).labels)
    assert len(result.notices) == 1 + segmenter.network.can_halve_on_cpu()
    assert "8 x 16 x 16" in result.notices[-1]
    assert Segmenter(tiny, "cpu").segment(volume).notices == []


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 here")
def test_half_precision_comes_before_smaller_tiles(tiny, volume, monkeypatch):
    segmenter, expected = Segmenter(tiny, "cpu"), Segmenter(tiny, "cpu").segment(volume).labels
    forward = segmenter.network.logits

    def limited(x):
        if x.dtype == torch.float32:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")
        return forward(x)

    monkeypatch.setattr(segmenter.network, "logits", limited)
    result = segmenter.segment(volume)
    assert len(result.notices) == 1 and "half precision" in result.notices[0]
    assert (result.labels == expected).mean() > 0.99
    assert segmenter.network.half_on == ""  # the next run tries as usual


def test_too_little_memory_for_many_slices_means_one_at_a_time_and_the_same_labels(tiny_flat, monkeypatch):
    segmenter, image = Segmenter(tiny_flat, "cpu"), smooth_volume((40, 30, 5), channels=3)
    expected = segmenter.segment(image).labels
    lack_memory_beyond(segmenter, 3 * 48 * 32, monkeypatch)
    result = segmenter.segment(image)
    np.testing.assert_array_equal(result.labels, expected)
    assert "singly" in result.notices[0]


def test_memory_that_never_suffices_is_said_in_words(tiny, volume, monkeypatch):
    segmenter = Segmenter(tiny, "cpu")
    lack_memory_beyond(segmenter, 0, monkeypatch)
    with pytest.raises(EngineError) as refusal:
        segmenter.segment(volume)
    assert refusal.value.code == "out_of_memory"
    assert refusal.value.remedy


def test_a_card_gives_way_to_half_precision_then_to_the_cpu_then_to_smaller_tiles():
    effort, tried = Effort("cuda:0"), []
    while found := effort.lighter((96, 96, 96), (16, 16, 16)):
        effort, notice = found
        tried.append((effort.device, effort.half, effort.tile((96, 96, 96), (16, 16, 16))))
        assert "did not suffice" in notice
    assert tried[:3] == [
        ("cuda:0", True, (96, 96, 96)),
        ("cpu", False, (96, 96, 96)),
        ("cpu", False, (48, 96, 96)),
    ]
    assert tried[-1] == ("cpu", False, (48, 48, 48))


LIMITED = """
import resource, sys
import numpy as np
from prosma import Image
from prosma.inference.segmenter import Segmenter
segmenter = Segmenter(sys.argv[1], "cpu")
image = Image(np.load(sys.argv[2]), np.eye(4))
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(sys.argv[3]) * 2**20,) * 2)
result = segmenter.segment(image, shortcuts=False)
np.save(sys.argv[4], result.labels)
print(*result.notices)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of address space are Linux's")
def test_a_process_that_gets_no_more_memory_finishes_in_smaller_tiles(tmp_path):
    network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [16, 32]}
    make_tiny_package(tmp_path / "m", spacing=None, patch_size=[96, 96, 96], network=network)
    image = smooth_volume((96, 96, 96))
    np.save(tmp_path / "image.npy", image.array)
    files = [str(tmp_path / name) for name in ("m", "image.npy", "labels.npy")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ENGINE)}

    def run(megabytes: int) -> str:
        command = [sys.executable, "-c", LIMITED, *files[:2], str(megabytes), files[2]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert "smaller tiles" not in run(4000)
    notices = run(250)
    assert "smaller tiles" in notices
    tile = [int(n) for n in re.search(r"\((\d+) x (\d+) x (\d+) voxels\)[^(]*$", notices).groups()]
    small = make_tiny_package(tmp_path / "small", spacing=None, patch_size=tile, network=network)
    segmenter = Segmenter(small, "cpu")
    if segmenter.network.can_halve_on_cpu():  # which is tried before, and kept
        segmenter.network.half_on = "cpu"
    expected = segmenter.segment(Image(image.array, np.eye(4)), shortcuts=False).labels
    assert (np.load(files[2]) == expected).mean() > 0.999


# --- shortcuts ------------------------------------------------------------------------------------------------------


def test_only_the_box_of_what_is_not_empty_is_looked_at(tiny):
    segmenter = Segmenter(tiny, "cpu")
    inner = smooth_volume((20, 18, 17)).array
    inner[inner == inner.min()] += 1
    array = np.full((1, 70, 60, 50), inner.min() - 1, np.int16)
    array[:, 30:50, 20:38, 10:27] = inner
    result = segmenter.segment(Image(array, np.eye(4)), ("probabilities",), overlap=0)
    assert result.statistics["of_tiles"] == 8
    assert sliding_window.TilePlan.make(array.shape[1:], (16, 16, 16), 0).count == 80
    outside = np.ones(result.labels.shape, bool)
    outside[28:52, 18:40, 8:29] = False
    assert not result.labels[outside].any()
    assert (result.probabilities[0][outside] == 255).all()
    assert result.labels[30:50, 20:38, 10:27].any()


def test_the_callers_voxels_stay_as_they_are(tiny):
    array = smooth_volume((20, 18, 17)).array.astype(np.float32)
    before = array.copy()
    Segmenter(tiny, "cpu").segment(Image(array, np.eye(4)))
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ((slice(30, 40), slice(5, 20)), (slice(27, 43), slice(3, 22))),
        ((slice(0, 4), slice(0, 30)), (slice(0, 16), slice(0, 30))),
        ((slice(58, 60), slice(29, 30)), (slice(44, 60), slice(14, 30))),
        ((slice(0, 0), slice(0, 0)), (slice(0, 60), slice(0, 30))),
    ],
)
def test_foreground_has_a_margin_and_the_size_of_a_patch(where, expected):
    array = np.full((2, 60, 30), -1.5, np.float32)
    array[(1, *where)] = 3
    assert foreground(array, (16, 16)) == expected


def test_the_cpu_is_always_listed():
    first = devices.list_devices()[0]
    assert (first["name"], first["usable"]) == ("cpu", True)


# --- restoring ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [None, [2.0, 1.0, 0.7]])
def test_rows_restored_as_they_come_equal_the_whole_at_once(axis, spacing):
    from prosma.image.geometry import plan_canonical
    from prosma.image.resampling import UNIT, resample

    matrix = np.array([[0, -1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 1.5, 0], [0, 0, 0, 1]])
    image = Image(np.zeros((1, 13, 11, 9), np.uint8), matrix)
    canonical = plan_canonical(image, {"dimension": 3, "orientation": "RAS", "spacing": spacing})
    scores = np.random.default_rng(0).dirichlet([1, 1, 1, 1], canonical.size).transpose(3, 0, 1, 2).astype(np.float32)
    restorer = Restorer(canonical, 4, axis, ("probabilities", "uncertainty"))
    first = 0
    for count in (3, 1, 4, 99):
        place = [slice(None)] * 4
        place[axis + 1] = slice(first, first + count)
        block = np.rint(scores[tuple(place)] * UNIT).astype(np.int16)
        restorer.add(first, block)
        first += block.shape[axis + 1]
    whole = resample(scores, canonical.oriented_shape)
    np.testing.assert_array_equal(canonical.view(restorer.results["labels"]), whole.argmax(0))
    restored = canonical.view(restorer.results["probabilities"])
    np.testing.assert_allclose(restored / 255, whole, atol=0.003)
    np.testing.assert_array_equal(canonical.restore_scores(scores), restorer.results["labels"])


def test_memory_stays_bounded_by_the_band(tmp_path):
    """Peak of Python's and numpy's memory for a long volume: far below all classes' scores at full precision."""
    import tracemalloc

    package = make_tiny_package(tmp_path / "m", labels=11, spacing=None, patch_size=[16, 16, 16])
    segmenter = Segmenter(package, "cpu")
    image = smooth_volume((160, 20, 20))
    tracemalloc.start()
    segmenter.segment(image, overlap=0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    scores = 12 * 4 * image.array.size
    assert sliding_window.TilePlan.make(image.shape, (16, 16, 16), 0).axis == 0
    assert peak < 0.5 * scores


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [None, [2.0, 1.0, 0.7]])
def test_scores_of_a_part_are_restored_as_if_all_else_were_background(axis, spacing):
    from prosma.image.geometry import plan_canonical
    from prosma.image.resampling import UNIT

    matrix = np.array([[0, -1.3, 0, 0], [0.7, 0, 0, 0], [0, 0, -1.5, 0], [0, 0, 0, 1]])
    image = Image(np.zeros((1, 23, 21, 19), np.uint8), matrix)
    canonical = plan_canonical(image, {"dimension": 3, "orientation": "RAS", "spacing": spacing})
    inside = (slice(2, 8), slice(3, 9), slice(1, canonical.size[2]))
    scores = np.zeros((4, *canonical.size), np.int16)
    scores[0] = UNIT
    part = np.random.default_rng(0).dirichlet([1, 1, 1, 1], [s.stop - s.start for s in inside])
    scores[(slice(None), *inside)] = np.rint(part * UNIT).transpose(3, 0, 1, 2)
    outputs = ("probabilities", "uncertainty")
    whole, partial = (Restorer(canonical, 4, axis, outputs, inside=box) for box in (None, inside))
    whole.add(0, scores)
    rows = scores[(slice(None), *inside)]
    for first in range(0, rows.shape[axis + 1], 3):
        partial.add(first, np.take(rows, range(first, min(first + 3, rows.shape[axis + 1])), axis + 1))
    for name, expected in whole.results.items():
        np.testing.assert_allclose(partial.results[name].astype(int), expected.astype(int), atol=name != "labels")
    assert whole.reach() == partial.reach()


@pytest.mark.slow
def test_every_robust_volume_is_segmented_on_its_own_grid_or_refused(shared, tmp_path):
    """Through the whole engine: read, canonical grid, tiles, back, written, read again."""
    import json

    from prosma.image.geometry import ImageError
    from prosma.image.reading import read_labels
    from prosma.image.writing import write_labels

    package = make_tiny_package(tmp_path / "m", spacing=[8.0, 8.0, 8.0], patch_size=[32, 32, 32])
    segmenter = Segmenter(package, "cpu")
    refused = 0
    for item in json.loads((shared / "robust_volumes" / "manifest.json").read_text()):
        try:
            image = read_image(shared / "robust_volumes" / item["file"])
            labels = segmenter.segment(image).labels
        except (ImageError, EngineError) as error:
            assert error.remedy, item["file"]
            refused += 1
            continue
        write_labels(tmp_path / "a.seg.nrrd", labels, image, package.labels)
        again = read_labels(tmp_path / "a.seg.nrrd")
        np.testing.assert_array_equal(again.array[0], labels)
        np.testing.assert_allclose(again.ijk_to_ras, image.ijk_to_ras, atol=1e-9)
    assert refused == 9  # seven that `test_image` names, the volume of two channels, and the single slice


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [None, [1.0, 1.0, 1.0]])
def test_probabilities_are_exact_where_labels_reach_and_background_elsewhere(axis, spacing):
    """Labels in a corner of the grid: the rest is not computed, and nobody can tell."""
    from prosma.image.geometry import plan_canonical
    from prosma.image.resampling import UNIT, resample

    matrix = np.array([[0, -1.3, 0, 0], [0.7, 0, 0, 0], [0, 0, -1.5, 0], [0, 0, 0, 1]])
    image = Image(np.zeros((1, 23, 21, 19), np.uint8), matrix)
    canonical = plan_canonical(image, {"dimension": 3, "orientation": "RAS", "spacing": spacing})
    scores = np.zeros((4, *canonical.size), np.float32)
    random = np.random.default_rng(0).dirichlet([1, 1, 1, 1], (5, 4, 3)).transpose(3, 0, 1, 2)
    scores[0] = 1
    scores[:, 2:7, 3:7, 1:4] = random
    scores[2:, 2:7, 3:7, 1:4], scores[0, 2:7, 3:7, 1:4] = 0, 1 - random[1]
    restorer = Restorer(canonical, 4, axis, ("probabilities",))
    for first in range(0, canonical.size[axis], 4):
        rows = np.take(scores, range(first, min(first + 4, canonical.size[axis])), axis + 1)
        restorer.add(first, np.rint(rows * UNIT).astype(np.int16))
    whole = np.rint(resample(scores, canonical.oriented_shape) * 255)
    whole[0][whole[1:].sum(axis=0) == 0] = 255
    restored = restorer.results["probabilities"]
    np.testing.assert_allclose(canonical.view(restored), whole, atol=1)
    np.testing.assert_array_equal(restored[2:], 0)
    box = restorer.reach()
    assert box[1:] == [None, None]
    where = np.argwhere(restored[1])
    assert box[0] == tuple(zip(where.min(axis=0).tolist(), (where.max(axis=0) + 1).tolist(), strict=True))
