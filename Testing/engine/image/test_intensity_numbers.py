"""Intensities and resampling in numbers that can be checked by hand (training/prosma/image)."""

import numpy as np
import pytest

from prosma.image.intensity import foreground, normalise, pad_to_patch, percentiles
from prosma.image.resampling import (
    UNIT,
    AxisWeights,
    argmax_labels,
    label_type,
    resample,
    resample_nearest,
)


def row(*values):
    return np.array(values, dtype=np.float64).reshape(1, -1, 1)


def normalised(values, **rule):
    return normalise(row(*values), rule).flatten().tolist()


def test_z_scores_in_numbers():
    # mean 3, deviation 2
    assert normalised([1, 5, 1, 5], rule="zscore") == [-1, 1, -1, 1]
    two = normalise(np.array([[[1.0, 5.0]], [[10.0, 30.0]]]), {"rule": "zscore"})
    assert two.reshape(2, 2).tolist() == [[-1, 1], [-1, 1]], "each channel on its own"


def test_clipped_z_scores_in_numbers():
    # percentiles 25 and 75 of 0 ... 4 are 1 and 3: 1, 1, 2, 3, 3 with mean 2 and variance 0.8
    found = normalised([0, 1, 2, 3, 4], rule="clip-zscore", percentiles=[25, 75])
    assert found == pytest.approx([-1 / 0.8**0.5, -1 / 0.8**0.5, 0, 1 / 0.8**0.5, 1 / 0.8**0.5])
    by_default = normalise(np.arange(1001.0).reshape(1, -1, 1), {"rule": "clip-zscore"}).ravel()
    clipped = np.clip(np.arange(1001.0), 5, 995)  # the percentiles 0.5 and 99.5
    np.testing.assert_allclose(by_default, (clipped - 500) / clipped.std(), atol=1e-5)


def test_foreground_is_what_lies_above_the_lowest_value():
    # of 0, 0, 2, 4 only 2 and 4 count: mean 3, deviation 1
    assert normalised([0, 0, 2, 4], rule="zscore", foreground=True) == [-3, -3, -1, 1]
    found = normalised([0, 0, 1, 2, 3, 4, 5], rule="clip-zscore", percentiles=[25, 75], foreground=True)
    # 1 ... 5 clipped to 2 and 4: mean 3, variance 0.8; the zeros become 2 as well
    assert found == pytest.approx([(v - 3) / 0.8**0.5 for v in (2, 2, 2, 2, 3, 4, 4)])


def test_a_power_is_taken_of_the_clipped_values_as_a_share_of_their_range():
    # 0, 4, 16 as shares 0, 0.25, 1; their roots 0, 0.5, 1 have mean 0.5 and variance 1 / 6
    found = normalised([0, 4, 16], rule="clip-zscore", percentiles=[0, 100], power=0.5)
    assert found == pytest.approx([-0.5 * 6**0.5, 0, 0.5 * 6**0.5], abs=1e-6)


def test_hounsfield_units_and_ranges_in_numbers():
    assert normalised([-500, 0, 40, 900], rule="ct", clip=[-100, 300], mean=50, std=25) == [
        -6,
        -2,
        -0.4000000059604645,
        10,
    ]
    assert normalised([-5, 10, 30, 55, 99], rule="range", low=10, high=50) == [0, 0, 0.5, 1, 1]


def test_a_spread_of_a_millionth_of_the_mean_is_rounding():
    assert normalised([1e6, 1e6 + 0.5], rule="zscore") == [0, 0]
    assert normalised([1e6, 1e6 + 8], rule="zscore") == pytest.approx([-1, 1], abs=0.05)
    assert normalised([0, 1e-10], rule="zscore") == pytest.approx([-1, 1])
    assert normalised([0, 1e-13], rule="zscore") == [0, 0]


def test_padding_in_numbers():
    array, inside = pad_to_patch(np.ones((1, 3, 5)), (6, 4))
    assert array.shape == (1, 6, 5) and inside == (slice(1, 4), slice(0, 5))
    assert array.sum(axis=(0, 2)).tolist() == [0, 5, 5, 5, 0, 0]
    whole = np.ones((2, 3, 3))
    assert pad_to_patch(whole, (3, 2))[0] is whole


