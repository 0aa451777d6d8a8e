"""Metrics in numbers that can be checked by hand (training/prosma/learning/judge)."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from prosma.image.geometry import Image
from prosma.learning.data.dataset import IGNORED, DatasetError
from prosma.learning.judge import evaluation
from prosma.learning.judge.evaluation import (
    average,
    bootstrap_interval,
    counts,
    describe,
    distance_unit,
    evaluate,
    evaluate_case,
    gate_summary,
    overlap_metrics,
    pooled,
    presence,
    ratio,
    summary,
    write_csv,
)
from prosma.learning.judge.surfaces import surface, surface_metrics


def mask_of(*rows):
    return np.array(rows, bool)[..., None]


# --- overlap


def test_overlap_in_numbers():
    # 4 found, 5 there, 3 in both
    predicted, reference = mask_of([1, 1, 1, 1, 0, 0]), mask_of([0, 1, 1, 1, 1, 1])
    found = overlap_metrics(predicted, reference, 0.5)
    assert found == {
        "dice": pytest.approx(6 / 9),
        "iou": pytest.approx(3 / 6),
        "precision": pytest.approx(3 / 4),
        "recall": pytest.approx(3 / 5),
        "volume_error": pytest.approx(-0.5),
    }
    assert counts(predicted, reference) == (3, 4, 5)
    assert overlap_metrics(predicted, reference, None)["volume_error"] is None


def test_ratios_of_nothing_are_undefined():
    some, none = mask_of([1, 0]), mask_of([0, 0])
    assert overlap_metrics(none, none, 1.0) == {
        **dict.fromkeys(("dice", "iou", "precision", "recall")),
        "volume_error": 0,
    }
    assert overlap_metrics(some, none, 2.0) == {"dice": 0, "iou": 0, "precision": 0, "recall": None, "volume_error": 2}
    assert ratio(0, 5) == 0 and ratio(3, 0) is None
    assert average([1.0, None, 4.0]) == 2.5 and average([None]) is None and average([]) is None


def test_the_bootstrap_interval_in_numbers():
    assert bootstrap_interval([0.5, 0.5, None]) == [0.5, 0.5]
    assert bootstrap_interval([]) is None
    # the mean of 100 values 0 and 1 in equal parts has the standard deviation 0.05: 0.5 -+ 1.96 * 0.05
    assert bootstrap_interval([0.0, 1.0] * 50) == pytest.approx([0.402, 0.598], abs=0.011)
    draws = np.random.default_rng(7).choice([1.0, 2.0, 4.0], (2000, 3)).mean(axis=1)
    assert bootstrap_interval([1.0, 2.0, 4.0], 7) == [np.percentile(draws, 2.5), np.percentile(draws, 97.5)]
    assert bootstrap_interval([1.0, 2.0, 4.0]) == bootstrap_interval([1.0, None, 2.0, 4.0], 0)
    values = np.random.default_rng(0).normal(size=30).tolist()
    assert bootstrap_interval(values) == bootstrap_interval(values, 0) != bootstrap_interval(values, 1)


def test_units_of_distances():
    scan, guess, photograph = (
        SimpleNamespace(is_photograph=p, nominal_spacing=n) for p, n in ((False, False), (False, True), (True, False))
    )
    assert distance_unit([scan, scan]) == "mm"
    assert distance_unit([scan, guess]) == "nominal mm"
    assert distance_unit([scan, guess, photograph]) == "px"


# --- surfaces


def test_the_surface_is_what_has_a_face_outside():
    block = np.zeros((5, 5, 5), bool)
    block[1:4, 1:4, 1:4] = True
    assert surface(block).sum() == 26 and not surface(block)[2, 2, 2]
    assert surface(np.ones((4, 4), bool)).sum() == 12, "beyond the array is outside"


def test_surface_distances_of_two_slabs_in_numbers():
    # planes at i = 2 and i = 5, 4 mm apart in i: three steps of 4 mm each way
    one, two = np.zeros((9, 3, 4), bool), np.zeros((9, 3, 4), bool)
    one[2], two[5] = True, True
    assert surface_metrics(one, two, (4.0, 1.0, 1.0), 12.0) == {"hd95": pytest.approx(12), "nsd": 1}
    assert surface_metrics(one, two, (4.0, 1.0, 1.0), 11.9) == {"hd95": pytest.approx(12), "nsd": 0}
    # a plane in both, and one more in the second: its distances are 0 and 12 mm in equal parts
    both = one | two
    assert surface_metrics(one, both, (4.0, 1.0, 1.0), 1.0) == {
        "hd95": pytest.approx(12),
        "nsd": pytest.approx(24 / 36),
    }
    assert surface_metrics(both, one, (4.0, 1.0, 1.0), 1.0)["hd95"] == pytest.approx(12)


def test_distances_run_along_the_axis_that_has_the_spacing():
    for axis in range(3):
        one, two = np.zeros((4, 5, 6), bool), np.zeros((4, 5, 6), bool)
        one[1, 1, 1] = two[tuple(2 if n == axis else 1 for n in range(3))] = True
        assert surface_metrics(one, two, (2.0, 3.0, 5.0), 0.1)["hd95"] == pytest.approx((2, 3, 5)[axis])


def test_the_greater_directed_95th_percentile_counts():
    # from 20 pixels in a line to one: 0, 1, ... 19, whose 95th percentile is 18.05; back: 0
    line, point = np.zeros((20, 1, 1), bool), np.zeros((20, 1, 1), bool)
    line[:], point[0] = True, True
    wide = np.zeros((20, 3, 1), bool), np.zeros((20, 3, 1), bool)
    wide[0][:, 1:2], wide[1][:, 1:2] = line, point
    assert surface_metrics(*wide, (1, 1, 1), 0.5)["hd95"] == pytest.approx(18.05)
    assert surface_metrics(*wide[::-1], (1, 1, 1), 0.5)["hd95"] == pytest.approx(18.05)


def test_slices_are_compared_as_flat_images_whatever_axis_is_thin():
    square = np.zeros((7, 7), bool)
    square[1:6, 1:6] = True
    shifted = np.roll(square, 1, axis=0)
    for axis in range(3):
        masks = [np.expand_dims(mask, axis) for mask in (square, shifted)]
        spacing = [2.0, 2.0]
        spacing.insert(axis, 99.0)
        # 16 pixels at the edge of each; 9 of either lie on the other's edge, 2 + 5 one pixel (2 mm) off it: all within 2
        assert surface_metrics(*masks, spacing, 1.9)["nsd"] == pytest.approx(8 / 16)
        assert surface_metrics(*masks, spacing, 2.0) == {"hd95": pytest.approx(2), "nsd": 1}


def test_a_single_voxel_is_a_surface_too():
    one = np.ones((1, 1, 1), bool)
    assert surface_metrics(one, one, (1, 1, 1), 0.0) == {"hd95": 0, "nsd": 1}
    assert surface_metrics(one, ~one, (1, 1, 1), 0.0) == {"hd95": None, "nsd": 0}
    assert surface_metrics(~one, ~one, (1, 1, 1), 0.0) == {"hd95": None, "nsd": None}
    some = mask_of([1, 0, 0], [0, 0, 0])
    for masks in ((some, some & False), (some & False, some)):
        assert surface_metrics(*masks, (1, 1, 1), 0.0) == {"hd95": None, "nsd": 0}


def test_rounding_of_a_distance_does_not_put_it_beyond_the_tolerance():
    one, two = np.zeros((5, 2, 1), bool), np.zeros((5, 2, 1), bool)
    one[0, 0], two[3, 0] = True, True
    assert 3 * 0.1 > 0.3
    assert surface_metrics(one, two, (0.1, 1, 1), 0.3)["nsd"] == 1
    assert surface_metrics(one, two, (0.1, 1, 1), 0.299)["nsd"] == 0


def test_an_axis_of_two_voxels_is_one():
    one, two = np.zeros((2, 4, 1), bool), np.zeros((2, 4, 1), bool)
    one[0, 1], two[1, 1] = True, True
    assert surface_metrics(one, two, (5, 1, 1), 1.0) == {"hd95": 5, "nsd": 0}


# --- one case and all cases


LABELS = [{"name": "a", "value": 1}, {"name": "b", "value": 3}]


class Stub:
    """A segmenter that gives stored labels, case by case."""

    device = "cpu"
    answers: dict

    def __init__(self, package, device="cpu"):
        self.package, self.asked = package, device

    def segment(self, image, **_options):
        labels = self.answers[image.notices[0]]
        levels = [{"zeros": 0.25, "ones": 0.5, "mean": 0.75}]
        return SimpleNamespace(
            labels=labels, seconds={"total": 1.23456}, statistics={"removed_share": 0.25, "levels": levels}
        )


@pytest.fixture
def cases(monkeypatch):
    """Two cases of one row of voxels each, 0.5 x 2 x 3 mm; the second has no b."""
    predicted = {"one": [1, 1, 0, 3, 3, 3, 0, 1], "two": [0, 1, 1, 0, 0, 0, 3, 0]}
    reference = {"one": [1, 1, 1, 1, 3, 3, 0, IGNORED], "two": [0, 1, 1, 0, 0, 0, 0, 0]}
    Stub.answers = {name: np.array(row).reshape(8, 1, 1) for name, row in predicted.items()}
    matrix = np.diag([0.5, 2.0, 3.0, 1.0])

    def read_case(case, _model):
        image = Image(np.zeros((1, 8, 1, 1)), matrix, (case.id,))
        return image, np.array(reference[case.id]).reshape(8, 1, 1)

    monkeypatch.setattr(evaluation, "read_case", read_case)
    monkeypatch.setattr(evaluation, "Segmenter", Stub)
    return [SimpleNamespace(id=name, is_photograph=False, nominal_spacing=False) for name in ("one", "two")]


def package_of(dimension=3):
    model = {"labels": LABELS, "dimension": dimension}
    return SimpleNamespace(model=model, labels=LABELS, id="m", version="1", sha256="0", dimension=dimension)


def test_one_case_in_numbers(cases):
    found = evaluate_case(Stub(package_of()), cases[0], "mm", 1.0)
    a, b = found["labels"]["a"], found["labels"]["b"]
    # a: 2 found (the ignored one does not count), 4 there, 2 in both; b: 3 found, 2 there, 2 in both
    assert found["voxels"] == {"a": (2, 2, 4), "b": (2, 3, 2)}
    assert (a["dice"], a["volume_error"]) == (pytest.approx(4 / 6), pytest.approx(-2 * 0.003))
    assert (b["dice"], b["volume_error"]) == (pytest.approx(4 / 5), pytest.approx(0.003))
    # the ends of the row's parts are their surfaces: 0 and 1 lie 0 and 1 voxels of 0.5 mm off 0 and 3, these 0 and 2
    assert a["hd95"] == pytest.approx(0.5 * 1.9)
    assert a["nsd"] == b["nsd"] == 1, "none is more than 1 mm off"
    assert found["mean"]["dice"] == pytest.approx((4 / 6 + 4 / 5) / 2) and "volume_error" not in found["mean"]
    assert set(found["mean"]) == {"dice", "iou", "precision", "recall", "hd95", "nsd"}
    assert (found["case"], found["seconds"], found["removed_share"]) == ("one", 1.235, 0.25)
    assert len(found["levels"]) == 1


def test_one_photograph_in_pixels(cases):
    found = evaluate_case(Stub(package_of()), cases[0], "px", 1.0)["labels"]["a"]
    assert found["hd95"] == pytest.approx(1.9) and found["volume_error"] is None
    assert found["nsd"] == pytest.approx(3 / 4), "one of four lies two pixels off"


@pytest.fixture
def report(cases, monkeypatch):
    folder = SimpleNamespace(name="rows", description={"labels": {}}, split=lambda name: {"val": cases}[name])
    opened, told = [], []

    def open_folder(data, fold):
        opened.append((data, fold))
        return folder

    monkeypatch.setattr(evaluation.LabelledFolder, "open", open_folder)
    package = package_of(2)
    found = evaluate(
        package,
        "there",
        "val",
        fold=3,
        nsd_tolerance=0.5,
        progress=lambda *step: told.append((*step[:2], step[2]["case"])),
    )
    assert opened == [("there", 3)] and told == [(1, 2, "one"), (2, 2, "two")]
    return found


def test_a_report_in_numbers(report):
    assert (report["cases"], report["split"], report["data"], report["model"]) == (2, "val", "rows", "m")
    a, b = report["labels"]["a"], report["labels"]["b"]
    assert a["dice"] == pytest.approx((4 / 6 + 1) / 2) == a["dice_median"] and a["dice_cases"] == 2
    assert b["dice"] == pytest.approx((4 / 5 + 0) / 2) and b["recall"] == 1 and b["recall_cases"] == 1
    first, second = (4 / 6 + 4 / 5) / 2, (1 + 0) / 2
    assert report["mean"]["dice"] == pytest.approx((first + second) / 2)
    assert report["mean"]["dice_interval"] == pytest.approx([second, first])
    assert report["surface"] == {"unit": "mm", "nsd_tolerance": 0.5}
    assert a["nsd"] == pytest.approx((3 / 4 + 1) / 2), "half a millimetre: one of four lies 1 mm off"
    assert report["presence"]["b"] == {
        "cases": 1,
        "dice": pytest.approx(4 / 5),
        "iou": pytest.approx(2 / 3),
        "iou_interval": pytest.approx([2 / 3, 2 / 3]),
        "cases_without": 1,
        "false_alarms": 1,
    }
    # both images together: a 4 in both of 4 and 6; b 2 in both of 4 and 2
    assert report["pooled"]["labels"]["a"] == {"iou": pytest.approx(4 / 6), "f1": pytest.approx(8 / 10)}
    assert report["pooled"]["labels"]["b"] == {"iou": pytest.approx(2 / 4), "f1": pytest.approx(4 / 6)}
    assert report["pooled"]["mean"] == {"iou": pytest.approx((4 / 6 + 0.5) / 2), "f1": pytest.approx((0.8 + 4 / 6) / 2)}
    assert report["gate"] == {"removed_share": 0.25, "levels": [{"zeros": 0.25, "ones": 0.5, "mean": 0.75}]}
    assert report["seconds"]["per_case"] == pytest.approx(1.235) and 0 <= report["seconds"]["total"] < 3600
    assert [set(row) for row in report["per_case"]] == [{"case", "mean", "labels", "seconds"}] * 2


def test_volumes_have_no_pooled_scores(cases, monkeypatch):
    folder = SimpleNamespace(name="rows", description={"labels": {}}, split=lambda name: cases)
    monkeypatch.setattr(evaluation.LabelledFolder, "open", lambda data, fold: folder)
    assert evaluate(package_of(3), "there")["pooled"] is None


def test_names_that_contradict_the_models_are_refused_before_anything_is_computed(cases, monkeypatch):
    folder = SimpleNamespace(
        name="rows", folder=Path("there"), description={"labels": {"b": 1}}, split=lambda name: cases
    )
    monkeypatch.setattr(evaluation.LabelledFolder, "open", lambda data, fold: folder)
    monkeypatch.setattr(Stub, "segment", None)
    with pytest.raises(DatasetError, match="says 1 for the label 'b'"):
        evaluate(package_of(), "there")


def test_a_report_in_words(report):
    lines = describe(report).splitlines()
    assert lines[0] == "m 1, split 'val', 2 cases"
    assert lines[1].startswith("  mean over labels  Dice 0.6167  (95 % 0.5000 to 0.7333), IoU 0.5")
    assert lines[3].startswith("  b                 Dice 0.4000  (95 % 0.0000 to 0.8000), IoU 0.3333, HD95 ")
    assert "(in 1 of 2 cases), NSD at 0.5 mm " in lines[3] and "(in" not in lines[2]
    alarm = "  b, 1 cases that have it: Dice 0.8000, IoU 0.6667; 1 false alarms in 1 cases without it"
    assert lines[4:] == [
        alarm,
        "  all pixels together: IoU 0.5833, F1 0.7333",
        "  the gates removed 25.0 % of the skip features",
    ]


def test_what_is_undefined_is_said_or_left_out(report):
    nothing = {
        **report,
        "pooled": None,
        "gate": {"removed_share": None},
        "presence": {},
        "mean": dict.fromkeys(report["mean"]),
    }
    nothing["labels"] = {}
    assert describe(nothing).splitlines()[1:] == ["  mean over labels  Dice undefined"]
    nothing["gate"]["removed_share"] = float("nan")
    assert "gates" not in describe(nothing)
    undefined = {**report, "pooled": {"mean": {"iou": None, "f1": None}}}
    assert "pixels" not in describe(undefined)


def test_presence_is_told_of_labels_that_some_cases_lack(report):
    everywhere = {**report["presence"]["b"], "cases_without": 0}
    nowhere = {**report["presence"]["b"], "cases": 0, "cases_without": 2}
    for found in (everywhere, nowhere):
        assert "that have it" not in describe({**report, "presence": {"b": found}})


def test_a_table_of_a_report(report, tmp_path):
    write_csv(tmp_path / "table.csv", report)
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["label"]) for row in rows] == [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")]
    assert float(rows[0]["dice"]) == pytest.approx(4 / 6) and rows[3]["recall"] == "" == rows[3]["hd95"]
    assert rows[0]["seconds"] == "1.235" and rows[0]["distance_unit"] == "mm"


def test_summaries_of_rows_in_numbers():
    found = summary([{"dice": 0.5}, {"dice": None}, {"dice": 1.0}, {"dice": 0.9}])
    assert found["dice"] == pytest.approx(0.8) and found["dice_median"] == 0.9 and found["dice_cases"] == 3
    assert summary([]) == {}
    empty = summary([{"dice": None}])
    assert empty == {"dice": None, "dice_median": None, "dice_interval": None, "dice_cases": 0}


def test_presence_and_pooled_scores_of_nothing():
    rows = [{"labels": {"a": {"dice": None, "iou": None}}, "voxels": {"a": (0, 0, 0)}}]
    found = presence(rows, "a")
    assert (found["cases"], found["cases_without"], found["false_alarms"], found["dice"]) == (0, 1, 0, None)
    assert pooled(rows, ["a"]) == {"mean": {"iou": None, "f1": None}, "labels": {"a": {"iou": None, "f1": None}}}


def test_gates_of_several_cases_are_averaged_level_by_level():
    rows = [
        {
            "removed_share": 0.2,
            "levels": [{"zeros": 0.1, "ones": 0.3, "mean": 0.5}, {"zeros": 0.5, "ones": 0, "mean": 1}],
        },
        {
            "removed_share": 0.4,
            "levels": [{"zeros": 0.3, "ones": 0.5, "mean": 0.7}, {"zeros": 1.0, "ones": 1, "mean": 0}],
        },
        {"removed_share": None, "levels": []},
    ]
    found = gate_summary(rows)
    assert found["removed_share"] == pytest.approx(0.3)
    assert [level["zeros"] for level in found["levels"]] == pytest.approx([0.2, 0.75])
    assert [level["ones"] for level in found["levels"]] == pytest.approx([0.4, 0.5])
    assert [level["mean"] for level in found["levels"]] == pytest.approx([0.6, 0.5])
