"""Surface distances, reports, tables and picture sheets of an evaluation (training/prosma/learning/judge/evaluation.py)."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from PIL import Image as Picture

from prosma.cli import main
from prosma.image.geometry import Image
from prosma.image.reading import read_image, read_labels
from prosma.inference.segmenter import Segmenter
from prosma.learning.data.pictures import SliceView
from prosma.learning.judge.evaluation import evaluate
from prosma.learning.judge.surfaces import surface_metrics
from prosma.learning.report.sheet import chosen_cases
from tiny_model import make_tiny_package

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "Resources" / "Samples"


def row_of(length, size=24):
    """A line of pixels along I in one slice."""
    mask = np.zeros((size, 5, 1), bool)
    mask[:length, 2] = True
    return mask


def test_surface_distances_of_two_lines_are_those_computed_by_hand():
    # 10 and 20 pixels from the same end. One way all distances are 0, the other way ten are 0 and ten are 1 ... 10
    # pixels: their 95th percentile lies at place 18.05 of 0 ... 19, so 9.05. Within 1 pixel: 10 of 10 and 11 of 20.
    found = surface_metrics(row_of(10), row_of(20), spacing=(2.0, 7.0, 5.0), tolerance=2.0)
    assert found == {"hd95": pytest.approx(2 * 9.05), "nsd": pytest.approx(21 / 30)}
    assert surface_metrics(row_of(20), row_of(10), (2.0, 7.0, 5.0), 2.0) == found
    assert surface_metrics(row_of(20), row_of(10), (2.0, 7.0, 5.0), 1.9)["nsd"] == pytest.approx(20 / 30)
    assert surface_metrics(row_of(9), row_of(9), (2.0, 7.0, 5.0), 0.0) == {"hd95": 0.0, "nsd": 1.0}


def test_surfaces_of_nothing_are_undefined_and_a_miss_scores_zero():
    nothing = row_of(0)
    assert surface_metrics(nothing, nothing, (1, 1, 1), 1.0) == {"hd95": None, "nsd": None}
    assert surface_metrics(nothing, row_of(3), (1, 1, 1), 1.0) == {"hd95": None, "nsd": 0.0}
    assert surface_metrics(row_of(3), nothing, (1, 1, 1), 1.0) == {"hd95": None, "nsd": 0.0}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 3.0)])
def test_surface_distances_agree_with_monai_on_real_labels(spacing):
    reference = read_labels(SAMPLES / "hippocampus_017_labels.nii.gz").array[0] == 1
    predicted = np.roll(reference, (2, -1, 1), axis=(0, 1, 2))
    predicted[:, : predicted.shape[1] // 2] = False
    found = surface_metrics(predicted, reference, spacing, tolerance=1.5)
    both = [torch.from_numpy(np.ascontiguousarray(mask))[None, None].float() for mask in (predicted, reference)]
    hd95 = compute_hausdorff_distance(*both, include_background=True, percentile=95, spacing=spacing)
    nsd = compute_surface_dice(*both, [1.5], include_background=True, spacing=spacing)
    assert found["hd95"] == pytest.approx(hd95.item(), rel=1e-5)
    assert found["nsd"] == pytest.approx(nsd.item(), rel=1e-5)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Three crops of the bundled volume; the last one has no labels."""
    folder = tmp_path_factory.mktemp("volumes")
    image = SimpleITK.ReadImage(str(SAMPLES / "hippocampus_017.nii.gz"))
    labels = SimpleITK.ReadImage(str(SAMPLES / "hippocampus_017_labels.nii.gz"))
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
    for number in range(3):
        part, mask = image[number:], labels[number:]
        SimpleITK.WriteImage(part, str(folder / f"imagesTr/case_{number}_0000.nii.gz"))
        SimpleITK.WriteImage(mask * (number < 2), str(folder / f"labelsTr/case_{number}.nii.gz"))
    (folder / "splits.json").write_text(json.dumps({"test": [f"case_{number}" for number in range(3)]}))
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return make_tiny_package(tmp_path_factory.mktemp("models") / "tiny", spacing=None, patch_size=[40, 56, 40])


def test_an_evaluation_writes_json_a_table_and_a_sheet(volumes, package, tmp_path, capsys):
    report, table, sheet = (tmp_path / "new" / name for name in ("report.json", "table.csv", "sheet.png"))
    command = ["evaluate", str(package.folder), "--data", str(volumes), "--nsd-mm", "2", "--device", "cpu"]
    assert main([*command, "--json", str(report), "--csv", str(table), "--sheet", str(sheet)]) == 0
    said = capsys.readouterr().out
    assert "HD95" in said and "2 cases that have it" in said and "in 1 cases without it" in said
    content = json.loads(report.read_text(), parse_constant=pytest.fail)  # neither NaN nor infinity
    assert content["surface"] == {"unit": "mm", "nsd_tolerance": 2.0}
    assert content["pooled"] is None
    names = [label["name"] for label in package.labels]
    for name in names:
        assert content["presence"][name]["cases"] == 2 and content["presence"][name]["cases_without"] == 1
        empty = content["per_case"][2]["labels"][name]
        assert empty["hd95"] is None and content["labels"][name]["hd95_cases"] <= 2
        assert content["presence"][name]["false_alarms"] == (empty["nsd"] is not None)
    low, high = content["mean"]["dice_interval"]
    assert low <= content["mean"]["dice"] <= high and low <= content["mean"]["dice_median"] <= high

    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["label"]) for row in rows] == [(f"case_{n}", name) for n in range(3) for name in names]
    assert float(rows[0]["dice"]) == content["per_case"][0]["labels"][names[0]]["dice"]
    assert rows[-1]["hd95"] == "" and rows[0]["distance_unit"] == "mm"
    with Picture.open(sheet) as picture:
        assert picture.format == "PNG" and picture.width > 3 * 250 and picture.height > 3 * 200


