"""One image through a model: grids, orders, regions, channels, options, shortcuts."""

import itertools
import re

import nibabel
import numpy as np
import pytest
import torch

from prosma.errors import UserFacingError
from prosma.image.geometry import Image
from prosma.image.intensity import foreground
from prosma.image.reading import read_image
from prosma.inference import sliding_window
from prosma.inference.back_to_image import normalised_entropy
from prosma.inference.segmenter import Segmenter
from prosma.package.weights import load_network
from small_volumes import smooth_shades, smooth_volume
from tiny_model import make_tiny_package

EVERYTHING = ("probabilities", "uncertainty", "gate_map")


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
        with pytest.raises(UserFacingError, match="ROI") as refusal:
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
    image = smooth_shades((40, 30, 11), channels=3)
    result = segmenter.segment(image, EVERYTHING)
    assert result.labels.shape == (40, 30, 11)
    for k in (0, 5, 10):
        alone = segmenter.segment(image.cropped(((0, 40), (0, 30), (k, k + 1))), EVERYTHING)
        np.testing.assert_array_equal(result.labels[..., k], alone.labels[..., 0])


def test_grey_for_colour_and_colour_for_grey_with_a_notice(tiny_flat, segmenter):
    grey = smooth_shades((40, 30, 1))
    result = Segmenter(tiny_flat, "cpu").segment(grey)
    assert "grey image" in result.notices[0]
    result = segmenter.segment(smooth_volume(channels=3))
    assert "turned into grey" in result.notices[0]


def test_what_looks_like_colours_is_told_where_channels_are_none(tmp_path):
    package = make_tiny_package(tmp_path / "m", channels=3, spacing=None, patch_size=[16, 16, 16])
    bytes_of = np.clip(smooth_volume(channels=3).array * 40 + 100, 0, 255).astype(np.uint8)
    colours = np.ascontiguousarray(np.moveaxis(bytes_of, 0, -1)).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "colours.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(np.moveaxis(bytes_of, 0, -1)[..., None, :], np.eye(4)), tmp_path / "channels.nii.gz"
    )
    told = "holds colours; they were taken as channel 0, channel 1, channel 2."
    segmenter = Segmenter(package, "cpu")
    found = [segmenter.segment(read_image(tmp_path / f"{name}.nii.gz")) for name in ("colours", "channels")]
    assert np.array_equal(found[0].labels, found[1].labels)
    assert [any(told in notice for notice in result.notices) for result in found] == [True, False]


def test_a_picture_for_a_model_with_a_finder_names_the_model_that_was_asked_for():
    model = Segmenter("hippocampus-mr", "cpu")
    with pytest.raises(UserFacingError, match=f"'{re.escape(model.package.name)}' works on volumes"):
        model.segment(smooth_shades((300, 280, 1)))


def test_a_wrong_number_of_channels_is_refused(segmenter, tiny_flat):
    with pytest.raises(UserFacingError, match="takes 1 channel ") as refusal:
        segmenter.segment(smooth_volume(channels=2))
    assert refusal.value.code == "bad_input"
    assert refusal.value.remedy
    with pytest.raises(UserFacingError, match="channel 0, channel 1, channel 2"):
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
    with pytest.raises(UserFacingError) as refusal:
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


def test_a_single_slice_is_refused_by_a_model_for_volumes(tiny):
    for shape in ((20, 20, 1), (1, 20, 20)):
        with pytest.raises(UserFacingError, match="single slice") as refusal:
            Segmenter(tiny, "cpu").segment(smooth_volume(shape))
        assert refusal.value.code == "bad_input"


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


@pytest.mark.slow
def test_every_robust_volume_is_segmented_on_its_own_grid_or_refused(shared, tmp_path):
    """Through the whole engine: read, canonical grid, tiles, back, written, read again."""
    import json

    from prosma.image.reading import read_labels
    from prosma.image.writing import write_labels

    package = make_tiny_package(tmp_path / "m", spacing=[8.0, 8.0, 8.0], patch_size=[32, 32, 32])
    segmenter = Segmenter(package, "cpu")
    refused = 0
    for item in json.loads((shared / "robust_volumes" / "manifest.json").read_text()):
        try:
            image = read_image(shared / "robust_volumes" / item["file"])
            labels = segmenter.segment(image).labels
        except UserFacingError as error:
            assert error.remedy, item["file"]
            refused += 1
            continue
        write_labels(tmp_path / "a.seg.nrrd", labels, image, package.labels)
        again = read_labels(tmp_path / "a.seg.nrrd")
        np.testing.assert_array_equal(again.array[0], labels)
        np.testing.assert_allclose(again.ijk_to_ras, image.ijk_to_ras, atol=1e-9)
    assert refused == 9  # seven that `test_image` names, the volume of two channels, and the single slice
