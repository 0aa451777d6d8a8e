"""Recipes planned from folders of real images, and what is refused before training (prosma/learning/fit/planning.py)."""

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
from prosma.learning.data.dataset import DatasetError
from prosma.learning.fit.mirror_rule import mirror_axes
from prosma.learning.fit.planning import plan_folder, plan_stages, target_spacing, to_multiples, training_schedule
from prosma.learning.recipe import Recipe
from prosma.network.unet import ProSMAUNet
from prosma.package import ModelPackage

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "Resources" / "Samples"
SPLITS = {"train": ["case_0", "case_1"], "val": ["case_2"], "test": ["case_3"]}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """An nnU-Net folder of four small crops of the bundled volume, with two channels, seen from different sides."""
    folder = tmp_path_factory.mktemp("Dataset007_Hippocampus")
    image = SimpleITK.ReadImage(str(SAMPLES / "hippocampus_017.nii.gz"))
    labels = SimpleITK.ReadImage(str(SAMPLES / "hippocampus_017_labels.nii.gz"))
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
    for number, orientation in enumerate(("RAS", "LPS", "ASR", "RAS")):
        size = [side - 2 * number for side in image.GetSize()]
        part, mask = (
            SimpleITK.DICOMOrient(SimpleITK.RegionOfInterest(volume, size, [number] * 3), orientation)
            for volume in (image, labels)
        )
        for channel in range(2):
            SimpleITK.WriteImage(part, str(folder / f"imagesTr/case_{number}_{channel:04d}.nii.gz"))
        SimpleITK.WriteImage(mask, str(folder / f"labelsTr/case_{number}.nii.gz"))
    write_json(folder / "splits.json", SPLITS)
    description = {
        "name": "Hippocampus",
        "licence": "CC BY-SA 4.0",
        "channel_names": {"0": "T1", "1": "T1 again"},
        "labels": {"background": 0, "hippocampus_anterior": 1, "hippocampus_posterior": 2},
    }
    write_json(folder / "dataset.json", description)
    return folder


@pytest.fixture
def photographs(shared, tmp_path):
    """Four colour photographs of different sizes with JPEG masks, 0 and 255, and no dataset.json."""
    source, folder = shared / "kvasir_seg", tmp_path / "polyps"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, image in enumerate(sorted((source / "images").iterdir())[:4]):
        size = (72 + number, 56)
        mask = source / "masks" / f"{image.stem}.png"
        Picture.open(image).resize(size).save(folder / "images" / f"case_{number}.png")
        Picture.open(mask).resize(size, Picture.Resampling.NEAREST).save(folder / "masks" / f"case_{number}.jpg")
    write_json(folder / "splits.json", SPLITS)
    return folder


def write_json(path, content):
    path.write_text(json.dumps(content))


def change_description(folder, **entries):
    path = folder / "dataset.json"
    write_json(path, {**json.loads(path.read_text()), **entries})


def test_a_plan_for_volumes_follows_from_their_facts(volumes, tmp_path):
    path = tmp_path / "recipe.yaml"
    assert main(["plan", "--data", str(volumes), "-o", str(path)]) == 0
    text = path.read_text()
    assert "2 training cases" in text and "hippocampus_anterior" in text.split("model:")[0]
    recipe = Recipe.read(path)
    model = recipe.model
    assert model["dimension"] == 3 and model["spacing"] == [1.0, 1.0, 1.0] and model["orientation"] == "RAS"
    assert model["intensity"] == {"rule": "clip-zscore", "percentiles": [0.5, 99.5]} and model["modality"] == "MR"
    assert [channel["name"] for channel in model["channels"]] == ["T1", "T1 again"]
    assert [label["name"] for label in model["labels"]] == ["hippocampus anterior", "hippocampus posterior"]
    assert model["mirror_axes"] == [0, 2], "front and back are different labels"
    assert model["id"].startswith("hippocampus")
    assert model["training"]["licence"] == "CC BY-SA 4.0"
    assert not recipe.augmentation.brightness_channelwise
    network = ProSMAUNet(**recipe.network_arguments)
    assert all(side % divisor == 0 for side, divisor in zip(model["patch_size"], network.divisor, strict=True))
    image = SimpleITK.ReadImage(str(volumes / "imagesTr/case_0_0000.nii.gz"))
    assert all(side >= size - 2 for side, size in zip(model["patch_size"], image.GetSize(), strict=True))
    longest = model["field_of_view"]["max_mm"][1]
    assert longest > image.GetSize()[1] > model["field_of_view"]["min_mm"][1]


