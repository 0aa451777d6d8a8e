"""Where to look first, and moving a border: both from class probabilities alone."""

import numpy as np
import pytest

from prosma.correct.review import find_regions, find_regions_in_steps
from prosma.correct.sensitivity import ALWAYS, LARGEST_SHIFT, NEVER, STEPS_PER_UNIT, entry_levels, level_of


def ball_case(size=40):
    """A sure ball of label 1 with a doubtful bulge on one side, and a small doubtful blob of label 2 apart from it."""
    grid = np.indices((size, size, size)) - size // 2
    far = np.sqrt((grid**2).sum(axis=0))
    probabilities = np.zeros((3, size, size, size))
    probabilities[1] = 1 / (1 + np.exp(4 * (far - 9)))
    bulge = np.sqrt(((grid - np.array([9, 0, 0])[:, None, None, None]) ** 2).sum(axis=0)) < 4
    probabilities[1][bulge] = np.clip(probabilities[1][bulge], 0.45, 0.55)
    blob = np.sqrt(((grid - np.array([-15, -12, 0])[:, None, None, None]) ** 2).sum(axis=0)) < 2.5
    probabilities[2][blob] = 0.6
    probabilities[0] = 1 - probabilities[1:].sum(axis=0)
    return np.rint(probabilities * 255).astype(np.uint8), probabilities.argmax(axis=0).astype(np.uint8)


def test_the_doubtful_bulge_comes_first():
    probabilities, labels = ball_case()
    regions = find_regions(probabilities, labels, (1, 1, 1))
    assert [r.error for r in regions] == sorted((r.error for r in regions), reverse=True)
    assert np.linalg.norm(np.subtract(regions[0].centre, (29, 20, 20))) < 3
    assert regions[0].label == 1
    error = 1 - np.take_along_axis(probabilities, labels[None].astype(int), 0)[0] / 255
    for region in regions:
        assert region.error == pytest.approx(error[tuple(region.index)].sum(), rel=1e-3)
        assert region.voxels == region.index.shape[1]
    every = np.concatenate([np.ravel_multi_index(tuple(r.index), labels.shape) for r in regions])
    assert len(np.unique(every)) == len(every), "no voxel is in two regions"


def test_a_part_far_from_the_main_one_is_an_island():
    probabilities, labels = ball_case()
    labels[:2, :2, :2] = 1
    probabilities[:, :2, :2, :2] = np.array([100, 155, 0])[:, None, None, None]
    islands = [region for region in find_regions(probabilities, labels, (1, 1, 1), most=99) if region.island]
    assert [(region.label, region.voxels) for region in islands] == [(1, 8)]
    assert np.allclose(islands[0].centre, 0.5)


def test_what_a_person_decided_is_not_asked_again():
    probabilities, labels = ball_case()
    before = find_regions(probabilities, labels, (1, 1, 1))
    sure = np.zeros(labels.shape, bool)
    sure[tuple(before[0].index)] = True
    after = find_regions(probabilities, labels, (1, 1, 1), sure=sure)
    assert not any(sure[tuple(region.index)].any() for region in after)
    assert after[0].error < before[0].error


def test_a_moved_border_moves_the_doubt():
    """Label 1 was made so sensitive that the bulge is clearly inside: what counts is the odds at the new border."""
    probabilities, labels = ball_case()
    moved = np.where(entry_levels(probabilities, labels, 1) <= level_of(3), 1, labels)
    centre = np.subtract(find_regions(probabilities, moved, (1, 1, 1), shifts={1: 3.0})[0].centre, (29, 20, 20))
    assert np.linalg.norm(centre) > 3


def test_order_of_axes_and_unit_do_not_matter():
    probabilities, labels = ball_case()
    cut, shape = probabilities[:, :, :36], labels[:, :36]
    plain = find_regions(cut, shape, (1, 1, 1))
    turned = find_regions(cut.transpose(0, 3, 2, 1), shape.T, (0.5, 0.5, 0.5))
    assert turned[0].error == pytest.approx(plain[0].error)
    assert np.linalg.norm(np.subtract(turned[0].centre[::-1], plain[0].centre)) < 2, (
        "the bulge is symmetric: no first voxel"
    )


def test_what_is_expected_of_a_label_counts_more_than_what_its_probabilities_say():
    probabilities, labels = ball_case()
    plain = find_regions(probabilities, labels, (1, 1, 1), most=99)
    before = {tuple(region.centre): region for region in plain if region.label == 2}
    share, mask = probabilities[2].astype(float), labels == 2
    own = 2 * share[mask].sum() / (255 * mask.sum() + share.sum())
    for expected, times in ((1 - 2 * (1 - own), 2.0), (0.0, min(4.0, 1 / (1 - own))), (1.0, 0.25)):
        found = find_regions(probabilities, labels, (1, 1, 1), most=99, expected={2: expected})
        assert [region.error for region in found] == sorted((region.error for region in found), reverse=True)
        after = {tuple(region.centre): region.error for region in found if region.label == 2}
        assert after == pytest.approx({at: min(r.voxels, times * r.error) for at, r in before.items()})
        others = [[region.error for region in regions if region.label == 1] for regions in (plain, found)]
        assert others[0] == others[1]


def test_a_picture_of_one_slice_has_regions_too():
    probabilities, labels = ball_case()
    regions = find_regions(probabilities[..., 20:21], labels[..., 20:21], (1, 1, 1))
    assert abs(regions[0].centre[0] - 29) < 3
    assert regions[0].centre[2] == 0


def test_a_model_that_is_sure_leaves_nothing_to_look_at():
    probabilities = np.zeros((2, 8, 8, 8), np.uint8)
    probabilities[0] = 255
    assert find_regions(probabilities, np.zeros((8, 8, 8), np.uint8), (1, 1, 1)) == []


def test_the_work_is_cut_into_steps():
    probabilities, labels = (np.repeat(array, 4, axis=-1) for array in ball_case(64))
    assert sum(1 for _ in find_regions_in_steps(probabilities, labels, (1, 1, 0.25))) > 8


# ---- moving a border


def test_the_middle_is_the_models_own_border_exactly():
    probabilities = np.random.default_rng(0).integers(0, 255, (4, 9, 8, 7), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 4, (9, 8, 7), dtype=np.uint8)  # even where 8 bits say another argmax
    for value in (1, 2, 3):
        np.testing.assert_array_equal(entry_levels(probabilities, labels, value) <= level_of(0), labels == value)


def test_a_shift_compares_the_odds_against_the_best_other_class():
    share = np.random.default_rng(0).dirichlet([1, 0.5, 0.5], 5000)
    probabilities = np.rint(share.T * 255).astype(np.uint8).reshape(3, 5, 10, 100)
    labels = probabilities.argmax(axis=0).astype(np.uint8)
    levels = entry_levels(probabilities, labels, 1)
    odds = np.log((probabilities[1] + 0.5) / (np.maximum(probabilities[0], probabilities[2]) + 0.5))
    for shift in (-LARGEST_SHIFT, -2.0, -0.5, 0.5, 2.0, LARGEST_SHIFT):
        inside = levels <= level_of(shift)
        clear = np.abs(odds + shift) > 1.5 / STEPS_PER_UNIT
        allowed = (labels < 2) & (probabilities[1] > 0)
        np.testing.assert_array_equal(inside[clear & allowed], (odds + shift > 0)[clear & allowed])
        assert not inside[labels == 2].any(), "other labels keep their voxels"
    assert level_of(99) == level_of(LARGEST_SHIFT) < NEVER
    assert level_of(-99) > ALWAYS
