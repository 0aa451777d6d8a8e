"""Class scores on the model's grid become labels, probabilities and uncertainty on the image's grid, row by row."""

import numpy as np
import pytest

from prosma.image.geometry import Image, plan_canonical
from prosma.image.resampling import UNIT, resample
from prosma.inference.back_to_image import ScoreResampler


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [None, [2.0, 1.0, 0.7]])
def test_rows_restored_as_they_come_equal_the_whole_at_once(axis, spacing):
    matrix = np.array([[0, -1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 1.5, 0], [0, 0, 0, 1]])
    image = Image(np.zeros((1, 13, 11, 9), np.uint8), matrix)
    canonical = plan_canonical(image, {"dimension": 3, "orientation": "RAS", "spacing": spacing})
    scores = np.random.default_rng(0).dirichlet([1, 1, 1, 1], canonical.size).transpose(3, 0, 1, 2).astype(np.float32)
    resampler = ScoreResampler(canonical, 4, axis, ("probabilities", "uncertainty"))
    first = 0
    for count in (3, 1, 4, 99):
        place = [slice(None)] * 4
        place[axis + 1] = slice(first, first + count)
        block = np.rint(scores[tuple(place)] * UNIT).astype(np.int16)
        resampler.add(first, block)
        first += block.shape[axis + 1]
    whole = resample(scores, canonical.oriented_shape)
    np.testing.assert_array_equal(canonical.view(resampler.results["labels"]), whole.argmax(0))
    restored = canonical.view(resampler.results["probabilities"])
    np.testing.assert_allclose(restored / 255, whole, atol=0.003)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [None, [2.0, 1.0, 0.7]])
def test_scores_of_a_part_are_restored_as_if_all_else_were_background(axis, spacing):
    matrix = np.array([[0, -1.3, 0, 0], [0.7, 0, 0, 0], [0, 0, -1.5, 0], [0, 0, 0, 1]])
    image = Image(np.zeros((1, 23, 21, 19), np.uint8), matrix)
    canonical = plan_canonical(image, {"dimension": 3, "orientation": "RAS", "spacing": spacing})
    inside = (slice(2, 8), slice(3, 9), slice(1, canonical.size[2]))
    scores = np.zeros((4, *canonical.size), np.int16)
    scores[0] = UNIT
    part = np.random.default_rng(0).dirichlet([1, 1, 1, 1], [s.stop - s.start for s in inside])
    scores[(slice(None), *inside)] = np.rint(part * UNIT).transpose(3, 0, 1, 2)
    outputs = ("probabilities", "uncertainty")
    whole, partial = (ScoreResampler(canonical, 4, axis, outputs, inside=box) for box in (None, inside))
    whole.add(0, scores)
    rows = scores[(slice(None), *inside)]
    for first in range(0, rows.shape[axis + 1], 3):
        partial.add(first, np.take(rows, range(first, min(first + 3, rows.shape[axis + 1])), axis + 1))
    for name, expected in whole.results.items():
        np.testing.assert_allclose(partial.results[name].astype(int), expected.astype(int), atol=name != "labels")
    assert whole.reach() == partial.reach()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [None, [1.0, 1.0, 1.0]])
def test_probabilities_are_exact_where_labels_reach_and_background_elsewhere(axis, spacing):
    """Labels in a corner of the grid: the rest is not computed, and nobody can tell."""
    matrix = np.array([[0, -1.3, 0, 0], [0.7, 0, 0, 0], [0, 0, -1.5, 0], [0, 0, 0, 1]])
    image = Image(np.zeros((1, 23, 21, 19), np.uint8), matrix)
    canonical = plan_canonical(image, {"dimension": 3, "orientation": "RAS", "spacing": spacing})
    scores = np.zeros((4, *canonical.size), np.float32)
    random = np.random.default_rng(0).dirichlet([1, 1, 1, 1], (5, 4, 3)).transpose(3, 0, 1, 2)
    scores[0] = 1
    scores[:, 2:7, 3:7, 1:4] = random
    scores[2:, 2:7, 3:7, 1:4], scores[0, 2:7, 3:7, 1:4] = 0, 1 - random[1]
    resampler = ScoreResampler(canonical, 4, axis, ("probabilities",))
    for first in range(0, canonical.size[axis], 4):
        rows = np.take(scores, range(first, min(first + 4, canonical.size[axis])), axis + 1)
        resampler.add(first, np.rint(rows * UNIT).astype(np.int16))
    whole = np.rint(resample(scores, canonical.oriented_shape) * 255)
    whole[0][whole[1:].sum(axis=0) == 0] = 255
    restored = resampler.results["probabilities"]
    np.testing.assert_allclose(canonical.view(restored), whole, atol=1)
    np.testing.assert_array_equal(restored[2:], 0)
    box = resampler.reach()
    assert box[1:] == [None, None]
    where = np.argwhere(restored[1])
    assert box[0] == tuple(zip(where.min(axis=0).tolist(), (where.max(axis=0) + 1).tolist(), strict=True))
