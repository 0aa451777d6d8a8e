"""Training, from a folder of images to a package that segments, on the bundled sample (training/prosma/learning)."""

import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
import yaml
from monai.data import set_track_meta
from PIL import Image as Picture
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prosma.cli import main
from prosma.learning.data.dataset import DatasetError, LabelledFolder
from prosma.learning.data.patches import ChannelDropout, Patches, PatchNumbers, Shading, cached, training_transforms
from prosma.learning.fit.fitting import (
    SegmentationTask,
    WholeCheckpoints,
    downscaled,
    learning_rate_factor,
    train,
)
from prosma.learning.fit.loss import DeepSupervisionLoss
from prosma.learning.judge.evaluation import bootstrap_interval, overlap_metrics
from prosma.learning.recipe import Recipe, RecipeError
from prosma.package import ModelPackage
from remedies import tries

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "Resources" / "Samples"
RECIPE = ROOT / "training" / "recipes" / "hippocampus-mr.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An nnU-Net folder of four cases made from the bundled volume: shifted crops, so that sizes differ."""
    folder = tmp_path_factory.mktemp("Dataset001")
    image = SimpleITK.ReadImage(str(SAMPLES / "hippocampus_017.nii.gz"))
    labels = SimpleITK.ReadImage(str(SAMPLES / "hippocampus_017_labels.nii.gz"))
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
    for number in range(4):
        keep = [slice(number, None), slice(None, image.GetSize()[1] - number), slice(None)]
        SimpleITK.WriteImage(image[tuple(keep)], str(folder / f"imagesTr/case_{number}_0000.nii.gz"))
        SimpleITK.WriteImage(labels[tuple(keep)], str(folder / f"labelsTr/case_{number}.nii.gz"))
    splits = {"train": ["case_0", "case_1"], "val": ["case_2"], "test": ["case_3"]}
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


@pytest.fixture
def broken(data, tmp_path):
    return Path(shutil.copytree(data, tmp_path / "broken"))


def small_recipe(**fitting) -> Recipe:
    recipe = Recipe.read(RECIPE)
    recipe.model.pop("finder", None)  # a network of its own, trained apart
    recipe.model["patch_size"] = [16, 24, 16]
    recipe.network["features"] = [4, 8, 8]
    settings = {"epochs": 2, "iterations": 2, "batch_size": 2, "validate_every": 2, **fitting}
    for name, value in settings.items():
        setattr(recipe.fitting, name, value)
    return recipe


def weights(run):
    return torch.load(run / "last.ckpt", weights_only=False)["state_dict"]


