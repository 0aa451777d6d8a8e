"""Where a model's structures lie in a larger volume (training/prosma/inference/finder.py)."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosma import Image, ModelPackage, Segmenter
from prosma.inference import finder
from prosma.inference.finder import (
    Region,
    averaged_down,
    counterparts,
    merged_statistics,
    region_box,
    scores_of,
    shows_more,
)
from prosma.inference.fit import DoesNotFit
from prosma.package import PackageError, write_package
from remedies import tries
from tiny_model import make_tiny_package

REGIONS = [
    {"name": "left", "modifier": ["SCT", "7771000", "Left"]},
    {"name": "right", "modifier": ["SCT", "24028007", "Right"], "shade": 0.5},
]
CODES = {"category": ["SCT", "1", "Tissue"], "type": ["SCT", "2", "Thing"], "modifier": None}


@pytest.fixture
def package(tmp_path):
    """A model of two labels that knows regions of up to 20 mm, and a finder of two regions."""
    colours = [[200, 100, 0], [0, 100, 200]]
    labels = [{"value": n + 1, "name": f"part {n + 1}", "color": colour} for n, colour in enumerate(colours)]
    labels[0]["terminology"] = CODES
    coarse = make_tiny_package(tmp_path / "coarse", seed=3, spacing=[4.0, 4.0, 4.0], patch_size=[8, 8, 8])
    plain = make_tiny_package(tmp_path / "plain", patch_size=[16, 16, 16])
    entries = {
        "labels": labels,
        "field_of_view": {"min_mm": [8, 8, 8], "max_mm": [20, 20, 20]},
        "finder": {"region_mm": [16, 12, 14], "regions": REGIONS},
    }
    weights = plain.weights_path.read_bytes()
    return write_package(tmp_path / "fine", {**plain.model, **entries}, weights, "# Fine", finder=coarse)


def image_of(shape=(60, 50, 40), matrix=None, seed=0):
    array = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    return Image(array, np.eye(4) if matrix is None else np.asarray(matrix, float))


def found(monkeypatch, *regions):
    """The finder is told what it finds; what it really finds is measured on heads."""
    monkeypatch.setattr(finder, "find_regions", lambda *_: list(regions))
    monkeypatch.setattr("prosma.inference.segmenter.find_regions", lambda *_: list(regions))


LEFT, RIGHT = Region(1, (15.0, 20.0, 20.0), 3.0), Region(2, (42.0, 25.0, 18.0), 3.0)


def test_labels_are_named_and_coded_by_region(package):
    labels = package.result_labels
    assert [label["value"] for label in labels] == [1, 2, 3, 4, 5, 6]
    assert [label["name"] for label in labels[2:]] == ["left part 1", "left part 2", "right part 1", "right part 2"]
    assert labels[4]["color"] == [100, 50, 0] and labels[2]["color"] == [200, 100, 0]
    assert labels[2]["terminology"]["modifier"] == REGIONS[0]["modifier"]
    assert labels[4]["terminology"]["modifier"] == REGIONS[1]["modifier"]
    assert package.labels == labels[:2]


def test_each_region_is_segmented_as_if_it_were_cropped_by_hand(package, monkeypatch):
    found(monkeypatch, LEFT, RIGHT)
    segmenter, image = Segmenter(package, "cpu"), image_of()
    result = segmenter.segment(image, outputs=["probabilities", "uncertainty"])
    expected = np.zeros(image.shape, np.uint8)
    for region, low in ((LEFT, (8, 15, 14)), (RIGHT, (35, 20, 12))):
        box = tuple((start, start + size) for start, size in zip(low, (16, 12, 14), strict=True))
        part = segment_box(segmenter, image, box)
        place = tuple(slice(*pair) for pair in box)
        expected[place] = np.where(part.labels > 0, part.labels + 2 * region.number, 0)
        within = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(box, result.box, strict=True))
        channels = result.probabilities[(slice(1 + 2 * region.number, 3 + 2 * region.number), *within)]
        assert np.array_equal(channels, part.probabilities[1:])
    assert np.array_equal(result.labels, expected) and len(np.unique(expected)) > 2
    assert [label["name"] for label in result.described] == [label["name"] for label in package.result_labels[2:]]
    assert result.probabilities.shape[0] == 7 and not result.probabilities[1:3].any()
    assert result.box == ((8, 51), (15, 32), (12, 28))


def segment_box(segmenter, image, box):
    """The model on a crop that is no larger than what it knows: no finder is asked."""
    return segmenter.segment(image.cropped(box), outputs=["probabilities"])


@pytest.mark.parametrize(
    "roi", [None, ((5, 25), (10, 35), (5, 38)), ((0, 22), (0, 50), (2, 33)), ((12, 18), (15, 25), (15, 25))]
)
def test_the_box_that_a_person_draws_does_not_change_the_result(package, monkeypatch, roi):
    found(monkeypatch, LEFT)
    segmenter, image = Segmenter(package, "cpu"), image_of()
    whole = segmenter.segment(image)
    assert np.array_equal(segmenter.segment(image, roi=roi).labels, whole.labels)


def test_only_regions_inside_the_box_are_segmented(package, monkeypatch):
    found(monkeypatch, LEFT, RIGHT)
    result = Segmenter(package, "cpu").segment(image_of(), roi=((30, 60), (0, 50), (0, 40)))
    assert [label["value"] for label in result.described] == [5, 6]
    assert not result.labels[:35].any()


@pytest.mark.parametrize(
    ("roi", "values"),
    [
        (((25, 45), (15, 25), (15, 25)), [5, 6]),  # holds the centre of the right one
        (((20, 33), (15, 25), (15, 25)), [3, 4]),  # 4.5 mm from the left one, 9.5 mm from the right one
        (((0, 15), (31, 40), (25, 32)), [1, 2]),  # 10.5 mm from the left one
    ],
)
def test_a_box_that_misses_the_centre_by_little_means_the_region(package, monkeypatch, roi, values):
    found(monkeypatch, LEFT, RIGHT)
    result = Segmenter(package, "cpu").segment(image_of(), roi=roi)
    assert [label["value"] for label in result.described] == values


@tries("inference/finder.py: set a region of interest closely", "inference/segmenter.py: missing.remedy")
def test_nothing_found_is_refused_and_the_remedy_works(package, monkeypatch):
    found(monkeypatch)
    segmenter, image = Segmenter(package, "cpu"), image_of()
    with pytest.raises(DoesNotFit, match=r"marks nothing.*region of interest closely") as refusal:
        segmenter.segment(image)
    assert refusal.value.fit.verdict == "unfit"
    small = segmenter.segment(image, roi=((10, 26), (10, 26), (10, 26)))
    forced = segmenter.segment(image, force=True)
    for result, where in ((small, "inside the region of interest"), (forced, "of the kind in this volume")):
        assert any(f"marks nothing {where}" in notice for notice in result.notices)
        assert result.fit.verdict == "unusual"
    assert [label["value"] for label in result.described] == [1, 2]


def test_a_volume_no_larger_than_the_model_knows_is_segmented_as_ever(package, monkeypatch):
    found(monkeypatch)
    result = Segmenter(package, "cpu").segment(image_of((18, 20, 16)))
    assert [label["value"] for label in result.described] == [1, 2]


@pytest.mark.parametrize(("shape", "larger"), [((20, 20, 20), False), ((25, 25, 25), False), ((26, 20, 20), True)])
def test_what_shows_more_than_the_model_knows(package, shape, larger):
    assert shows_more(image_of(shape), package) is larger


@given(st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3), st.floats(0.5, 3), st.integers(0, 99))
def test_averaging_keeps_every_place_and_the_mean(axes, flips, spacing, seed):
    """Blocks are averaged along the model's axes, whatever the storage order; independent of the code by loops."""
    matrix = np.zeros((4, 4))
    for axis in range(3):
        matrix[axes[axis], axis] = spacing * (-1 if flips[axis] else 1)
    matrix[:, 3] = (3, -5, 7, 1)
    image = image_of((13, 11, 9), matrix, seed)
    coarse = averaged_down(image, [4.0, 6.0, 3.0], "RAS")
    factors = [int([4.0, 6.0, 3.0][axes[axis]] / spacing + 1e-3) or 1 for axis in range(3)]
    factors = [min(factor, size) for factor, size in zip(factors, image.shape, strict=True)]
    index = tuple(n // 2 for n in coarse.shape)
    block = tuple(slice(n * factor, (n + 1) * factor) for n, factor in zip(index, factors, strict=True))
    assert np.isclose(coarse.array[(0, *index)], image.array[(0, *block)].mean(), atol=1e-5)
    middle = [n * factor + (factor - 1) / 2 for n, factor in zip(index, factors, strict=True)]
    assert np.allclose(coarse.ijk_to_ras @ [*index, 1], image.ijk_to_ras @ [*middle, 1])


def sided(*sides) -> list[dict]:
    """Labels of one structure: L, R or no side."""
    codes = {"L": ["SCT", "7771000", "Left"], "R": ["SCT", "24028007", "Right"], "": None}
    colours = [[200, 100, 0], [0, 100, 200], [0, 200, 0]]
    return [
        {
            "value": n + 1,
            "name": f"{side} part {n}",
            "color": colours[n],
            "terminology": {**CODES, "modifier": codes[side]},
        }
        for n, side in enumerate(sides)
    ]


def test_labels_have_counterparts_where_all_have_the_other_side():
    assert counterparts(sided("L", "R")) == [1, 0]
    assert counterparts(sided("L", "")) is counterparts(sided("L")) is counterparts(sided("", "")) is None
    other = sided("L", "R")
    other[1]["terminology"]["type"] = ["SCT", "9", "Another thing"]
    assert counterparts(other) is None and counterparts([{"value": 1, "name": "a"}]) is None


@pytest.mark.parametrize(("sides", "others"), [(("L", "R"), [0, 2, 1]), (("", ""), [0, 1, 2])])
def test_of_sides_a_mirrored_volume_shows_the_same_exchanged(tmp_path, sides, others):
    """Exactly, although the network is no mirror image of itself: labels without sides differ in the mirror."""
    coarse = make_tiny_package(tmp_path / "coarse", spacing=[4.0, 4.0, 4.0], patch_size=[8, 8, 8])
    weights = coarse.weights_path.read_bytes()
    package = write_package(tmp_path / "sided", {**coarse.model, "labels": sided(*sides)}, weights, "# Sides")
    searching, image = Segmenter(package, "cpu"), image_of((12, 11, 10), np.diag([4.0, 4.0, 4.0, 1.0]))
    mirrored = Image(image.array, np.diag([-1.0, 1.0, 1.0, 1.0]) @ image.ijk_to_ras)
    same = np.array_equal(scores_of(searching, image), scores_of(searching, mirrored)[others])
    assert same == (sides == ("L", "R"))


def test_what_is_hardly_larger_than_a_patch_is_seen_at_once(tmp_path):
    package = make_tiny_package(tmp_path / "coarse", spacing=[4.0, 4.0, 4.0], patch_size=[8, 8, 8])
    tiles = {}
    for size in (10, 11):
        segmenter = Segmenter(package, "cpu")
        segmenter.one_tile = finder.ONE_TILE
        image = image_of((size, 8, 8), np.diag([4.0, 4.0, 4.0, 1.0]))
        tiles[size] = segmenter.segment(image).statistics["of_tiles"]
    assert tiles == {10: 1, 11: 2}


def test_the_box_of_a_region_lies_around_its_centre_and_in_the_image():
    image = image_of((60, 50, 40), np.diag([1.0, 2.0, 0.5, 1.0]))
    assert region_box(image, Region(1, (30.0, 50.0, 10.0), 1), (11, 20, 5), "RAS") == ((25, 36), (21, 31), (16, 26))
    assert region_box(image, Region(1, (2.0, 50.0, 10.0), 1), (11, 20, 5), "RAS")[0] == (0, 8)
    assert region_box(image, Region(1, (-90.0, 50.0, 10.0), 1), (11, 20, 5), "RAS") is None


def test_statistics_of_regions_are_added_or_averaged():
    one = {
        "removed_share": 0.2,
        "levels": [{"zeros": 0.5, "threshold": None}],
        "tiles": 1,
        "of_tiles": 2,
        "tile": [4, 4],
    }
    other = {
        "removed_share": 0.4,
        "levels": [{"zeros": 0.1, "threshold": None}],
        "tiles": 3,
        "of_tiles": 4,
        "tile": [4, 4],
    }
    merged = merged_statistics([one, other])
    assert merged["tiles"] == 4 and merged["of_tiles"] == 6 and merged["tile"] == [4, 4]
    assert np.isclose(merged["removed_share"], 0.3) and np.isclose(merged["levels"][0]["zeros"], 0.3)


@pytest.mark.parametrize("damage", ["finder.json", "finder.safetensors"])
def test_a_package_without_its_whole_finder_is_refused(package, damage):
    (package.folder / damage).unlink()
    with pytest.raises(PackageError, match=damage.replace(".", r"\.")):
        ModelPackage.open(package.folder)


def test_a_finder_of_other_labels_is_refused(package):
    path = package.folder / "model.json"
    model = json.loads(path.read_text())
    model["finder"]["regions"].pop()
    path.write_text(json.dumps(model))
    with pytest.raises(PackageError, match=r"2 labels.*1 labels, one for each region"):
        ModelPackage.open(package.folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spacing": None}, "with a spacing"),
        ({"finder": {"region_mm": [16, 12, 14], "regions": REGIONS}}, "without a finder of its own"),
        ({"spacing": 4.0}, r"In finder\.json 'spacing' should be"),
    ],
)
def test_a_finder_that_could_not_work_is_refused(package, change, words):
    path = package.folder / "finder.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PackageError, match=words):
        ModelPackage.open(package.folder)


def test_two_regions_of_one_name_are_refused(package):
    path = package.folder / "model.json"
    model = json.loads(path.read_text())
    model["finder"]["regions"][1]["name"] = "left"
    path.write_text(json.dumps(model))
    with pytest.raises(PackageError, match=r"finder\.regions\[1\]\.name.*another name than those before it"):
        ModelPackage.open(package.folder)
