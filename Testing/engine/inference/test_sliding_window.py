"""The moving band gives what a plain sliding window over whole arrays gives."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosma.cancel import Cancelled
from prosma.image.intensity import pad_to_patch
from prosma.image.resampling import UNIT
from prosma.inference.sliding_window import (
    TilePlan,
    default_overlap,
    gaussian_window,
    normalised_weights,
    outer_product,
    sliding_window_inference,
    tile_starts,
)


def scores_of(tile: np.ndarray) -> np.ndarray:
    """Scores that depend on a voxel's value and on its place in the tile, as a network's do, and sum to 1."""
    ramp = np.arange(tile[0].size, dtype=np.float32).reshape(tile.shape[1:]) / tile[0].size
    scores = np.exp(np.stack([tile[0] * ramp, tile[-1] + ramp, np.ones_like(ramp)]).astype(np.float32))
    return scores / scores.sum(axis=0)


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
        assert block.dtype == np.int16
        result[tuple(place)] = block / UNIT

    sliding_window_inference(array, plan, 3, scores_of, deliver, **options)
    assert following == array.shape[plan.axis + 1]
    return result


def bell(length):
    """A normal density with standard deviation length / 8, 1 in the middle and at least 0.001."""
    return [max(0.001, np.exp(-(((n - (length - 1) / 2) * 8 / length) ** 2) / 2)) for n in range(length)]


def plain_window(array, plan, flat):
    """Sums of weighted scores and of weights over the whole volume."""
    padded, inside = pad_to_patch(array, plan.patch)
    weight = np.ones((), np.float64)
    for axis, length in enumerate(plan.patch):
        weight = weight[..., None] * (np.ones(length) if axis in flat else bell(length))
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
    tiles = [
        max(sum(s <= n < s + p for s in starts) for n in starts) for starts, p in zip(plan.starts, patch, strict=True)
    ]
    rounding = np.prod(tiles) * 0.5 / UNIT  # each tile's share is rounded once
    np.testing.assert_allclose(collect(array, plan), plain_window(array, plan, flat), rtol=0, atol=rounding + 1e-5)


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
    np.testing.assert_allclose(result.sum(axis=0), 1, atol=3e-4)


def test_the_band_runs_along_the_axis_that_needs_the_least_memory():
    assert TilePlan.make((40, 300, 50), (32, 32, 32), 0.5).axis == 1
    assert TilePlan.make((64, 64, 20), (64, 64, 5), 0.5, flat=(2,)).axis == 2


def test_scores_never_exist_for_the_whole_volume():
    blocks = []
    plan = TilePlan.make((96, 20, 20), (16, 16, 16), 0.5)
    sliding_window_inference(
        np.zeros((1, 96, 20, 20), np.float32), plan, 3, scores_of, lambda first, block: blocks.append(block.shape[1])
    )
    assert sum(blocks) == 96
    assert max(blocks) <= 16


def test_a_volume_of_the_benchmark_takes_few_tiles_and_a_thin_band():
    """The guard of speed and memory that does not depend on the machine; the trained patch is 96 x 96 x 96."""
    size, patch = (256, 256, 160), (96, 96, 96)
    thorough = TilePlan.make(size, patch, 0.5)
    default = TilePlan.make(size, patch, None)
    assert thorough.count == 75
    assert default.work <= 0.43 * thorough.work
    blocks = []

    def predict(tile):
        return np.broadcast_to(np.float32(0.2), (5, *tile.shape[1:]))

    tracemalloc.start()
    array = np.zeros((1, *size), np.float32)
    before = tracemalloc.get_traced_memory()[0]
    sliding_window_inference(array, default, 5, predict, lambda first, block: blocks.append(block.shape))
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak <= 1.3 * array.nbytes
    assert sum(shape[default.axis + 1] for shape in blocks) == size[default.axis]


def test_by_default_tiles_share_24_voxels_but_a_quarter_at_least_and_a_half_at_most():
    for length, shared in ((16, 8), (40, 20), (48, 24), (64, 24), (96, 24), (160, 40)):
        starts = tile_starts(length * 2 - shared, length, None)
        assert starts == [0, length - shared]
        assert len(tile_starts(length * 2 - shared + 1, length, None)) == 3


def test_cancel_is_asked_before_each_tile_and_progress_counts_them():
    plan = TilePlan.make((40, 40, 16), (16, 16, 16), 0.5)
    asked, done, delivered = [], [], []

    def cancelled():
        asked.append(len(done))
        return len(done) == 3

    with pytest.raises(Cancelled):
        sliding_window_inference(
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


# --- numbers that can be checked by hand


def test_the_window_in_numbers():
    # standard deviation length / 8: for 16 that is 2, so half a voxel from the middle exp(-0.25^2 / 2), and so on
    expected = [np.exp(-0.5 * (place / 2) ** 2) for place in np.arange(0.5, 8)]
    window = gaussian_window(16)
    np.testing.assert_allclose(window[8:], np.maximum(expected, 0.001), rtol=1e-6)
    assert window[8] == pytest.approx(0.9692, abs=1e-4)
    assert window[11] == pytest.approx(0.2163, abs=1e-4)
    assert window[15] == np.float32(0.001), "exp(-7.03) is 0.0009: the least weight takes its place"
    assert gaussian_window(1).tolist() == [1]
    assert gaussian_window(9)[4] == 1 and window.dtype == np.float32


@pytest.mark.parametrize(
    ("size", "patch", "overlap", "starts"),
    [
        (100, 40, 0.5, [0, 20, 40, 60]),
        (101, 40, 0.5, [0, 15, 30, 46, 61]),
        (10, 4, 0.0, [0, 3, 6]),
        (8, 4, 0.0, [0, 4]),
        (9, 4, 0.0, [0, 2, 5]),
        (4, 4, 0.5, [0]),
        (3, 4, 0.5, [0]),
        (5, 4, 0.5, [0, 1]),
        (6, 2, 0.9, [0, 1, 2, 3, 4]),
        (200, 100, 0.9, list(range(0, 101, 10))),  # 100 * (1 - 0.9) is a little less than 10
        (72, 48, None, [0, 24]),
        (136, 96, None, [0, 40]),
    ],
)
def test_where_tiles_start(size, patch, overlap, starts):
    assert tile_starts(size, patch, overlap) == starts


def test_the_share_of_tiles_in_common_by_default():
    assert [default_overlap(n) for n in (16, 48, 60, 96, 192)] == [0.5, 0.5, 0.4, 0.25, 0.25]


def test_normalised_weights_in_numbers():
    window = np.array([1, 3, 1], np.float32)
    first, second = normalised_weights(5, [0, 2], window)
    assert first.tolist() == [1, 1, 0.5] and second.tolist() == [0.5, 1, 1]


def test_the_product_of_windows_in_numbers():
    product = outer_product([np.array([1, 2]), np.array([3, 4, 5])])
    assert product.tolist() == [[3, 4, 5], [6, 8, 10]]


def test_a_plan_in_numbers():
    plan = TilePlan.make((20, 6, 3), (8, 8, 1), 0.5, flat=(2,))
    assert plan.size == (20, 8, 3) and plan.patch == (8, 8, 1)
    assert plan.starts == ([0, 4, 8, 12], [0], [0, 1, 2])
    assert plan.count == 12 and plan.work == 12 * 64
    assert all(share.tolist() == [1] for share in plan.shares[2])
    assert plan.shares[1][0].tolist() == [1] * 8
    np.testing.assert_allclose(plan.shares[0][0][4:] + plan.shares[0][1][:4], 1, rtol=1e-6)
    assert plan.axis == 2, "one slice of 20 x 8 voxels is the thinnest band"
    assert TilePlan.make((20, 9), (8, 4), 0.5, flat=(1,)).starts[1] == [0, 2, 5], (
        "flat axes overlap no more than needed"
    )
    assert TilePlan.make((20, 20), (8, 8), 0.0).starts == ([0, 6, 12], [0, 6, 12])


def test_of_bands_of_one_size_the_one_along_a_flat_axis_is_taken():
    # bands 8 x 20 and 20 x 8: as many voxels; the flat axis wins, else the first
    assert TilePlan.make((20, 20), (8, 8), 0.5).axis == 0
    assert TilePlan.make((20, 20), (8, 8), 0.5, flat=(1,)).axis == 1


def test_the_largest_overlap_is_allowed():
    assert TilePlan.make((20, 20), (10, 10), 0.9).count == 121
    with pytest.raises(ValueError, match=r"from 0 to 0\.9, not 0\.91"):
        TilePlan.make((20, 20), (10, 10), 0.91)


def test_a_small_volume_is_padded_on_both_sides_and_delivered_without_the_padding():
    seen, rows = [], []

    def predict(tile):
        seen.append(tile)
        return np.stack([np.full(tile.shape[1:], 0.25, np.float32), np.full(tile.shape[1:], 0.75, np.float32)])

    array = np.arange(1, 7, dtype=np.float32).reshape(1, 3, 2)
    plan = TilePlan.make((3, 2), (6, 4), 0.5)
    sliding_window_inference(array, plan, 2, predict, lambda first, block: rows.append((first, block.copy())))
    (tile,) = seen
    np.testing.assert_array_equal(tile, np.pad(array, [(0, 0), (1, 2), (1, 1)]))
    assert [first for first, _ in rows] == [0]
    blocks = np.concatenate([block for _, block in rows], axis=plan.axis + 1)
    assert blocks.shape == (2, 3, 2)
    assert (blocks[0] == UNIT // 4).all() and (blocks[1] == 3 * UNIT // 4).all()


def test_shares_are_rounded_to_the_nearest_step_not_cut():
    """0.99999 of 32000 is 31999.68: a cut would give 31999."""
    found = []
    plan = TilePlan.make((4, 4), (4, 4), 0.5)
    sliding_window_inference(
        np.zeros((1, 4, 4), np.float32),
        plan,
        1,
        lambda tile: np.full((1, 4, 4), 0.99999, np.float32),
        lambda first, block: found.append(int(block.max())),
    )
    assert found == [UNIT] == [32000]