@tries("learning/fit/fitting.py: Go on with --resume")
@tries("learning/checkpoints.py: was begun with another recipe")
def test_train_resume_export_evaluate_and_segment_through_the_command_line(data, tmp_path, capsys):
    recipe, run, package = tmp_path / "small.yaml", tmp_path / "run", tmp_path / "package"
    recipe.write_text(yaml.safe_dump(small_recipe().to_dict()))
    arguments = ["train", str(recipe), "--data", str(data), "--out", str(run), "--workers", "0"]
    assert main([*arguments, "--max-epochs", "1"]) == 0
    assert main(arguments) == 1
    assert "--resume" in capsys.readouterr().err
    another = small_recipe(fold=1).to_dict()
    another["network"]["dilations"], another["model"]["resize"] = [1, 2], [16, 24, 16]
    (tmp_path / "another.yaml").write_text(yaml.safe_dump(another))
    begun = (run / "recipe.json").read_bytes()
    assert main(["train", str(tmp_path / "another.yaml"), *arguments[2:], "--resume"]) == 1
    assert "model.resize, fitting.fold, network.dilations differ" in capsys.readouterr().err
    assert (run / "recipe.json").read_bytes() == begun
    assert main(["train", str(run / "recipe.json"), *arguments[2:], "--resume", "--max-epochs", "2"]) == 0
    assert torch.load(run / "last.ckpt", weights_only=False)["epoch"] == 1
    history = json.loads((run / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history["epochs"]] == [0, 1]
    assert {"gate/removed", "gate/level0/zeros", "val/dice", "train/loss"} <= set(history["epochs"][1])

    assert main(["export", str(run), "--data", str(data), "-o", str(package)]) == 0
    exported = ModelPackage.open(package)
    card = (package / "README.md").read_text()
    assert "CC BY-SA 4.0" in card and "Antonelli" in card
    assert exported.model["training"]["cases"] == {"train": 2, "val": 1, "test": 1}
    assert exported.preview_path is not None

    report = tmp_path / "report.json"
    assert main(["evaluate", str(package), "--data", str(data), "--json", str(report)]) == 0
    content = json.loads(report.read_text())
    assert content["cases"] == 1 and content["per_case"][0]["case"] == "case_3"
    assert content["mean"]["dice"] == pytest.approx(exported.model["results"]["dice"]["mean"])

    result = tmp_path / "result.nii.gz"
    image = data / "imagesTr" / "case_3_0000.nii.gz"
    assert main(["segment", str(image), "-m", str(package), "-o", str(result)]) == 0
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(result)))
    reference = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(data / "labelsTr" / "case_3.nii.gz")))
    first = overlap_metrics(labels == 1, reference == 1, 0.001)
    assert first["dice"] == content["per_case"][0]["labels"]["anterior hippocampus"]["dice"]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights_as_an_unbroken_one(data, tmp_path):
    program = """
import os, signal, sys
from test_learning import small_recipe
from prosma.learning.fit import fitting
die_at, data, run = int(sys.argv[1]), *sys.argv[2:]
step = fitting.SegmentationTask.training_step
def counted(self, batch, index):
    if self.global_step == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, index)
fitting.SegmentationTask.training_step = counted
fitting.train(small_recipe(epochs=3, iterations=3), data, run, resume=True, deterministic=True)
"""
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT / "Testing")])

    def run(die_at, folder):
        command = [sys.executable, "-c", program, str(die_at), str(data), str(folder)]
        return subprocess.run(
            command, check=False, env={**os.environ, "PYTHONPATH": path}, capture_output=True
        ).returncode

    assert run(-1, tmp_path / "whole") == 0
    assert run(7, tmp_path / "broken") == -signal.SIGKILL
    assert run(-1, tmp_path / "broken") == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"epoch": 3}, path)
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        WholeCheckpoints().save_checkpoint({"epoch": torch.ones(9), "broken": lambda: None}, path)
    assert torch.load(path, weights_only=False) == {"epoch": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_fitting_lowers_the_loss_and_keeps_the_average(data, tmp_path):
    recipe = small_recipe(epochs=4, iterations=6, validate_every=4, average_decay=0.5, learning_rate=0.02)
    train(recipe, data, tmp_path / "run", workers=0)
    epochs = json.loads((tmp_path / "run" / "history.json").read_text())["epochs"]
    losses = [epoch["train/loss"] for epoch in epochs]
    assert losses[-1] < 0.9 * losses[0]
    state = weights(tmp_path / "run")
    assert not torch.equal(state["average.module.head.weight"], state["network.head.weight"])

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"gate/level0/zeros", "gate/removed", "val/dice"} <= set(events.Tags()["scalars"])
    (sample,) = events.Images("val/sample")
    assert sample.step == 24 and sample.width % 3 == 0
    with Picture.open(io.BytesIO(sample.encoded_image_string)) as picture:
        third = picture.width // 3
        image, reference = (np.asarray(picture)[:, n * third : (n + 1) * third] for n in (0, 2))
    assert (image != reference).any() and (image[..., 0] == image[..., 2]).all(), "grey, with colours where labels are"


def test_thresholds_and_gains_learn_faster_and_never_decay():
    recipe = small_recipe()
    recipe.fitting.selection_rate_factor = 5
    task = SegmentationTask(recipe.to_dict())
    rest, selection = task.configure_optimizers()["optimizer"].param_groups
    assert selection["weight_decay"] == 0 < rest["weight_decay"]
    assert selection["lr"] == 5 * rest["lr"]
    assert {p.shape for p in selection["params"]} == {(4,), (8,)}
    assert len(selection["params"]) + len(rest["params"]) == len(list(task.network.parameters()))