def test_photographs_are_planned_trained_exported_and_segmented(photographs, tmp_path):
    run, package = tmp_path / "run", tmp_path / "package"
    train = ["train", "--data", str(photographs), "--out", str(run), "--workers", "0", "--max-epochs", "1"]
    assert main(["plan", "--data", str(photographs), "-o", str(run / "recipe.yaml")]) == 0
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert recipe["model"]["dimension"] == 2 and recipe["model"]["spacing"] is None
    assert recipe["model"]["resize"] == recipe["model"]["patch_size"] == [80, 56]
    assert recipe["model"]["intensity"] == {"rule": "range", "low": 0, "high": 255}
    assert [label["name"] for label in recipe["model"]["labels"]] == ["foreground"]
    assert recipe["augmentation"]["brightness_channelwise"], "light and stain change each colour in its own way"
    recipe["fitting"]["iterations"] = 2
    recipe["network"]["features"] = [4, 8, 8, 8, 8][: len(recipe["network"]["features"])]
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    assert main(["plan", "--data", str(photographs), "-o", str(run / "recipe.yaml")]) == 1, "edits are not overwritten"
    assert main(train) == 0
    assert "val/dice" in json.loads((run / "history.json").read_text())["epochs"][0]
    assert torch.load(run / "last.ckpt", weights_only=False)["global_step"] == 2, "the edited recipe was used"
    (run / "recipe.yaml").unlink()
    assert main([*train[:-1], "2", "--resume"]) == 0
    assert torch.load(run / "last.ckpt", weights_only=False)["global_step"] == 4, "the run's own recipe was used"
    assert main(["export", str(run), "--data", str(photographs), "-o", str(package)]) == 0
    assert ModelPackage.open(package).channels == [{"name": "red"}, {"name": "green"}, {"name": "blue"}]
    image, result = photographs / "images" / "case_3.png", tmp_path / "result.nii.gz"
    assert main(["segment", str(image), "-m", str(package), "-o", str(result)]) == 0
    assert SimpleITK.ReadImage(str(result)).GetSize()[:2] == Picture.open(image).size


@pytest.mark.slow
def test_training_without_a_recipe_writes_the_one_that_it_follows(photographs, tmp_path):
    run = tmp_path / "run"
    train = ["train", "--data", str(photographs), "--out", str(run), "--workers", "0", "--max-epochs", "1"]
    assert main(train) == 0
    written, followed = Recipe.read(run / "recipe.yaml"), json.loads((run / "recipe.json").read_text())
    assert followed["model"] == written.model and followed["network"] == written.network


@pytest.mark.parametrize(("cases", "steps", "epochs"), [(2, 25, 120), (12, 60, 50), (500, 100, 30)])
def test_few_cases_make_short_epochs_of_the_same_training(cases, steps, epochs):
    planned = training_schedule(cases, batch=2)
    assert (planned["iterations"], planned["epochs"]) == (steps, epochs)
    assert epochs / planned["validate_every"] >= 6


