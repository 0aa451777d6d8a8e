"""The moving band gives what a plain sliding window over whole arrays gives."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosma.errors import Cancelled
from prosma.intensity import pad_to_patch
from prosma.tiling import TilePlan, gaussian_window, slide, tile_starts


def scores_of(tile: np.ndarray) -> np.ndarray:
    """Something that depends on a voxel's value and on its place in the tile, as a network's scores do."""
    ramp = np.arange(tile[0].size, dtype=np.float32).reshape(tile.shape[1:]) / tile[0].size
    return np.stack([tile[0] * ramp, tile[-1] + ramp, np.ones_like(ramp)]).astype(np.float32)


def collect(array, plan, **options):
    """All delivered rows as one array, and checks that each row came once, in order."""
    result = np.full((3, *array.shape[1:]), np.nan, np.float32)
    following = 0

    def deliver(first, block):
        nonlocal following
        assert first == following
        following = first + block.shape[plan.axis + 1]
        place = [slice(None)] * (array.ndim)
        place[plan.axis + 1] = slice(first, following)
        result[tuple(place)] = block

    slide(array, plan, 3, scores_of, deliver, **options)
    assert following == array.shape[plan.axis + 1]
    return result


def plain_window(array, plan):
    """Sums of weighted scores and of weights over the whole volume."""
    padded, inside = pad_to_patch(array, plan.patch)
    weight = np.ones((), np.float64)
    for window in plan.windows:
        weight = weight[..., None] * window
    total, weights = np.zeros((3, *padded.shape[1:])), np.zeros(padded.shape[1:])
    for corner in itertools.product(*plan.starts):
        place = tuple(slice(c, c + p) for c, p in zip(corner, plan.patch, strict=True))
        total[(slice(None), *place)] += scores_of(padded[(slice(None), *place)]) * weight
        weights[place] += weight
    return (total / weights)[(slice(None), *inside)]


@given(st.data())
def test_band_equals_plain_sliding_window(data):
    axes = data.draw(st.integers(2, 3))
    shape = data.draw(st.tuples(*[st.integers(1, 21)] * axes))
    patch = data.draw(st.tuples(*[st.sampled_from([1, 4, 6, 8])] * axes))
    flat = data.draw(st.sampled_from([(), (axes - 1,)]))
    plan = TilePlan.make(shape, patch, data.draw(st.floats(0, 0.9)), flat)
    array = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    np.testing.assert_allclose(collect(array, plan), plain_window(array, plan), rtol=2e-4, atol=2e-5)


@given(st.integers(1, 300), st.integers(1, 96), st.floats(0, 0.9))
def test_tiles_cover_everything_with_the_overlap_asked_for(size, patch, overlap):
    starts = tile_starts(size, patch, overlap)
    assert starts[0] == 0
    if size <= patch:
        assert starts == [0]
        return
    assert starts[-1] == size - patch
    steps = np.diff(starts)
    assert steps.min() >= 1
    assert steps.max() <= max(1, np.ceil(patch * (1 - overlap)))


def test_scores_of_a_constant_network_stay_constant_to_the_edges():
    plan = TilePlan.make((50, 20, 30), (16, 16, 16), 0.5)
    result = collect(np.zeros((1, 50, 20, 30), np.float32), plan)
    np.testing.assert_allclose(result[2], 1, rtol=1e-5)


def test_the_band_runs_along_the_axis_that_needs_the_least_memory():
    assert TilePlan.make((40, 300, 50), (32, 32, 32), 0.5).axis == 1
    assert TilePlan.make((64, 64, 20), (64, 64, 5), 0.5, flat=(2,)).axis == 2


def test_scores_never_exist_for_the_whole_volume():
    blocks = []
    plan = TilePlan.make((96, 20, 20), (16, 16, 16), 0.5)
    slide(np.zeros((1, 96, 20, 20), np.float32), plan, 3, scores_of, lambda first, block: blocks.append(block.shape[1]))
    assert sum(blocks) == 96
    assert max(blocks) <= 16


def test_cancel_is_asked_before_each_tile_and_progress_counts_them():
    plan = TilePlan.make((40, 40, 16), (16, 16, 16), 0.5)
    asked, done, delivered = [], [], []

    def cancelled():
        asked.append(len(done))
        return len(done) == 3

    with pytest.raises(Cancelled):
        slide(
            np.zeros((1, 40, 40, 16), np.float32),
            plan,
            3,
            scores_of,
            lambda first, block: delivered.append(first),
            progress=lambda count, total: done.append((count, total)),
            cancelled=cancelled,
        )
    assert asked == [0, 1, 2, 3]
    assert done == [(n, plan.count) for n in (1, 2, 3)]
    assert plan.count == 16
    assert not delivered


@pytest.mark.parametrize("overlap", [-0.1, 0.95, float("nan")])
def test_impossible_overlaps_are_refused(overlap):
    with pytest.raises(ValueError, match="overlap"):
        TilePlan.make((40, 40, 16), (16, 16, 16), overlap)


def test_window_is_symmetric_and_never_zero():
    for length in (1, 2, 7, 96):
        window = gaussian_window(length)
        np.testing.assert_array_equal(window, window[::-1])
        assert window.min() >= 1e-3
        assert window.max() <= 1