def test_a_patch_depends_on_its_number_alone(data):
    recipe = small_recipe()
    cases = cached(LabelledFolder.open(data).split("train"), recipe.model)
    first, second = (Patches(cases, training_transforms(recipe), seed=5) for _ in range(2))
    second[3]
    for number in (7, 2, 7):
        a, b = first[number], second[number]
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"])
    assert a["image"].shape == (1, 16, 24, 16) and a["label"].dtype == torch.int64
    assert not torch.equal(first[0]["image"], first[2]["image"])


@pytest.mark.parametrize("size", [(24, 20), (12, 10, 8)])
def test_shading_adds_a_smooth_field_to_each_channel_by_itself(size):
    shading = Shading(largest=0.8, probability=1.0).set_random_state(3)
    case = {"image": torch.zeros(2, *size), "label": torch.zeros(1, *size)}
    field = shading(case)["image"]
    assert not case["image"].any(), "cached cases must stay as they are"
    assert 0 < field.abs().max() <= 0.8 and not torch.equal(field[0], field[1])
    largest_step = max(field.diff(dim=axis).abs().max() for axis in range(1, field.ndim))
    assert largest_step < 2 * 0.8 * 2 / min(size), "twice the strength from one knot to the next"
    assert not torch.equal(field, shading(case)["image"])
    assert shading.set_random_state(3)(case)["image"].equal(field)
    assert Shading(0.8, 0.0)(case)["image"] is case["image"]


def test_channels_are_dropped_as_often_as_asked_for():
    dropout = ChannelDropout([0.5, 0.0, 1.0]).set_random_state(1)
    image = torch.rand(3, 4, 5, 6) + 1
    results = [dropout({"image": image})["image"] for _ in range(200)]
    assert all(result[1].equal(image[1]) and not result[2].any() for result in results)
    first = [result[0].equal(image[0]) for result in results]
    assert 70 < sum(first) < 130
    assert all(kept or not result[0].any() for kept, result in zip(first, results, strict=True))


def test_the_probabilities_of_dropout_fit_the_channels():
    content = small_recipe().to_dict()
    content["augmentation"]["channel_dropout"] = [0.5, 0.5]
    with pytest.raises(RecipeError, match="channel_dropout should hold 1"):
        Recipe.from_dict(content)


def test_patches_are_plain_tensors_as_they_are_with_metadata(data):
    recipe = small_recipe()
    cases = cached(LabelledFolder.open(data).split("train"), recipe.model)
    bare = Patches(cases, training_transforms(recipe), seed=5)
    set_track_meta(True)
    try:
        tracked = Patches(cases, training_transforms(recipe), seed=5)
        expected = [tracked[number] for number in range(4)]
    finally:
        set_track_meta(False)
    for number, wanted in enumerate(expected):
        patch = bare[number]
        assert {type(value) for value in patch.values()} == {torch.Tensor}
        for name, value in patch.items():
            assert value.dtype == wanted[name].dtype and torch.equal(value, wanted[name])


@pytest.mark.parametrize(
    ("size", "divisor"), [((40, 56, 40), (8, 8, 8)), ((80, 80, 20), (8, 16, 4)), ((160, 96), (32, 32))]
)
@pytest.mark.parametrize("scale", [0.3, 0.6, 0.9])
def test_shrunk_patches_fit_the_network_and_are_never_larger(size, divisor, scale):
    images, labels = downscaled(torch.rand(1, 2, *size), torch.randint(0, 4, (1, 1, *size)), scale, divisor)
    assert images.shape[2:] == labels.shape[2:] and labels.dtype == torch.int64 and labels.max() <= 3
    for new, old, step in zip(images.shape[2:], size, divisor, strict=True):
        assert new % step == 0 and new <= old and (abs(new - scale * old) <= step / 2 or new == 2 * step)


