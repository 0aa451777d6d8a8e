"""What a package says about itself: card, results, preview (training/prosma/learning/packing/export.py, card.py, icon.py)."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
import yaml
from PIL import Image as Picture

from prosma.cli import main
from prosma.inference.presence import PresenceStatistics
from prosma.inference.quality import QualityStatistics
from prosma.learning.checkpoints import CheckpointError, read_checkpoint
from prosma.learning.judge.evaluation import describe, evaluate
from prosma.learning.packing import presence_statistics
from prosma.learning.packing.card import results
from prosma.learning.packing.icon import icon
from prosma.package import ModelPackage
from tiny_model import make_tiny_package

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "Resources" / "Samples"
RECIPES = ROOT / "training" / "recipes"


def part_of(source: Path, folder: Path, splits: dict, size=(64, 48)) -> Path:
    """A few pictures of a shared set, shrunk, with splits of their own."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for case in {case for ids in splits.values() for case in ids}:
        if not (source / "images" / f"{case}.jpg").is_file():
            pytest.skip(f"'{case}' is not among the shared images")
        Picture.open(source / "images" / f"{case}.jpg").resize(size).save(folder / "images" / f"{case}.png")
        mask = Picture.open(source / "masks" / f"{case}.png")
        mask.resize(size, Picture.Resampling.NEAREST).save(folder / "masks" / f"{case}.png")
    (folder / "splits.json").write_text(json.dumps(splits))
    shutil.copy(source / "dataset.json", folder)
    return folder


def small_copy(recipe: str, path: Path) -> Path:
    """A committed recipe for pictures, cut down to two steps of a small network."""
    content = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    content["model"].update(resize=[64, 48], patch_size=[64, 48])
    content["network"]["features"] = [4, 8, 8]
    content["fitting"].update(epochs=1, iterations=2, batch_size=2, validate_every=1, learning_rate=0.02)
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_model_for_pictures_says_how_it_did_and_shows_no_picture_of_its_data(shared, tmp_path, capsys):
    splits = {"train": ["benign_001", "normal_001"], "val": ["benign_004"], "test": ["malignant_001", "normal_003"]}
    data = part_of(shared / "busi", tmp_path / "lesions", splits)
    recipe, run, package = (
        small_copy("breast-lesion-us", tmp_path / "recipe.yaml"),
        tmp_path / "run",
        tmp_path / "package",
    )
    assert main(["train", str(recipe), "--data", str(data), "--out", str(run), "--workers", "0"]) == 0
    assert f"prosma export {run} --data {data} " in capsys.readouterr().out
    assert main(["export", str(run), "--data", str(data), "-o", str(package)]) == 0
    exported = ModelPackage.open(package)

    report = json.loads((run / "test.json").read_text())
    found = exported.model["results"]
    assert found["iou"]["lesion"] == report["labels"]["lesion"]["iou"] == found["iou"]["mean"]
    assert found["dice"]["interval"] == report["mean"]["dice_interval"]
    assert found["pooled"] == report["pooled"]["mean"]
    assert found["presence"]["lesion"]["cases"] == found["presence"]["lesion"]["cases_without"] == 1
    assert "hd95" not in found, "pictures have no millimetres"
    assert exported.model["training"]["cases"] == {"train": 2, "val": 1, "test": 2}

    card = (package / "README.md").read_text()
    assert "| | Dice | IoU |" in card and "2 cases of the test split of BUSI" in card
    assert f"IoU {found['pooled']['iou']:.4f}, F1 {found['pooled']['f1']:.4f}" in card
    assert "In 1 cases without lesion" in card and "has to be accepted" in card and "mm" not in card
    assert exported.preview_path.read_bytes() == icon(exported.model)


def test_a_package_of_a_run_knows_presence_and_quality(shared, tmp_path, monkeypatch, capsys):
    """From the run's own pictures, on the way that users have; few pictures suffice here."""
    monkeypatch.setattr(presence_statistics, "LEAST_CASES", 4)
    names = [f"{kind}_{number:03d}" for number in range(1, 40) for kind in ("benign", "normal")]
    names = [name for name in names if (shared / "busi" / "images" / f"{name}.jpg").is_file()]
    normal = [name for name in names if name.startswith("normal")]
    lesions = [name for name in names if name.startswith("benign")]
    splits = {"train": lesions[:6] + normal[:4], "val": lesions[6:9] + normal[4:6], "test": lesions[9:10] + normal[6:7]}
    data = part_of(shared / "busi", tmp_path / "lesions", splits)
    recipe, run, package = small_copy("breast-lesion-us", tmp_path / "r.yaml"), tmp_path / "run", tmp_path / "package"
    assert main(["train", str(recipe), "--data", str(data), "--out", str(run), "--workers", "0"]) == 0
    assert main(["export", str(run), "--data", str(data), "-o", str(package)]) == 0
    exported = ModelPackage.open(package)
    assert QualityStatistics.of_package(exported.quality_path, exported.sha256) is not None
    assert PresenceStatistics.of_package(exported.presence_path, exported.sha256) is not None
    capsys.readouterr()
    picture = str(data / "images" / f"{splits['test'][0]}.png")
    command = ["segment", picture, "-m", str(package), "-o", str(tmp_path / "a.nrrd"), "--json", "--force"]
    assert main([*command, "--accept-licence"]) == 0
    (segment,) = json.loads(capsys.readouterr().out.splitlines()[-1])["cases"][0]["segments"]
    assert 0 <= segment["presence"] <= 1
    assert 0 <= segment["expected_dice"]["low"] <= segment["expected_dice"]["mean"] <= segment["expected_dice"]["high"]


