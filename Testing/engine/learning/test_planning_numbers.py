"""What a recipe is planned from, in numbers that can be checked by hand (training/prosma/learning/fit)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from prosma.learning.fit.fitting import downscaled, learning_rate_factor
from prosma.learning.fit.mirror_rule import mirror_axes
from prosma.learning.fit.planning import (
    anisotropic_axis,
    batch_size,
    field_of_view,
    grid_sizes,
    patch_size,
    plan_stages,
    target_spacing,
    to_multiples,
    training_schedule,
)


def test_the_rate_falls_as_a_polynomial_or_a_cosine():
    assert [learning_rate_factor("poly", share) for share in (0, 0.5, 1, 2)] == pytest.approx([1, 0.5**0.9, 0, 0])
    assert [learning_rate_factor("cosine", share) for share in (0, 0.25, 0.5, 1)] == pytest.approx(
        [1, 0.8536, 0.5, 0], abs=1e-4
    )


def test_shrunk_patches_are_multiples_and_never_larger():
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    labels = torch.arange(16).reshape(1, 1, 4, 4)
    small, nearest = downscaled(images, labels, 0.5, (1, 1))
    assert small.flatten().tolist() == [2.5, 4.5, 10.5, 12.5], "means of four"
    assert nearest.flatten().tolist() == [5, 7, 13, 15]
    large = torch.zeros(1, 1, 48, 20)
    assert downscaled(large, large.long(), 0.7, (8, 8))[0].shape[2:] == (32, 16)  # 33.6 is 4.2 eights, 14 is 1.75
    assert downscaled(large, large.long(), 0.1, (8, 16))[0].shape[2:] == (16, 20), (
        "two at least, but not more than there is"
    )


def test_the_thick_axis_is_three_times_as_coarse():
    assert anisotropic_axis([1, 1, 3.1]) == 2 and anisotropic_axis([1, 1, 3.0]) is None
    assert anisotropic_axis([4, 1, 1]) == 0 and anisotropic_axis([1, 4]) is None


def test_target_spacing_in_numbers():
    sizes, spacings = (
        np.array([[90, 90, 90], [100, 100, 100], [300, 100, 80]]),
        np.array([[1.0, 1, 1], [2, 1, 1], [3, 2, 1]]),
    )
    assert target_spacing(sizes, spacings) == [2, 1, 1]
    thick = np.array([[100, 100, 20], [100, 100, 30], [100, 100, 25]]), np.array([[1.0, 1, 4], [1, 1, 5], [1, 1, 8]])
    # the tenth percentile of 4, 5, 8 is 4.2; not below the other axes
    assert target_spacing(*thick) == [1, 1, 4.2]
    assert target_spacing(thick[0] * (1, 1, 2), thick[1]) == [1, 1, 5], "with enough slices the median stays"
    assert target_spacing(np.array([[9, 9]]), np.array([[0.123456789, 2]])) == [0.12346, 2]


def test_patches_and_grids_in_numbers():
    assert patch_size([40, 50, 60], 3) == [40, 50, 60]
    assert np.prod(patch_size([200, 200, 200], 3)) <= 64**3 < 65 * 64 * 64
    assert patch_size([200, 200, 200], 3) == [64, 64, 64]
    assert patch_size([300, 100], 2) == [256, 100]
    found = SimpleNamespace(
        sizes=np.array([[100, 200], [300, 200], [120, 220]]), spacings=np.array([[1, 2], [1, 1], [1, 1]])
    )
    assert grid_sizes(found, [2.0, 1.0]) == [60, 220]  # medians of 50, 150, 60 and of 400, 200, 220
    assert grid_sizes(found, None) == [120, 200]
    found.sizes = found.sizes * 4
    assert grid_sizes(found, None) == [154, 256], "480 x 800 at 256 / 800 of it"


def test_batches_and_rhythm_in_numbers():
    assert [batch_size([256, 256], n) for n in (1, 50)] == [2, 8]
    assert batch_size([64, 64, 64], 50) == 2 and batch_size([32, 32, 32], 50) == 4 and batch_size([128, 128], 50) == 12
    assert batch_size([128, 128], 5) == 5
    # 10 patches of each of 20 cases, two at once: 100 steps an epoch; 3000 steps are 30 epochs, validated 6 times
    assert training_schedule(20, 2) == {"epochs": 30, "iterations": 100, "validate_every": 5}
    assert training_schedule(7, 2) == {"epochs": 86, "iterations": 35, "validate_every": 14}
    assert training_schedule(1, 4)["iterations"] == 25 and training_schedule(500, 2)["iterations"] == 100


def test_stages_in_numbers():
    strides, kernels = plan_stages([32, 16, 8], [1.0, 1.0, 3.0])
    # the third axis, three times as coarse, is left alone until the others have caught up; no edge falls below 4
    assert strides == [[1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 1, 1]]
    assert kernels == [[3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert plan_stages([4, 4], [1.0, 1.0])[0] == [[1, 1], [1, 1]], "two stages at least"
    assert len(plan_stages([512, 512], [1.0, 1.0])[0]) == 5, "five at most"


def test_multiples_in_numbers():
    strides = [[1, 1, 1], [2, 2, 2], [2, 2, 1]]
    assert to_multiples([30, 30, 30], strides, [100, 30, 31]) == [32, 32, 30]
    assert to_multiples([33, 33, 3], strides, [100, 33, 100]) == [32, 36, 4]
    assert to_multiples([1, 1, 1], strides, [9, 9, 9]) == [4, 4, 2]
    assert to_multiples([250, 256], [[1, 1], [12, 12]], [250, 256]) == [252, 252]


def test_fields_of_view_in_numbers():
    found = SimpleNamespace(sizes=np.array([[100, 50], [200, 80]]), spacings=np.array([[1.0, 2.0], [1.0, 0.5]]))
    assert field_of_view(found) == {"min_mm": [75, 30], "max_mm": [266, 133]}


def test_the_mirror_rule():
    assert mirror_axes(["left lung", "right lung"], 3, "CT") == []
    assert mirror_axes(["anterior part", "posterior part"], 3, "MR") == [0, 2]
    assert mirror_axes(["upper lobe", "lower lobe"], 3, "MR") == [0, 1]
    assert mirror_axes(["liver", "left kidney"], 3, "CT") == [0, 1, 2], "nothing that a flip would turn into another"
    assert mirror_axes(["lesion"], 2, "US") == [0] and mirror_axes(["gland"], 2, "colour image") == [0, 1]
    assert mirror_axes(["front", "back"], 2, "colour image") == []