def test_the_first_epochs_see_shrunk_patches_and_the_others_whole_ones(data, tmp_path, monkeypatch):
    seen = []
    forward = DeepSupervisionLoss.forward

    def watched(self, outputs, labels):
        seen.append(tuple(labels.shape[2:]))
        return forward(self, outputs, labels)

    monkeypatch.setattr(DeepSupervisionLoss, "forward", watched)
    recipe = small_recipe(epochs=2, iterations=1, early_scale=0.5, early_share=0.5)
    train(recipe, data, tmp_path / "run", workers=0)
    assert seen == [(8, 12, 8), (16, 24, 16)]


def test_several_folders_are_one_set_if_cases_differ_and_labels_agree(broken, tmp_path):
    data = broken  # a copy, changed below
    other = Path(shutil.copytree(data, tmp_path / "other"))
    with pytest.raises(DatasetError, match=r"Two cases are called 'case_\d'.*other"):
        LabelledFolder.open([data, other])
    for path in [*other.glob("*Tr/*")]:
        path.rename(path.with_name(f"more_{path.name}"))
    (other / "splits.json").write_text(json.dumps({"train": ["more_case_3"], "test": ["more_case_0", "more_case_1"]}))
    both = LabelledFolder.open([data, other])
    assert [case.id for case in both.split("train")] == ["case_0", "case_1", "more_case_3"]
    assert {name: len(ids) for name, ids in both.splits.items()} == {"train": 3, "val": 1, "test": 3}
    assert len(both.split("all")) == 8
    assert LabelledFolder.open([data]) == LabelledFolder.open(data)

    (other / "dataset.json").write_text(json.dumps({"labels": {"head": 1, "tail": 2}}))
    (data / "dataset.json").write_text(json.dumps({"labels": {"head": 2, "tail": 1}}))
    with pytest.raises(DatasetError, match=r"says 1 for the label 'head', another folder 2"):
        LabelledFolder.open([data, other])


def test_two_devices_draw_the_patches_of_one_device_with_twice_the_batch():
    one = PatchNumbers(iterations=3, batch_size=4)
    two = [PatchNumbers(3, 2, rank, world=2) for rank in range(2)]
    for epoch in range(2):
        for sampler in (one, *two):
            sampler.set_epoch(epoch)
        whole = list(one)
        halves = [list(sampler) for sampler in two]
        for batch in range(3):
            together = [number for half in halves for number in half[2 * batch : 2 * batch + 2]]
            assert sorted(together) == whole[4 * batch : 4 * batch + 4]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(data, tmp_path):
    curves = []
    for batch_size, devices in ((4, 1), (2, 2)):
        recipe, run = tmp_path / f"{devices}.yaml", tmp_path / f"run{devices}"
        settings = small_recipe(epochs=3, iterations=4, batch_size=batch_size, validate_every=1)
        recipe.write_text(yaml.safe_dump(settings.to_dict()))
        command = [sys.executable, "-m", "prosma.cli", "train", str(recipe), "--data", str(data), "--out", str(run)]
        options = ["--workers", "0", "--accelerator", "cpu", "--devices", str(devices)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "training")}
        done = subprocess.run([*command, *options], check=True, env=environment, capture_output=True, text=True)
        assert done.stdout.count("Trained:") == 1
        history = json.loads((run / "history.json").read_text())
        assert len(history["epochs"]) == 3 and ("2 processes" in history["hardware"]) == (devices == 2)
        curves.append([(epoch["train/loss"], epoch["val/dice"]) for epoch in history["epochs"]])
    assert torch.load(tmp_path / "run2" / "last.ckpt", weights_only=False)["global_step"] == 12
    (losses, dice), (split_losses, split_dice) = (np.array(curve).T for curve in curves)
    np.testing.assert_allclose(split_losses, losses, rtol=1e-4)  # sums in another order, as AdamW amplifies them
    np.testing.assert_allclose(split_dice, dice, atol=2e-3)  # single voxels at the border


def test_the_loss_is_dice_plus_cross_entropy_at_each_resolution():
    labels = torch.randint(0, 3, (2, 1, 8, 8))
    perfect = 50.0 * torch.nn.functional.one_hot(labels[:, 0], 3).permute(0, 3, 1, 2)
    assert DeepSupervisionLoss()(perfect, labels) < 1e-3
    flat = torch.zeros(2, 3, 8, 8)
    loss = DeepSupervisionLoss()
    fine, coarse = loss(flat, labels), loss(flat[..., ::2, ::2], labels)
    assert loss([flat, flat[..., ::2, ::2]], labels) == pytest.approx(((fine + coarse / 2) / 1.5).item(), rel=1e-5)


