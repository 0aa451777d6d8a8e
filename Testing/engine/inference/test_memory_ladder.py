"""Where memory does not suffice: the same with less at once, and a notice; what a run holds at most."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from prosma.errors import EngineError
from prosma.image.geometry import Image
from prosma.inference import sliding_window
from prosma.inference.memory_ladder import Effort
from prosma.inference.segmenter import Segmenter
from small_volumes import smooth_shades, smooth_volume
from tiny_model import make_tiny_package

ENGINE = Path(__file__).resolve().parents[3] / "training"
EVERYTHING = ("probabilities", "uncertainty", "gate_map")


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
    segmenter, image = Segmenter(tiny_flat, "cpu"), smooth_shades((40, 30, 5), channels=3)
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


def test_tiles_are_halved_in_numbers():
    effort, multiple = Effort("cpu"), (8, 8, 4)
    tiles = [effort.tile((96, 80, 20), multiple, n) for n in range(6)]
    # the longest side of those with more than three multiples: 80 becomes 40, and half of 40 is three eights
    assert tiles == [(96, 80, 20), (48, 80, 20), (48, 40, 20), (24, 40, 20), (24, 24, 20), (24, 24, 12)]
    assert effort.tile((16, 16, 8), multiple, 5) == (16, 16, 8)
    assert Effort("cpu", halvings=1).tile((96, 80, 20), multiple) == (48, 80, 20)


def test_each_step_down_in_numbers():
    first = Effort("cpu")
    assert (first.batch, first.half, first.halvings, first.scarce) == (8, False, 0, False)
    singly, notice = first.lighter((64, 64), (8, 8))
    assert (singly.batch, singly.half, singly.scarce) == (1, False, True) and "The computer's memory" in notice
    assert singly.lighter((64, 64), (8, 8)) is None
    halved, _ = singly.lighter((64, 64), (8, 8), cpu_can_halve=True)
    assert halved.half and halved.batch == 1 and halved.lighter((64, 64), (8, 8), cpu_can_halve=True) is None
    card, notice = Effort("cuda:1", half=True, batch=1).lighter((64, 64), (8, 8))
    assert card == Effort("cpu", scarce=True) and "cuda:1" in notice
    smaller, steps = Effort("cpu", half=True), 0
    while found := smaller.lighter((96, 96, 96), (8, 8, 8)):
        smaller, steps = found[0], steps + 1
    assert steps == 3 and smaller.half, "three halvings at most"
    assert Effort("cpu").lighter((16, 16, 16), (8, 8, 8)) is None, "nothing left to halve"
