"""A training with the fast ways beside a plain one: the same course, and each goes on with what the other left."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
import yaml

from prosma.cli import main
from prosma.fast.training_network import TrainedUNet
from prosma.learning.fit.fitting import SegmentationTask
from prosma.learning.fit.loss import FastDiceCrossEntropy
from prosma.learning.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "training" / "recipes" / "hippocampus-mr.yaml"


def small_recipe(**fitting) -> dict:
    recipe = Recipe.read(RECIPE)
    recipe.model.pop("finder", None)
    recipe.model["patch_size"] = [16, 16, 16]
    recipe.network["features"] = [4, 8, 8]
    content = recipe.to_dict()
    settings = {"epochs": 2, "iterations": 2, "batch_size": 2, "validate_every": 2, "early_share": 0.0}
    content["fitting"].update(settings, **fitting)
    return content


@pytest.fixture
def data(tmp_path):
    """Three volumes of noise with two bright balls."""
    folder, random = tmp_path / "data", np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"))
    for number in range(3):
        centres = [[8, 8 + number, 8], [16, 16, 15 - number]]
        labels = np.zeros((24, 24, 24), np.uint8)
        for value, centre in enumerate(centres, start=1):
            labels[((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) < 20] = value
        image = (100 * labels + random.normal(0, 30, labels.shape)).astype(np.float32)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), str(folder / f"imagesTr/c{number}_0000.nii.gz"))
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels), str(folder / f"labelsTr/c{number}.nii.gz"))
    (folder / "splits.json").write_text(json.dumps({"train": ["c0", "c1"], "val": ["c2"], "test": []}))
    return folder


def losses(fast: bool, steps: int = 25) -> list[float]:
    task = SegmentationTask(small_recipe(fast=fast, learning_rate=5e-3))
    assert isinstance(task.network, TrainedUNet) is isinstance(task.loss.loss, FastDiceCrossEntropy) is fast
    task.network.train()
    optimizer = task.configure_optimizers()["optimizer"]
    random, course = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        labels = torch.zeros(2, 1, 16, 16, 16, dtype=torch.int64)
        labels[:, :, 2:8, 2:8, 2:8], labels[:, :, 9:14, 9:14, 9:14] = 1, 2
        images = labels + 0.7 * torch.randn(labels.shape, generator=random)
        loss = task.loss(task.network(images.contiguous(memory_format=task.layout)), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.network.parameters(), 1.0)
        optimizer.step()
        course.append(loss.item())
    return course


def test_the_loss_takes_the_same_course():
    """Rounding makes two trainings differ more and more: the first steps are the same, the end alike."""
    fast, plain = losses(True), losses(False)
    assert fast[:3] == pytest.approx(plain[:3], rel=1e-3)
    assert fast == pytest.approx(plain, rel=0.05)
    assert np.mean(fast[-5:]) < 0.7 * fast[0]


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False)])
def test_a_run_goes_on_the_other_way(before, after, data, tmp_path):
    run, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    command = ["train", str(recipe), "--data", str(data), "--out", str(run), "--workers", "0"]
    recipe.write_text(yaml.safe_dump(small_recipe(fast=before)))
    assert main([*command, "--max-epochs", "1"]) == 0
    first = torch.load(run / "last.ckpt", weights_only=False)
    content = small_recipe(fast=after)
    if after:  # as recipes and checkpoints were before there was such a setting
        del content["fitting"]["fast"], first["hyper_parameters"]["recipe"]["fitting"]["fast"]
        torch.save(first, run / "last.ckpt")
    recipe.write_text(yaml.safe_dump(content))
    assert main([*command, "--resume"]) == 0
    second = torch.load(run / "last.ckpt", weights_only=False)
    assert (first["epoch"], second["epoch"]) == (0, 1)
    assert list(first["state_dict"]) == list(second["state_dict"])
    steps = [float(entry["step"]) for entry in second["optimizer_states"][0]["state"].values()]
    assert set(steps) == {4.0}  # the optimiser's memory went on as well
    moved = [
        name
        for name, weights in first["state_dict"].items()
        if name.startswith("network.") and not torch.equal(weights, second["state_dict"][name])
    ]
    assert any("spatial.rho" in name for name in moved) and any("encoder.0.0.weight" in name for name in moved)