def test_the_report_is_what_the_segmentation_gives(volumes, package):
    report = evaluate(package, volumes, "test", device="cpu")
    image = read_image(volumes / "imagesTr" / "case_1_0000.nii.gz")
    reference = read_labels(volumes / "labelsTr" / "case_1.nii.gz").array[0]
    predicted = Segmenter(package, "cpu").segment(image).labels
    for label in package.labels:
        values = report["per_case"][1]["labels"][label["name"]]
        masks = predicted == label["value"], reference == label["value"]
        assert values["dice"] == 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
        surfaces = surface_metrics(*masks, image.spacing, 1.0)
        assert {name: values[name] for name in surfaces} == surfaces


def test_all_parts_are_measured_on_request(volumes, tmp_path, capsys):
    """Two evaluations tell whether it helps to keep one piece of each structure."""
    whole = make_tiny_package(tmp_path / "m", spacing=None, patch_size=[40, 56, 40])
    pieces = make_tiny_package(tmp_path / "p", spacing=None, patch_size=[40, 56, 40], one_piece=[[1], [2]])
    reports = {}
    for name, package, more in (("all", whole, []), ("one", pieces, []), ("asked", pieces, ["--all-parts"])):
        command = ["evaluate", str(package.folder), "--data", str(volumes), "--json", str(tmp_path / f"{name}.json")]
        assert main([*command, "--device", "cpu", *more]) == 0
        reports[name] = json.loads((tmp_path / f"{name}.json").read_text())["labels"]
    assert reports["asked"] == reports["all"] != reports["one"]


def test_photographs_are_pooled_and_measured_in_pixels(shared, tmp_path):
    source, folder = shared / "busi", tmp_path / "lesions"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for case in ("benign_001", "malignant_001", "normal_001"):
        for name, ending in (("images", "jpg"), ("masks", "png")):
            path = source / name / f"{case}.{ending}"
            if not path.is_file():
                pytest.skip(f"'{path.name}' is not among the shared images")
            (folder / name / path.name).symlink_to(path)
    package = make_tiny_package(
        tmp_path / "flat", dimension=2, labels=1, resize=[64, 48], intensity={"rule": "range", "low": 0, "high": 255}
    )
    report = evaluate(package, folder, "all", device="cpu")
    hit = found = there = 0
    for case in report["per_case"]:
        predicted = Segmenter(package, "cpu").segment(read_image(folder / "images" / f"{case['case']}.jpg")).labels > 0
        reference = read_labels(folder / "masks" / f"{case['case']}.png").array[0] > 0
        hit, found, there = hit + (predicted & reference).sum(), found + predicted.sum(), there + reference.sum()
        assert case["labels"]["structure 1"]["volume_error"] is None
    pooled = report["pooled"]["labels"]["structure 1"]
    assert pooled["iou"] == pytest.approx(hit / (found + there - hit))
    assert pooled["f1"] == pytest.approx(2 * hit / (found + there))
    assert report["surface"]["unit"] == "px"
    assert report["presence"]["structure 1"]["cases"] == 2


def test_the_sheet_shows_best_median_and_worst():
    rows = [{"case": str(n), "mean": {"dice": dice}} for n, dice in enumerate((0.5, None, 0.9, 0.1, 0.7, 0.6))]
    assert [(title, row["case"]) for title, row in chosen_cases(rows)] == [
        ("best", "2"),
        ("median", "5"),
        ("worst", "3"),
    ]
    assert [title for title, _ in chosen_cases(rows[:1])] == ["best"]
    assert [row["case"] for _, row in chosen_cases(rows[1:2])] == ["1"]


def patient(flips):
    """A volume stored along the axes R, A, S times `flips`: white at the patient's left, anterior corner of one slice."""
    array = np.zeros((1, 8, 12, 4), np.uint8)
    array[0, 0, 11, 2] = 255  # R axis: low is left; A axis: high is anterior
    labels = (array[0] > 0).astype(np.uint8)
    step = tuple(slice(None, None, flip) for flip in flips)
    matrix = np.diag([*(2.0 * flip for flip in flips), 1.0])
    return Image(array[(slice(None), *step)], matrix), labels[step]


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_slices_are_shown_as_slicer_shows_them(flips):
    """Axial: the patient's left is on the right, anterior is up, however the file is stored."""
    image, labels = patient(flips)
    picture = np.asarray(SliceView.of_most_labels(image, labels, dimension=3).picture(12))
    assert picture.shape == (12, 8, 3)
    assert picture[0, -1, 0] > 200 and picture[-1, 0, 0] < 30
    painted = np.asarray(SliceView.of_most_labels(image, labels, 3).picture(12, labels, [[0, 255, 0]]))
    assert painted[0, -1, 1] > 200 > painted[0, -1, 0]


def test_photographs_keep_their_colours_and_their_way_up(shared):
    path = sorted((shared / "kvasir_seg" / "images").iterdir())[0]
    image = read_image(path)
    shown = SliceView.of_most_labels(image, np.zeros(image.shape, np.uint8), dimension=2).picture(200)
    with Picture.open(path) as original:
        expected = np.asarray(original.convert("RGB").resize(shown.size, Picture.Resampling.BICUBIC), float)
    assert np.abs(np.asarray(shown, float) - expected).mean() < 2