def test_ct_is_scaled_by_its_organs_and_left_and_right_are_never_mirrored(shared, tmp_path):
    source, folder = shared / "openkbp_ct_oar", tmp_path / "organs"
    cases = json.loads((source / "splits.json").read_text())["train"][:3]
    for name, suffix in (("imagesTr", "_0000"), ("labelsTr", "")):
        (folder / name).mkdir(parents=True)
        for case in cases:
            (folder / name / f"{case}{suffix}.nii.gz").symlink_to(source / name / f"{case}{suffix}.nii.gz")
    shutil.copy(source / "dataset.json", folder)
    recipe, text = plan_folder(folder)
    rule = recipe.model["intensity"]
    assert rule["rule"] == "ct" and -300 < rule["clip"][0] < 0 < rule["mean"] < rule["clip"][1]
    assert recipe.model["mirror_axes"] == []
    assert recipe.fitting.foreground_share == 0.5, "small organs"
    assert np.prod(recipe.model["patch_size"]) <= 64**3
    assert "2 training cases" in text


@pytest.mark.parametrize(
    ("labels", "axes"),
    [
        (["liver", "spleen"], [0, 1, 2]),
        (["parotid_left", "parotid_right"], []),
        (["Left Lung", "Right lung"], []),
        (["kidneyL", "kidneyR"], []),
        (["lung-l", "lung-r"], []),
        (["left atrium", "liver"], [0, 1, 2]),
        (["anterior hippocampus", "posterior hippocampus"], [0, 2]),
        (["upper jaw", "lower jaw"], [0, 1]),
    ],
)
def test_labels_that_a_flip_would_exchange_are_not_mirrored(labels, axes):
    assert mirror_axes(labels, 3, "CT") == axes
    assert mirror_axes(labels, 2, "unknown") == ([0, 1] if axes == [0, 1, 2] else [])


def test_thick_slices_keep_their_distance_and_are_not_halved():
    sizes, spacings = np.array([[320, 320, 20]] * 3), np.array([[0.6, 0.6, 3.6], [0.6, 0.6, 3.0], [0.6, 0.6, 4.0]])
    spacing = target_spacing(sizes, spacings)
    assert spacing[:2] == [0.6, 0.6] and 3.0 <= spacing[2] < 3.6
    strides, kernels = plan_stages([114, 114, 20], spacing)
    assert strides[1] == strides[2] == [2, 2, 1] and kernels[0] == [3, 3, 1]
    assert [2, 2, 2] in strides and kernels[-1] == [3, 3, 3]
    patch = to_multiples([114, 114, 20], strides, whole=[320, 320, 20])
    network = ProSMAUNet(3, 1, 2, features=[2] * len(strides), strides=strides, kernel_sizes=kernels)
    assert all(side % divisor == 0 for side, divisor in zip(patch, network.divisor, strict=True))
    assert network(torch.zeros(1, 1, 16, 16, 4)).shape == (1, 2, 16, 16, 4)


def padded(array):
    return np.pad(array, 9, constant_values=1)


def write_volume(path, change):
    image = SimpleITK.ReadImage(str(path))
    new = SimpleITK.GetImageFromArray(change(SimpleITK.GetArrayFromImage(image)))
    new.SetSpacing(image.GetSpacing())
    new.SetOrigin(image.GetOrigin())
    new.SetDirection(image.GetDirection())
    SimpleITK.WriteImage(new, str(path))