def test_the_foreground_in_numbers():
    array = np.zeros((1, 100, 40))
    array[0, 50:60, 20] = 1
    # an eighth of the patch more on each side: 50 - 2 to 60 + 2; along the other axis 21 - 20 + 4 grows to a patch of 16
    assert foreground(array, (16, 16)) == (slice(47, 63), slice(12, 28))
    assert foreground(array, (16, 64)) == (slice(47, 63), slice(0, 40))
    array[0, 0, 39] = 1
    assert foreground(array, (16, 16)) == (slice(0, 62), slice(18, 40))
    assert foreground(np.full((2, 5, 6), 3.0), (4, 4)) == (slice(0, 5), slice(0, 6))
    two = np.zeros((2, 100, 20))
    two[0, 10], two[1, 80] = 1, 1
    assert foreground(two, (8, 8))[0] == slice(9, 82), "where any channel has something"


# --- resampling


def test_linear_interpolation_in_numbers():
    up = AxisWeights.make(2, 4)  # centres at -0.25, 0.25, 0.75, 1.25
    matrix = np.zeros((4, 2))
    for n, (index, weight) in enumerate(zip(up.index, up.weight, strict=True)):
        np.add.at(matrix[n], index, weight)
    np.testing.assert_allclose(matrix, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    assert resample(np.array([0.0, 4.0]), (4,)).tolist() == [0, 1, 3, 4]


def test_shrinking_averages_by_a_triangle_twice_as_wide_as_the_factor():
    # half as many: the centre of the second is 2.5, and 1, 2, 3, 4 lie 1.5, 0.5, 0.5, 1.5 off it: 0.25, 0.75, 0.75, 0.25
    found = resample(np.array([0.0, 8, 16, 0, 40, 0]), (3,))
    assert found[1] == pytest.approx((8 * 0.25 + 16 * 0.75 + 0 * 0.75 + 40 * 0.25) / 2)
    assert found[0] == pytest.approx((0 * 0.25 + 0 * 0.75 + 8 * 0.75 + 16 * 0.25) / 2), "beyond the end its last sample"


def test_a_part_of_a_resampled_array_is_that_part():
    array = np.random.default_rng(0).normal(size=(2, 7, 9)).astype(np.float32)
    whole = resample(array, (12, 5))
    np.testing.assert_array_equal(resample(array, (12, 5), [slice(3, 8), slice(1, 2)]), whole[:, 3:8, 1:2])
    same = resample(array, (7, 18), [slice(2, 4), slice(0, 18)])
    np.testing.assert_array_equal(same, resample(array, (7, 18))[:, 2:4])


def test_which_samples_a_sample_reaches():
    weights = AxisWeights.make(4, 8)
    # sample 1 has its centre at 2.5 of the fine grid, and reaches one and a half coarse samples: 1 to 4
    assert weights.touched(1, 2) == slice(1, 5)
    assert weights.touched(0, 4) == slice(0, 8)
    assert AxisWeights.make(8, 4).touched(7, 8) == slice(3, 4)


def test_nearest_neighbours_in_numbers():
    assert resample_nearest(np.array([1, 2, 3, 4]), (2,)).tolist() == [2, 4]
    assert resample_nearest(np.array([1, 2]), (5,)).tolist() == [1, 1, 2, 2, 2]
    assert resample_nearest(np.array([[1, 2], [3, 4]]), (2, 4)).tolist() == [[1, 1, 2, 2], [3, 3, 4, 4]]


def test_labels_of_scores_and_their_types():
    assert argmax_labels(np.array([[1, 5], [5, 1], [5, 6]])).tolist() == [1, 2]
    assert argmax_labels([None, np.array([1.0])]).tolist() == [1]
    assert argmax_labels([np.array([2]), np.array([3])], np.uint16).dtype == np.uint16
    assert [label_type(n) for n in (2, 256, 257)] == [np.uint8, np.uint8, np.uint16]
    assert UNIT == 32000 and 1.02 * UNIT < 2**15


@pytest.mark.parametrize("size", [1, 2, 3, 100, 4999])
def test_percentiles_are_those_of_numpy(size):
    random = np.random.default_rng(size)
    for values in (random.normal(size=size).astype(np.float32), random.integers(0, 5, size).astype(np.float32)):
        for percents in ((0, 100), (0.5, 99.5), (5, 95), (33.3, 66.7)):
            found = percentiles(values, percents)
            np.testing.assert_array_equal(found, np.percentile(values, percents))
            assert found.dtype == np.float64