def test_a_smooth_dice_makes_false_marks_in_an_empty_image_cost_something():
    def dice_loss(smooth: float, marked: int) -> float:
        logits = torch.full((1, 2, 16, 16), -20.0)
        logits[:, 0] = 20.0
        logits[:, :, :marked] = logits[:, :, :marked].flip(1)
        classes = torch.stack([torch.ones(1, 16, 16), torch.zeros(1, 16, 16)], dim=1)
        return float(DeepSupervisionLoss(smooth).loss.dice(logits.softmax(1), classes))

    assert dice_loss(100.0, 0) < 1e-3
    assert dice_loss(100.0, 1) == pytest.approx(16 / 116, rel=1e-3)
    assert dice_loss(100.0, 8) == pytest.approx(128 / 228, rel=1e-3)
    assert dice_loss(1e-5, 1) == pytest.approx(dice_loss(1e-5, 8), abs=1e-4), "without it all false marks cost the same"


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_the_rate_falls_from_one_to_zero(schedule):
    factors = [learning_rate_factor(schedule, progress / 10) for progress in range(11)]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == 1 and factors[-1] == pytest.approx(0)


def test_metrics_are_their_definitions():
    predicted = np.zeros((10, 10, 10), bool)
    reference = predicted.copy()
    predicted[:4], reference[2:6] = True, True
    found = overlap_metrics(predicted, reference, voxel_ml=0.001)
    assert found == {"dice": 0.5, "iou": 1 / 3, "precision": 0.5, "recall": 0.5, "volume_error": 0.0}
    nothing = overlap_metrics(~reference & reference, ~reference & reference, 1.0)
    assert nothing["dice"] is None and nothing["volume_error"] == 0


def test_the_bootstrap_interval_holds_the_mean_and_skips_undefined_cases():
    low, high = bootstrap_interval([0.8, 0.9, None, 0.85, 0.95])
    assert 0.8 <= low < 0.875 < high <= 0.95
    assert bootstrap_interval([None]) is None


def test_every_committed_recipe_is_valid():
    recipes = sorted((ROOT / "training" / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        recipe = Recipe.read(path)
        SegmentationTask(recipe.to_dict())
        assert recipe.model["id"] == path.stem


def write_mask(path, change):
    image = SimpleITK.ReadImage(str(path))
    array = change(SimpleITK.GetArrayFromImage(image))
    new = SimpleITK.GetImageFromArray(array)
    new.SetSpacing(image.GetSpacing())
    new.SetOrigin(image.GetOrigin())
    new.SetDirection(image.GetDirection())
    SimpleITK.WriteImage(new, str(path))


def cut_off(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "labelsTr/case_1.nii.gz").unlink(), "case_1.*no labels"),
        (
            lambda folder: (folder / "imagesTr/case_1_0000.nii.gz").write_bytes(b"nonsense"),
            "image cannot be read. case_1_0000.nii.gz",
        ),
        (lambda folder: cut_off(folder / "imagesTr/case_1_0000.nii.gz"), "case_1_0000.nii.gz.*cut off"),
        (lambda folder: cut_off(folder / "labelsTr/case_1.nii.gz"), "case_1.nii.gz.*cannot be read.*cut off"),
        (lambda folder: (folder / "labelsTr/case_1.nii.gz").write_bytes(b""), "case_1.nii.gz.*cannot be read.*empty"),
        (
            lambda folder: write_mask(folder / "labelsTr/case_1.nii.gz", lambda a: np.pad(a, 9, constant_values=1)),
            "case_1.nii.gz.*marked voxels.*outside",
        ),
        (lambda folder: write_mask(folder / "labelsTr/case_1.nii.gz", lambda a: a + 5), "case_1.nii.gz.*value 5"),
        (
            lambda folder: shutil.copy(folder / "imagesTr/case_1_0000.nii.gz", folder / "imagesTr/case_1_0001.nii.gz"),
            "has 1 channels, others have 2",
        ),
        (lambda folder: (folder / "imagesTr/case_1_0000.nii.gz").rename(folder / "imagesTr/case_1.nii.gz"), "channel"),
        (lambda folder: (folder / "splits.json").write_text('{"train": ["case_9"]}'), "splits.json.*case_9"),
        (lambda folder: (folder / "splits.json").write_text("{"), "splits.json.*JSON"),
        (lambda folder: shutil.rmtree(folder / "imagesTr"), "imagesTr"),
    ],
)
def test_a_broken_folder_names_the_file_and_the_fault_before_training(broken, tmp_path, capsys, damage, words):
    damage(broken)
    recipe, run = tmp_path / "small.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(small_recipe().to_dict()))
    assert main(["train", str(recipe), "--data", str(broken), "--out", str(run), "--workers", "0"]) == 1
    assert re.search(words, capsys.readouterr().err)
    assert not run.exists()