LABELS = {"background": 0, "hippocampus_anterior": 1, "hippocampus_posterior": 2}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "labelsTr/case_3.nii.gz").unlink(), "case_3.*no labels"),
        (lambda f: (f / "labelsTr/case_3.nii.gz").write_bytes(b"x"), "case_3.*labels.*case_3.nii.gz.*cannot be read"),
        (
            lambda f: write_volume(f / "labelsTr/case_2.nii.gz", lambda a: np.pad(a, 9, constant_values=1)),
            "case_2.*marked voxels.*outside",
        ),
        (lambda f: write_volume(f / "labelsTr/case_2.nii.gz", lambda a: 3 * a), "case_2.nii.gz.*value"),
        (lambda f: (f / "imagesTr/case_1_0001.nii.gz").rename(f / "imagesTr/case_1_0004.nii.gz"), "case_1.*gaps"),
        (lambda f: change_description(f, labels={**LABELS, "ignore": 1}), "'ignore' the value 1.*highest"),
        (lambda f: change_description(f, labels={**LABELS, "whole": [1, 2]}), "regions"),
        (lambda f: change_description(f, labels={"background": 0, "b": 2}), "without gaps"),
        (lambda f: change_description(f, channel_names={"0": "T1"}), "names 1 channels.*have 2"),
        (lambda f: (f / "dataset.json").write_text("{"), "dataset.json.*JSON"),
        (lambda f: [write_volume(p, np.zeros_like) for p in (f / "labelsTr").iterdir()], "no labelled voxel|nothing"),
    ],
)
def test_a_broken_folder_is_named_before_anything_is_written(volumes, tmp_path, damage, words):
    folder, run = tmp_path / "broken", tmp_path / "run"
    shutil.copytree(volumes, folder)
    damage(folder)
    with pytest.raises(DatasetError, match=f"(?s){words}"):
        plan_folder(folder)
    assert main(["train", "--data", str(folder), "--out", str(run)]) == 1
    assert not run.exists()


def test_label_values_without_names_are_counted(volumes, tmp_path):
    folder = tmp_path / "unnamed"
    shutil.copytree(volumes, folder)
    (folder / "dataset.json").unlink()
    recipe, _ = plan_folder(folder)
    assert [label["name"] for label in recipe.model["labels"]] == ["label 1", "label 2"]
    write_volume(folder / "labelsTr/case_1.nii.gz", lambda a: 4 * a)
    with pytest.raises(DatasetError, match=r"case_1.*value 4.*without gaps"):
        plan_folder(folder)


@pytest.mark.parametrize("splits", [{"train": ["case_0"]}, {"train": ["case_0"], "val": []}, {"train": [], "val": []}])
def test_training_needs_cases_to_train_and_to_validate(volumes, tmp_path, splits):
    folder = tmp_path / "unsplit"
    shutil.copytree(volumes, folder)
    write_json(folder / "splits.json", splits)
    with pytest.raises(DatasetError, match=r"no split 'val'|no case for '(val|train)'"):
        plan_folder(folder)


def test_stacks_of_tif_images_are_volumes(volumes, tmp_path):
    folder = tmp_path / "stacks"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        for name, source in (("images", f"imagesTr/case_{number}_0000"), ("masks", f"labelsTr/case_{number}")):
            volume = SimpleITK.ReadImage(str(volumes / f"{source}.nii.gz"))
            kind = SimpleITK.sitkUInt16 if name == "images" else SimpleITK.sitkUInt8
            SimpleITK.WriteImage(SimpleITK.Cast(volume, kind), str(folder / name / f"case_{number}.tif"))
    model = plan_folder(folder)[0].model
    assert model["dimension"] == 3 and model["resize"] is None and "field_of_view" not in model
    assert model["intensity"]["rule"] == "clip-zscore"


def test_zeros_around_a_brain_do_not_count_in_its_normalisation(volumes, tmp_path):
    folder = tmp_path / "masked"
    shutil.copytree(volumes, folder)
    for path in (folder / "imagesTr").iterdir():
        image = SimpleITK.ReadImage(str(path))
        SimpleITK.WriteImage(SimpleITK.Mask(image, image > 0.8 * SimpleITK.GetArrayFromImage(image).mean()), str(path))
    assert plan_folder(folder)[0].model["intensity"]["foreground"] is True


def test_grey_and_colour_do_not_mix(photographs):
    image = photographs / "images" / "case_2.png"
    Picture.open(image).convert("L").save(image)
    with pytest.raises(DatasetError, match=r"case_2.*1 channels.*grey"):
        plan_folder(photographs)