def test_results_of_several_folders_count_all_their_cases(shared, tmp_path):
    polyps = sorted(path.stem for path in (shared / "kvasir_seg" / "images").iterdir())[:4]
    frames = sorted(path.stem for path in (shared / "cvc_clinicdb" / "images").iterdir())[:3]
    folders = [
        part_of(shared / "kvasir_seg", tmp_path / "a", {"train": polyps[:2], "val": polyps[2:3], "test": polyps[3:]}),
        part_of(shared / "cvc_clinicdb", tmp_path / "b", {"train": frames[:1], "val": frames[1:2], "test": frames[2:]}),
    ]
    both = [option for folder in folders for option in ("--data", str(folder))]
    run, package, table = tmp_path / "run", tmp_path / "package", tmp_path / "table.csv"
    recipe = small_copy("polyp-colonoscopy", tmp_path / "recipe.yaml")
    assert main(["plan", *both, "-o", str(tmp_path / "planned.yaml")]) == 0
    planned = (tmp_path / "planned.yaml").read_text()
    assert "3 training cases" in planned and "Kvasir-SEG and CVC-ClinicDB" in planned
    assert main(["train", str(recipe), *both, "--out", str(run), "--workers", "0"]) == 0
    assert main(["export", str(run), "--data", str(folders[0]), "-o", str(package)]) == 0
    model = ModelPackage.open(package).model
    assert model["training"]["cases"] == {"train": 3, "val": 2, "test": 1}, "trained on both, tested on one"
    assert model["results"]["data"] == "Kvasir-SEG"
    assert main(["evaluate", str(package), *both, "--accept-licence", "--csv", str(table)]) == 0
    assert len(table.read_text().splitlines()) == 1 + 2


def volume_folder(folder: Path, **description) -> Path:
    for name, source in (("imagesTr/a_0000", "hippocampus_017"), ("labelsTr/a", "hippocampus_017_labels")):
        (folder / name).parent.mkdir(parents=True)
        SimpleITK.WriteImage(
            SimpleITK.ReadImage(str(SAMPLES / f"{source}.nii.gz"))[8:28, 8:40, 4:24], f"{folder / name}.nii.gz"
        )
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def test_distances_are_in_the_card_only_where_millimetres_are_real(tmp_path):
    package = make_tiny_package(tmp_path / "tiny", spacing=None, patch_size=[20, 32, 20])
    real = evaluate(package, volume_folder(tmp_path / "real"), "all", device="cpu")
    nominal = evaluate(package, volume_folder(tmp_path / "nominal", spacing_is_nominal=True), "all", device="cpu")
    assert results(real)["hd95"]["structure 1"] == real["labels"]["structure 1"]["hd95"] > 0
    assert {"nsd", "nsd_tolerance_mm"} <= set(results(real)) and not {"nsd", "hd95"} & set(results(nominal))
    assert " mm" in describe(real) and "nominal mm" not in describe(real)
    assert describe(nominal).count("nominal mm") == describe(real).count(" mm")


@pytest.mark.parametrize("recipe", ["breast-lesion-us", "polyp-colonoscopy", "head-neck-oar-ct"])
def test_the_icon_shows_the_labels_colours_and_is_always_the_same(recipe):
    model = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["model"]
    drawn = icon(model)
    assert drawn == icon(model)
    with Picture.open(io.BytesIO(drawn)) as picture:
        assert picture.size == (256, 256) and len(drawn) < 60_000
        pixels = np.asarray(picture.convert("RGB"), int).reshape(-1, 3)
    for label in model["labels"]:
        assert (np.abs(pixels - label["color"]).max(axis=1) < 12).sum() > 50, label["name"]
    model["labels"][0]["color"] = [255, 0, 255]
    assert icon(model) != drawn


class Unknown:
    """Stands for what a stranger's checkpoint may hold besides numbers; it does nothing."""


@pytest.mark.parametrize("content", [{"epoch": 1, "state_dict": {}, "more": Unknown()}, {"epoch": 1}, [1], None])
def test_a_checkpoint_of_anything_but_numbers_is_refused(tmp_path, content):
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    if content is None:
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        read_checkpoint(path)
