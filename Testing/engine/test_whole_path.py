"""From a folder of images to a segmentation through the command line, with a kill in the middle of training."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image as Picture

from prosma.cli import main
from prosma.learning.recipe import Recipe
from prosma.package import ModelPackage

ENGINE = Path(__file__).resolve().parents[2] / "training"
SIDE = 12  # voxels
PATIENCE = 1800  # seconds, on a busy machine


def tumours(source: Path, folder: Path) -> str:
    """Crops around the tumours of brats2013_mini with both channels and all labels; the ending of its images."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for name in ("dataset.json", "splits.json"):
        shutil.copy(source / name, folder)
    for path in sorted((source / "labelsTr").glob("*.nii.gz")):
        labels = SimpleITK.ReadImage(str(path))
        array = SimpleITK.GetArrayFromImage(labels)
        centre = np.median(np.argwhere(array > 0), axis=0)[::-1]
        start = [int(np.clip(c - SIDE / 2, 0, size - SIDE)) for c, size in zip(centre, labels.GetSize(), strict=True)]
        channels = sorted((source / "imagesTr").glob(f"{path.name.removesuffix('.nii.gz')}_*.nii.gz"))
        for old, name in ((path, "labelsTr"), *((channel, "imagesTr") for channel in channels)):
            part = SimpleITK.RegionOfInterest(SimpleITK.ReadImage(str(old)), [SIDE] * 3, start)
            SimpleITK.WriteImage(part, str(folder / name / old.name))
    return "_0000.nii.gz"


def polyps(source: Path, folder: Path) -> str:
    """Four photographs, shrunk."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    shutil.copy(source / "dataset.json", folder)
    ids = [path.stem for path in sorted((source / "images").iterdir())[:4]]
    for id in ids:
        Picture.open(source / "images" / f"{id}.jpg").resize((40, 32)).save(folder / "images" / f"{id}.png")
        mask = Picture.open(source / "masks" / f"{id}.png").resize((40, 32), Picture.Resampling.NEAREST)
        mask.save(folder / "masks" / f"{id}.png")
    (folder / "splits.json").write_text(json.dumps({"train": ids[:2], "val": ids[2:3], "test": ids[3:]}))
    return ".png"


def kill_in_the_second_epoch(command: list[str], run: Path) -> int:
    """Start the command as a program of its own and kill it without a warning; its return code."""
    environment = {**os.environ, "PYTHONPATH": str(ENGINE)}
    program = subprocess.Popen(
        [sys.executable, "-m", "prosma.cli", *command], env=environment, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + PATIENCE
    while not (run / "last.ckpt").is_file() and program.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.3)
    program.send_signal(signal.SIGKILL)
    return program.wait()


def weights(run: Path) -> dict:
    return torch.load(run / "last.ckpt", weights_only=False)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize(("source", "shrink"), [("brats2013_mini", tumours), ("kvasir_seg", polyps)])
def test_a_folder_becomes_a_model_without_a_recipe_and_through_a_kill(shared, tmp_path, source, shrink):
    data, whole, broken, package = (tmp_path / name for name in ("data", "whole", "broken", "package"))
    ending = shrink(shared / source, data)
    train = ["train", "--data", str(data), "--max-epochs", "2", "--deterministic", "--workers", "0"]
    assert main([*train, "--out", str(whole)]) == 0
    model = Recipe.read(whole / "recipe.yaml").model
    described = json.loads((data / "dataset.json").read_text())
    assert [label["name"].replace(" ", "_") for label in model["labels"]] == list(described["labels"])[1:]
    assert [channel["name"] for channel in model["channels"]] == list(described["channel_names"].values())

    assert kill_in_the_second_epoch([*train, "--out", str(broken)], broken) == -signal.SIGKILL
    assert len(json.loads((broken / "history.json").read_text())["epochs"]) == 1
    assert main([*train, "--out", str(broken), "--resume"]) == 0
    unbroken, resumed = weights(whole), weights(broken)
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)

    assert main(["export", str(broken), "--data", str(data), "-o", str(package)]) == 0
    report = tmp_path / "report.json"
    assert main(["evaluate", str(package), "--data", str(data), "--json", str(report)]) == 0
    found, case = json.loads(report.read_text()), json.loads((data / "splits.json").read_text())["test"][0]
    assert found["mean"]["dice"] == ModelPackage.open(package).model["results"]["dice"]["mean"]
    images = sorted((data / ("imagesTr" if ending != ".png" else "images")).glob(f"{case}*"))
    result = tmp_path / "result.nii.gz"
    assert main(["segment", *map(str, images), "-m", str(package), "-o", str(result)]) == 0
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(result)))
    for label in model["labels"]:
        voxels = int((labels == label["value"]).sum())
        recall = found["per_case"][0]["labels"][label["name"]]["recall"]
        assert voxels or not recall
