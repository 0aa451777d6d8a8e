"""Class scores on the model's grid become labels, probabilities and uncertainty on the image's grid, row by row."""

import numpy as np
import pytest

from prosma.image.geometry import Image, plan_canonical
from prosma.image.resampling import UNIT, resample
from prosma.inference.back_to_image import ScoreResampler, allocate_array, as_share, normalised_entropy, to_byte


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


# --- numbers that can be checked by hand


def resampler_of(shape, outputs=(), classes=3, spacing=None, axis=0, **more):
    image = Image(np.zeros((1, *shape), np.uint8), np.eye(4))
    canonical = plan_canonical(image, {"dimension": 3, "orientation": "RAS", "spacing": spacing})
    return ScoreResampler(canonical, classes, axis, outputs, **more)


def scores_of(*shares, shape=(1, 1, 1)):
    """int16 (planes, *shape), the same everywhere."""
    return np.stack([np.full(shape, round(share * UNIT), np.int16) for share in shares])


def test_entropy_in_numbers():
    equal = normalised_entropy([np.array([1 / 3])] * 3)
    assert equal.tolist() == pytest.approx([1]) and equal.dtype == np.float32
    assert normalised_entropy([np.array([1.0]), np.array([0.0])]).tolist() == pytest.approx([0], abs=1e-6)
    expected = -(0.5 * np.log(0.5) + 0.25 * np.log(0.25) + 0.25 * np.log(0.25)) / np.log(3)
    assert normalised_entropy([np.array([0.5]), np.array([0.25]), np.array([0.25])]).tolist() == pytest.approx(
        [expected]
    )


def test_shares_and_bytes_in_numbers():
    assert as_share(np.array([0, 8000, 32000], np.int16)).tolist() == [0, 0.25, 1]
    assert to_byte(np.array([-0.1, 0, 0.499 / 255, 0.501 / 255, 0.5, 1, 1.2])).tolist() == [0, 0, 0, 1, 128, 255, 255]


def test_all_results_of_one_voxel_in_numbers():
    resampler = resampler_of((1, 1, 1), ("probabilities", "uncertainty", "gate_map"))
    resampler.add(0, scores_of(0.25, 0.5, 0.25, 0.8))
    results = {name: array.ravel().tolist() for name, array in resampler.results.items()}
    entropy = -(0.5 * np.log(0.5) + 2 * 0.25 * np.log(0.25)) / np.log(3)
    assert results == {
        "labels": [1],
        "probabilities": [64, 128, 64],
        "uncertainty": [round(255 * entropy)],
        "gate_map": [204],
    }


def test_a_label_counts_from_a_share_of_one_over_the_classes():
    for outputs in ((), ("probabilities",)):
        resampler = resampler_of((1, 1, 1), outputs)
        resampler.add(0, scores_of(0.333, 0.334, 0.333))
        assert resampler.results["labels"].item() == 1


def test_a_share_is_seen_from_half_a_step_of_eight_bits():
    for share, seen in ((0.49 / 255, 0), (0.52 / 255, 1)):
        resampler = resampler_of((1, 1, 1), ("probabilities",))
        resampler.add(0, scores_of(1 - share, share, 0))
        assert resampler.results["probabilities"].ravel().tolist() == [255 - seen, seen, 0]
        assert resampler.reach() == ([((0, 1),) * 3, None] if seen else [None, None])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_label_reaches_from_its_first_voxel_to_its_last(axis):
    shape = (7, 8, 9)
    resampler = resampler_of(shape, ("probabilities",), axis=axis)
    scores = np.zeros((3, *shape), np.int16)
    scores[1, 2:5, 1, 0:3] = scores[2, 6, 0:8, 8] = UNIT
    scores[0] = UNIT - scores[1] - scores[2]
    for first in range(0, shape[axis], 2):
        resampler.add(first, np.take(scores, range(first, min(first + 2, shape[axis])), axis + 1))
    assert resampler.reach() == [((2, 5), (1, 2), (0, 3)), ((6, 7), (0, 8), (8, 9))]
    labels = np.zeros(shape)
    labels[2:5, 1, 0:3], labels[6, 0:8, 8] = 1, 2
    np.testing.assert_array_equal(resampler.results["labels"], labels)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_uncertainty_and_gate_map_are_interpolated_where_no_label_is_seen_too(axis):
    shape, size = (8, 6, 10), (4, 3, 5)
    resampler = resampler_of(shape, ("uncertainty", "gate_map"), classes=2, spacing=[2.0, 2.0, 2.0], axis=axis)
    random = np.random.default_rng(0)
    label = 0.2 * random.random(size)
    gate = random.random(size)
    scores = np.rint(np.stack([1 - label, label, gate]) * UNIT).astype(np.int16)
    for first in range(size[axis]):
        resampler.add(first, np.take(scores, [first], axis + 1))
    found = resampler.results
    whole = resample(scores / UNIT, shape)
    entropy = -(whole[0] * np.log(whole[0]) + whole[1] * np.log(whole[1])) / np.log(2)
    np.testing.assert_allclose(found["uncertainty"] / 255.0, entropy, atol=0.004)
    np.testing.assert_allclose(found["gate_map"] / 255.0, whole[2], atol=0.003)
    assert not found["labels"].any()


def test_arrays_lie_in_memory_as_slicer_has_them():
    labels = allocate_array("labels", (2, 3, 4), None, np.uint16)
    assert labels.shape == (2, 3, 4) and labels.T.flags.c_contiguous and labels.dtype == np.uint16 and not labels.any()
    several = allocate_array("probabilities", (2, 3, 4), 5, np.uint8)
    assert several.shape == (5, 2, 3, 4) and several.transpose(0, 3, 2, 1).flags.c_contiguous and not several.any()


def test_results_are_allocated_by_whom_one_wants():
    asked = []

    def allocate(*what):
        asked.append(what)
        return allocate_array(*what)

    resampler_of((2, 3, 4), ("probabilities", "uncertainty"), classes=300, allocate=allocate)
    assert asked == [
        ("labels", (2, 3, 4), None, np.uint16),
        ("probabilities", (2, 3, 4), 300, np.uint8),
        ("uncertainty", (2, 3, 4), None, np.uint8),
    ]
