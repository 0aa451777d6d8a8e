"""Areas that nobody labelled: nnU-Net's label 'ignore', the highest value of a folder's labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

from prosma.cli import main
from prosma.image.reading import read_image, read_labels
from prosma.inference.segmenter import Segmenter
from prosma.learning.data.dataset import IGNORED, DatasetError, LabelledFolder, read_case
from prosma.learning.data.patches import Patches, cached, training_transforms
from prosma.learning.fit.fitting import label_dice
from prosma.learning.fit.loss import DeepSupervisionLoss
from prosma.learning.fit.planning import plan_folder
from prosma.learning.judge.evaluation import evaluate
from tiny_model import make_tiny_package

SAMPLES = Path(__file__).resolve().parents[3] / "Resources" / "Samples"
LABELS = {"background": 0, "anterior": 1, "posterior": 2, "ignore": 3}


def folder_with(folder: Path, change) -> Path:
    """One crop of the bundled volume, twice, with labels changed by ``change(array in K, J, I)``."""
    image = SimpleITK.ReadImage(str(SAMPLES / "hippocampus_017.nii.gz"))[6:30, 8:40, 4:28]
    labels = SimpleITK.ReadImage(str(SAMPLES / "hippocampus_017_labels.nii.gz"))[6:30, 8:40, 4:28]
    changed = SimpleITK.GetImageFromArray(change(SimpleITK.GetArrayFromImage(labels)))
    changed.CopyInformation(labels)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in ("a", "b"):
        SimpleITK.WriteImage(image, str(folder / f"imagesTr/{case}_0000.nii.gz"))
        SimpleITK.WriteImage(changed, str(folder / f"labelsTr/{case}.nii.gz"))
    (folder / "dataset.json").write_text(json.dumps({"labels": LABELS}))
    return folder


def all_but_a_corner(labels):
    labels = np.where(labels == 1, 3, labels)
    labels[:, :16] = labels[:, :, 10:] = 3
    return labels


def test_the_loss_with_an_ignored_half_is_the_loss_of_the_other_half():
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (2, 1, 8, 8))
    half = labels.clone()
    half[..., 4:] = IGNORED
    fine, coarse = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = DeepSupervisionLoss()
    with_ignored = loss([fine, coarse], half)
    alone = loss([fine[..., :4], coarse[..., :2]], labels[..., :4])
    assert with_ignored.item() == pytest.approx(alone.item(), rel=1e-6)
    ours, theirs = torch.autograd.grad(with_ignored, [fine, coarse]), torch.autograd.grad(alone, [fine, coarse])
    for gradient, expected in zip(ours, theirs, strict=True):
        assert (
            torch.allclose(gradient, expected, atol=1e-8) and gradient[..., : gradient.shape[-1] // 2].abs().min() > 0
        )
    assert not ours[0][..., 4:].any() and not ours[1][..., 2:].any()


def test_a_patch_without_any_known_voxel_teaches_nothing():
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    loss = DeepSupervisionLoss()(logits, torch.full((1, 1, 8, 8), IGNORED))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and not gradient.any()


def test_validation_leaves_ignored_voxels_out():
    labels, predicted = torch.tensor([[1, 1, IGNORED, IGNORED, 0]]), torch.tensor([[1, 2, 1, 2, 0]])
    assert label_dice(predicted, labels, 3).tolist() == pytest.approx([2 / 3, 0])


def test_patches_are_centred_on_what_is_known(tmp_path):
    folder = folder_with(tmp_path / "data", all_but_a_corner)
    recipe, _ = plan_folder(folder)
    assert [label["name"] for label in recipe.model["labels"]] == ["anterior", "posterior"]
    recipe.model["patch_size"] = [8, 8, 8]
    recipe.augmentation.spatial_probability = 0.0
    cases = cached(LabelledFolder.open(folder).split("train"), recipe.model)
    patches = Patches(cases, training_transforms(recipe), seed=1)
    seen = [patches[number]["label"] for number in range(12)]
    assert all((label != IGNORED).any() and set(label.unique().tolist()) <= {0, 1, 2, IGNORED} for label in seen)
    assert any((label == 2).any() for label in seen)


def test_training_and_evaluation_take_a_folder_with_ignored_areas(tmp_path, capsys):
    folder, run = folder_with(tmp_path / "data", all_but_a_corner), tmp_path / "run"
    recipe, _ = plan_folder(folder)
    shares = recipe.to_dict()
    shares["network"].update(features=[4, 8], strides=[1, 2], kernel_sizes=[3, 3])
    shares["fitting"].update(epochs=1, iterations=1, validate_every=1)
    (tmp_path / "recipe.json").write_text(json.dumps(shares))
    command = ["train", str(tmp_path / "recipe.json"), "--data", str(folder), "--out", str(run), "--workers", "0"]
    assert main(command) == 0
    epoch = json.loads((run / "history.json").read_text())["epochs"][0]
    assert np.isfinite(epoch["train/loss"]) and "val/dice/posterior" in epoch
    assert main(["export", str(run), "--data", str(folder), "--split", "val", "-o", str(tmp_path / "package")]) == 0


def test_what_the_model_says_about_ignored_voxels_counts_in_no_metric(tmp_path):
    package = make_tiny_package(tmp_path / "tiny", spacing=None, patch_size=[24, 32, 24])
    plain = folder_with(tmp_path / "plain", lambda labels: labels)
    predicted = Segmenter(package, "cpu").segment(read_image(plain / "imagesTr" / "a_0000.nii.gz")).labels
    reference = read_labels(plain / "labelsTr" / "a.nii.gz").array[0]
    assert (predicted != reference).any() and ((predicted == reference) & (reference > 0)).any()
    folder = folder_with(tmp_path / "data", lambda labels: np.where(predicted.T != reference.T, 3, labels))
    for values in evaluate(package, folder, "val", device="cpu")["labels"].values():
        assert {values[name] for name in ("dice", "iou", "precision", "recall", "nsd")} == {1.0}
        assert values["hd95"] == values["volume_error"] == 0


def test_the_value_to_ignore_is_the_highest_one_and_no_label_of_the_model(tmp_path):
    folder = folder_with(tmp_path / "data", all_but_a_corner)
    model = {"channels": [{}], "labels": [{}, {}]}
    image, labels = read_case(LabelledFolder.open(folder).cases["a"], model)
    assert set(np.unique(labels)) == {0, 2, IGNORED} and labels.shape == image.shape
    with pytest.raises(DatasetError, match=r"Case 'a'.*ignores the value 3, which is a label"):
        read_case(LabelledFolder.open(folder).cases["a"], {"channels": [{}], "labels": [{}, {}, {}]})
    regions = {"background": 0, "whole": [1, 2], "posterior": 2, "ignore": 3}
    (folder / "dataset.json").write_text(json.dumps({"labels": regions}))
    assert LabelledFolder.open(folder).cases["a"].ignored_value == 3, "a recipe of one's own names the labels"
    (folder / "dataset.json").write_text(json.dumps({"labels": {**LABELS, "more": 4}}))
    with pytest.raises(DatasetError, match=r"'ignore' the value 3.*highest"):
        LabelledFolder.open(folder)


def test_a_case_with_nothing_known_is_named_before_training(tmp_path):
    folder = folder_with(tmp_path / "data", lambda labels: np.full_like(labels, 3))
    recipe, _ = plan_folder(folder_with(tmp_path / "other", all_but_a_corner))
    with pytest.raises(DatasetError, match=r"Case 'b'.*nothing but ignored voxels"):
        cached(LabelledFolder.open(folder).split("train"), recipe.model)
