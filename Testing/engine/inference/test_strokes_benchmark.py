"""The benchmark of strokes: every tool gets the same first stroke, and what it is measured by is right."""

import sys
from pathlib import Path

import numpy as np
import pytest

from prosma import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from strokes import PEOPLE, State, Subject, brush, curve_of, groups_of, grown, refining, table


@pytest.fixture(scope="module")
def subject():
    """A bright ball of radius 20 mm in noise."""
    grid = np.ogrid[:60, :56, :30]
    truth = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, (30, 28, 15), (1, 1, 2), strict=True)) <= 14**2
    values = truth * 100 + np.random.default_rng(0).normal(0, 15, truth.shape)
    image = Image(values.astype(np.float32)[None], np.diag([1.0, 1.0, 2.0, 1.0]))
    return Subject("balls", "one ball", image, truth, np.zeros(truth.shape, bool))


@pytest.mark.parametrize("person", PEOPLE)
def test_all_tools_get_the_same_first_stroke_and_their_curves_are_dice(subject, person):
    first = {}
    for name, tool in (("brush", brush), ("grow", grown), ("refine", refining)):
        seen = []

        def spying(subject, state, tool=tool, seen=seen):
            mask = tool(subject, state)
            seen.append((state.newest, mask))
            return mask

        curve, seconds = curve_of(subject, spying, PEOPLE[person], 2, 0)
        first[name] = seen[0][0]
        assert len(curve) == 1 + len(seconds) == 1 + len(seen) and curve[0] == 0
        for dice, (_, mask) in zip(curve[1:], seen, strict=True):
            assert dice == pytest.approx(2 * (mask & subject.truth).sum() / (mask.sum() + subject.truth.sum()))
    assert np.array_equal(first["brush"], first["grow"]) and np.array_equal(first["brush"], first["refine"])
    assert first["brush"].any() and (first["brush"] & subject.truth).any()


def test_grow_from_seeds_finds_a_bright_ball_between_strokes_in_and_around_it(subject):
    add, remove = np.zeros(subject.truth.shape, bool), np.zeros(subject.truth.shape, bool)
    add[24:36, 28, 15] = True
    remove[10:50, 8:10, 15] = remove[10:50, 46:48, 15] = True
    state = State(subject.mask, np.zeros_like(add), remove, add, True)
    mask = grown(subject, state)
    assert 2 * (mask & subject.truth).sum() / (mask.sum() + subject.truth.sum()) > 0.9
    assert mask[add].all() and not mask[remove].any()


def test_the_table_tells_seen_and_left_out_objects_apart():
    records = [
        {
            "set": "a",
            "name": f"{n} liver",
            "left_out": bool(n),
            "curves": {"brush": [0, 0.2, 0.4]},
            "seconds": {"brush": [1, 3]},
        }
        for n in (0, 1)
    ]
    assert {title: len(group) for title, group in groups_of(records).items()} == {
        "a liver": 2,
        "mean of what training saw": 1,
        "mean of what was left out": 1,
    }
    assert "| a liver | 2 | brush | 0.000, 0.200, 0.400, 0.400 | 0.400 to 0.400 | 100% | 2.00" in table(
        records, ["brush"]
    )


def test_the_picture_shows_the_image_the_mask_and_the_strokes(subject, tmp_path):
    from PIL import Image as Picture
    from stroke_pictures import COLOURS, figure_of

    figure_of([subject], refining, strokes=2).savefig(tmp_path / "strokes.png", dpi=50)
    pixels = np.asarray(Picture.open(tmp_path / "strokes.png").convert("RGB"), float) / 255
    columns = np.array_split(pixels, 3, axis=1)

    def count(part, colour):
        return int((np.abs(part - colour).max(-1) < 0.02).sum())

    assert count(columns[0], COLOURS[True]) == 0 and count(columns[1], COLOURS[True]) > 20
    blue = [(column[..., 2] > column[..., 0] + 0.15).sum() for column in columns]
    assert blue[0] == 0, "before the first stroke there is no mask"
    assert min(map(np.std, columns)) > 0.05
