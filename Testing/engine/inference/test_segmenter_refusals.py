"""What a run tells of its progress, how it ends before its time, and what it refuses; devices."""

import itertools
import tracemalloc

import numpy as np
import pytest
import torch

from prosma.cancel import Cancelled
from prosma.errors import UserFacingError
from prosma.image.geometry import Image
from prosma.inference import devices
from prosma.inference.segmenter import Segmenter
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

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
    with pytest.raises(UserFacingError, match=why) as refusal:
        segmenter.segment(Image(array, np.eye(4)), progress=lambda stage, *_: stages.append(stage))
    assert refusal.value.code == "bad_input"
    assert refusal.value.remedy
    assert "Segmenting" not in stages


def test_a_grid_that_no_memory_holds_is_refused_at_once(resampling_package):
    image = Image(np.zeros((1, 300, 300, 300), np.uint8), np.diag([40.0, 40, 40, 1]))
    stages, segmenter = [], Segmenter(resampling_package, "cpu")
    tracemalloc.start()
    with pytest.raises(UserFacingError, match="GB") as refusal:
        segmenter.segment(image, force=True, progress=lambda stage, *_: stages.append(stage))
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refusal.value.code == "out_of_memory"
    assert stages == ["Preparing"] and taken < image.array.nbytes, "nothing was made"


def test_running_out_of_memory_is_said_in_words(segmenter, volume):
    def allocate(*_):
        raise MemoryError

    with pytest.raises(UserFacingError) as refusal:
        segmenter.segment(volume, allocate=allocate)
    assert refusal.value.code == "out_of_memory"


def test_bad_packages_are_refused(tmp_path, tiny):
    with pytest.raises(UserFacingError) as refusal:
        Segmenter(tmp_path / "nothing")
    assert refusal.value.code == "bad_model"
    package = make_tiny_package(tmp_path / "m")
    data = bytearray(package.weights_path.read_bytes())
    data[-1] ^= 1
    package.weights_path.write_bytes(data)
    with pytest.raises(UserFacingError, match="sha256") as refusal:
        Segmenter(package.folder)
    assert refusal.value.code == "bad_model"


# --- devices --------------------------------------------------------------------------------------------------------


def test_devices_that_do_not_exist_are_refused(tiny):
    for device in ("tpu", "cuda:x", "", "cpu:1"):
        with pytest.raises(UserFacingError) as refusal:
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


def test_the_cpu_is_always_listed():
    first = devices.list_devices()[0]
    assert (first["name"], first["usable"]) == ("cpu", True)
