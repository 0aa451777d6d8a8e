"""Refine: strokes move a border, and nothing else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosma.correct.refine import StrokeError, refine
from prosma.inference.segmenter import Segmenter
from prosma.learning.data.dataset import LabelledFolder, read_case
from prosma.package import resolve

ROOT = Path(__file__).resolve().parents[2]


def ball(shape, centre, radius, spacing=(1.0, 1.0, 1.0)):
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing, strict=True)) <= radius**2


def scene(shape=(24, 40, 40), shift=5, spacing=(1.0, 1.0, 1.0)):
    """A bright ball with noise, and a mask of it that lies `shift` voxels too far along I."""
    centre = [n // 2 for n in shape]
    truth = ball(shape, centre, 8, spacing)
    image = 100 * truth + np.random.default_rng(1).normal(0, 10, shape)
    return np.roll(truth, shift, axis=2), image, truth


def missed(shape=(24, 40, 40), spacing=(1.0, 1.0, 1.0)):
    """A stroke with a brush of 2 mm in the middle of what the mask of `scene` lacks."""
    return ball(shape, (shape[0] // 2, shape[1] // 2, shape[2] // 2 - 6), 2, spacing)


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@st.composite
def corrections(draw):
    """Any mask, image and strokes of one small shape."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 14), st.integers(1, 14)))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    channels = draw(st.sampled_from([None, 1, 3]))
    arrays = {
        "mask": random.random(shape) < draw(st.sampled_from([0, 0.1, 0.5, 1])),
        "image": random.normal(size=shape if channels is None else (channels, *shape)),
        "strokes_add": random.random(shape) < draw(st.sampled_from([0, 0.02, 0.3])),
        "strokes_remove": random.random(shape) < draw(st.sampled_from([0, 0.02, 0.3])),
        "spacing": draw(st.sampled_from([(1, 1, 1), (5, 0.5, 0.7)])),
        "probability": draw(st.sampled_from([None, random.integers(0, 256, shape).astype(np.uint8)])),
        "fixed": draw(st.sampled_from([None, random.random(shape) < 0.2])),
        "radius_mm": draw(st.sampled_from([None, 3.0])),
    }
    arrays[draw(st.sampled_from(["strokes_add", "strokes_remove"]))][tuple(n // 2 for n in shape)] = True
    return arrays


@given(corrections())
def test_strokes_are_honoured_exactly_and_changes_stay_in_the_box(given_):
    before = {name: np.copy(array) for name, array in given_.items() if isinstance(array, np.ndarray)}
    found = refine(**given_)
    mask, add, remove = (given_[name] for name in ("mask", "strokes_add", "strokes_remove"))
    result = found.on(mask)
    assert not result[remove].any()
    assert result[add & ~remove].all()
    outside = np.ones(mask.shape, bool)
    outside[found.slices] = False
    np.testing.assert_array_equal(result[outside], mask[outside])
    changed = result != mask
    if not add.any():
        assert not (changed & ~mask).any(), "a stroke that removes has added"
    if not remove.any():
        assert not (changed & mask).any(), "a stroke that adds has removed"
    if given_["fixed"] is not None:
        assert not (changed & given_["fixed"] & ~add & ~remove).any()
    for name, array in before.items():
        np.testing.assert_array_equal(given_[name], array)
    np.testing.assert_array_equal(refine(**given_).mask, found.mask)


@pytest.mark.parametrize(
    "shape, spacing", [((24, 40, 40), (1, 1, 1)), ((1, 60, 60), (1, 1, 1)), ((9, 48, 48), (3, 1, 1))]
)
def test_the_border_follows_the_image_beyond_the_stroke(shape, spacing):
    mask, image, truth = scene(shape, 4, spacing)
    stroke = missed(shape, spacing) & truth
    result = refine(mask, image, stroke, None, spacing, radius_mm=8).on(mask)
    painted = mask | stroke
    assert (result & truth & ~painted).sum() > stroke.sum() / 2
    assert dice(result, truth) > dice(painted, truth) > dice(mask, truth)


def test_what_is_too_much_goes_as_well():
    mask, image, truth = scene()
    stroke = ball(mask.shape, (12, 20, 31), 1.5) & mask & ~truth
    result = refine(mask, image, None, stroke, (1, 1, 1), radius_mm=8).on(mask)
    assert dice(result, truth) > dice(mask & ~stroke, truth)


def test_colours_count_together():
    """Neither channel alone shows the border's upper and lower half; both together do."""
    mask, image, truth = scene()
    flat = np.random.default_rng(2).normal(0, 10, image.shape)
    result = refine(mask, np.stack([flat, image, flat]), missed(), None, (1, 1, 1), radius_mm=8).on(mask)
    assert dice(result, truth) > dice(mask | missed(), truth)


def test_the_network_speaks_where_the_image_is_empty():
    mask, _, truth = scene()
    probability = np.where(truth, 110, 2).astype(np.uint8)
    blank = np.zeros(mask.shape)
    result = refine(mask, blank, missed(), None, (1, 1, 1), probability, radius_mm=8).on(mask)
    gained = result & ~mask & ~missed()
    assert gained.sum() > missed().sum()
    assert truth[gained].mean() > 0.9


def test_where_both_strokes_lie_removing_wins():
    mask, image, _ = scene()
    add, remove = missed(), np.roll(missed(), 1, axis=2)
    result = refine(mask, image, add, remove, (1, 1, 1)).on(mask)
    assert not result[remove].any()
    assert result[add & ~remove].all()


def test_a_stroke_on_what_belongs_already_changes_nothing():
    mask, image, _ = scene()
    inside = ball(mask.shape, (12, 20, 25), 2)
    np.testing.assert_array_equal(refine(mask, image, inside, None, (1, 1, 1)).on(mask), mask)


def test_strokes_made_before_may_be_given_again():
    """What lies in the mask already moves nothing around itself, and hinders the new stroke no more than `fixed`."""
    mask, image, truth = scene(shift=4)
    before = ball(mask.shape, (12, 20, 34), 1.5)
    mask |= before
    result = refine(mask, image, missed() & truth | before, None, (1, 1, 1), radius_mm=8).on(mask)
    assert dice(result, truth) > dice(mask | (missed() & truth), truth)
    around = ball(mask.shape, (12, 20, 34), 3) & ~np.roll(truth, 4, axis=2)
    np.testing.assert_array_equal(result[around], mask[around])


def test_strokes_of_both_kinds_in_one_call_know_of_each_other(monkeypatch):
    """What was stroked away is neither the segment's nor free while it grows, and what was added is not while it shrinks."""
    mask, add, remove = np.zeros((3, 1, 1, 8), bool)
    mask[..., 2:5], add[..., 5:7], remove[..., 3], remove[..., 6] = True, True, True, True  # voxel 6 says both
    earlier = np.zeros(mask.shape, bool)
    earlier[..., 0] = True
    asked = {}

    def grown(own, stroke, scene, sign):
        asked[sign] = own[0, 0].tolist(), stroke[0, 0].tolist(), scene.fixed[0, 0].tolist()
        joined = np.zeros(own.shape, bool)
        joined[..., 1 if sign == 1 else 2] = True
        return joined

    monkeypatch.setattr("prosma.correct.refine.grown_region", grown)
    found = refine(mask, np.zeros(mask.shape), add, remove, (1, 1, 1), radius_mm=50, fixed=earlier)
    fixed = [n in (0, 3, 5, 6) for n in range(8)]
    assert asked[1] == ([n in (2, 4) for n in range(8)], [n == 5 for n in range(8)], fixed)
    assert asked[-1] == ([n not in (2, 3, 4, 5) for n in range(8)], [n in (3, 6) for n in range(8)], fixed)
    assert found.on(mask)[0, 0].tolist() == [n in (1, 4, 5) for n in range(8)]


def test_an_image_with_gaps_is_no_obstacle():
    mask, image, _ = scene()
    image[:, :20] = np.nan
    assert refine(mask, image, missed(), None, (1, 1, 1)).on(mask)[missed()].all()


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"strokes_add": None}, "There is no stroke"),
        ({"strokes_add": np.zeros((4, 5, 6), bool)}, "There is no stroke"),
        ({"strokes_add": np.ones((4, 5, 7), bool)}, "strokes_add"),
        ({"strokes_remove": np.ones((3, 5, 6), bool)}, "strokes_remove"),
        ({"probability": np.zeros((2, 4, 5, 6), np.uint8)}, "probability"),
        ({"image": np.zeros((4, 5, 5))}, "image"),
        ({"mask": np.zeros((5, 6), bool)}, "dimensions"),
        ({"spacing": (1, 1)}, "spacing"),
        ({"spacing": (1, 0, 1)}, "spacing"),
        ({"radius_mm": float("nan")}, "radius"),
    ],
)
def test_what_cannot_be_is_refused_in_words(change, reason):
    shape = (4, 5, 6)
    fine = {
        "mask": np.zeros(shape, bool),
        "image": np.zeros(shape),
        "strokes_add": np.ones(shape, bool),
        "strokes_remove": None,
        "spacing": (1, 1, 1),
    }
    with pytest.raises(StrokeError, match=reason):
        refine(**{**fine, **change})


def test_slicer_can_import_it_without_torch():
    code = "import sys, prosma.correct.refine; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "training", check=False).returncode == 0


def test_a_stroke_mends_a_real_result(shared):
    """A stroke within one slice, in the largest wrong region, changes more for the better than its own voxels."""
    segmenter = Segmenter(resolve("hippocampus-mr"), "cpu")
    case = LabelledFolder.open(shared / "hippocampus").cases["hippocampus_222"]
    image, reference = read_case(case, segmenter.package.model)
    found = segmenter.segment(image, ["probabilities"])
    mask, truth = found.labels.T == 2, reference.T == 2  # (K, J, I)
    surplus = mask & ~truth
    k = int(surplus.sum(axis=(1, 2)).argmax())
    stroke = np.zeros(surplus.shape, bool)
    stroke[k] = surplus[k]
    arguments = mask, image.array.transpose(0, 3, 2, 1), None, stroke, image.spacing[::-1], found.probabilities[2].T
    refined = refine(*arguments).on(mask)
    assert dice(refined, truth) > dice(mask & ~stroke, truth)
    assert not refined[stroke].any()
    assert not (refined & ~mask).any(), "such a stroke only takes away"
    np.testing.assert_array_equal(refine(*arguments).on(mask), refined)