def test_a_model_of_single_images_does_not_learn_from_volumes(broken):
    model = {**small_recipe().model, "dimension": 2, "orientation": None, "spacing": None}
    with pytest.raises(DatasetError, match=r"Case 'case_\d' is a volume of \d+ slices"):
        cached(LabelledFolder.open(broken).split("train"), model)


def test_an_unknown_split_lists_those_that_are_there(data):
    with pytest.raises(DatasetError, match="train, val, test, all"):
        LabelledFolder.open(data).split("held out")


def ids_of(folder):
    return {name: [case.id for case in folder.split(name)] for name in ("train", "val")}


def test_folds_come_from_nnunets_file_where_there_is_no_file_of_our_own(broken):
    folds = [{"train": ["case_1", "case_2"], "val": ["case_0"]}, {"train": ["case_0", "case_3"], "val": ["case_1"]}]
    (broken / "splits_final.json").write_text(json.dumps(folds))
    assert ids_of(LabelledFolder.open(broken))["val"] == ["case_2"], "splits.json goes first"
    with pytest.raises(DatasetError, match=r"splits.json.*no fold 1"):
        LabelledFolder.open(broken, fold=1)
    (broken / "splits.json").unlink()
    assert [ids_of(LabelledFolder.open(broken, fold)) for fold in (0, 1)] == folds
    for fold in (2, -1):
        with pytest.raises(DatasetError, match=r"splits_final.json.*2 folds, 0 to 1"):
            LabelledFolder.open(broken, fold)
    (broken / "splits_final.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"splits_final.json.*no list of folds"):
        LabelledFolder.open(broken)


def test_a_run_keeps_to_its_fold(broken, tmp_path):
    for path in broken.glob("splits*.json"):
        path.unlink()
    recipe, run, package = tmp_path / "small.yaml", tmp_path / "run", tmp_path / "package"
    recipe.write_text(yaml.safe_dump(small_recipe(epochs=1, iterations=1, validate_every=1).to_dict()))
    command = ["train", str(recipe), "--data", str(broken), "--out", str(run), "--workers", "0"]
    assert main([*command, "--fold", "5"]) == 1, "four cases make four folds of every fifth case"
    assert main([*command, "--fold", "3"]) == 0
    assert main(["export", str(run), "--data", str(broken), "--split", "val", "-o", str(package)]) == 0
    report = json.loads((run / "val.json").read_text())
    assert [case["case"] for case in report["per_case"]] == ["case_3"]
    assert main(["evaluate", str(package), "--data", str(broken), "--split", "train", "--fold", "4"]) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fitting": {"fold": -1}}, "fold"),
        ({"fitting": {"epoch": 3}}, "epoch"),
        ({"fitting": {"optimizer": "lion"}}, "lion"),
        ({"fittings": {}}, "fittings"),
        ({"network": None}, "."),
    ],
)
def test_a_wrong_recipe_names_the_entry(tmp_path, change, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(RECIPE.read_text()), **change}))
    with pytest.raises(RecipeError, match=words):
        Recipe.read(path)
