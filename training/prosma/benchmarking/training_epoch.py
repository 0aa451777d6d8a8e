"""An epoch of `prosma train` with its data, against as many steps on a batch that is there already."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..inference.devices import import_torch
from .subjects import FEATURES
from .training_subjects import CLASSES, prosma, recipe_of

CASES = {"train": 4, "val": 1}
MARGIN = 1.5  # the images' sides, over the patches'
WARM_EPOCHS = 1


def measure_epoch(task: dict) -> dict:
    """Median seconds of an epoch of `task["iterations"]` steps, of its steps alone, and of their ratio.

    Epochs and steps on one batch take turns, `task["rounds"]` times. A process of the loader prepares the patches while the
    network computes, as `prosma train` has it.
    """
    with tempfile.TemporaryDirectory() as folder:
        return epochs_in(Path(folder), task)


def epochs_in(folder: Path, task: dict) -> dict:
    import_torch()
    from lightning.pytorch.callbacks import Callback

    from ..learning.data.patches import training_loader
    from ..learning.fit.fitting import SegmentationTask, make_trainer
    from ..learning.fit.sources import training_data
    from ..learning.recipe import Recipe

    shape, iterations, rounds = task["shape"], task["iterations"], task["rounds"]
    write_cases(folder / "data", shape)
    settings = {"iterations": iterations, "epochs": WARM_EPOCHS + rounds, "validate_every": 10**6}
    recipe = Recipe.from_dict(recipe_of(shape, task.get("features", FEATURES), **settings, **task.get("fitting", {})))
    training, _, transforms = training_data(recipe, folder / "data")
    loader = training_loader(training, transforms, recipe, 0, 1, task.get("workers", 1))
    step = prosma(task)
    epochs, steps = [], []

    class Clock(Callback):
        def on_train_epoch_start(self, *_: object) -> None:
            self.began = time.perf_counter()

        def on_train_epoch_end(self, *_: object) -> None:
            epochs.append(time.perf_counter() - self.began)
            began = time.perf_counter()
            for _number in range(iterations):
                step()
            steps.append(time.perf_counter() - began)

    trainer: Any = make_trainer(recipe, folder / "run", {}, "cpu")
    trainer.callbacks = [Clock()]
    trainer.fit(SegmentationTask(recipe.to_dict()), loader)
    pairs = list(zip(epochs, steps, strict=True))[WARM_EPOCHS:]
    return {
        "shape": list(shape),
        "iterations": iterations,
        "rounds": rounds,
        "epoch_seconds": round(statistics.median(epoch for epoch, _ in pairs), 2),
        "steps_seconds": round(statistics.median(alone for _, alone in pairs), 2),
        "ratio": round(statistics.median(epoch / alone for epoch, alone in pairs), 3),
    }


def write_cases(folder: Path, shape) -> None:
    """Labelled images, larger than the patches of this shape, in nnU-Net's layout."""
    import SimpleITK

    random = np.random.default_rng(0)
    sides = [int(MARGIN * size) for size in shape[2:]] + [1] * (5 - len(shape))
    names: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for part, count in CASES.items():
        for _ in range(count):
            name = f"case{sum(map(len, names.values()))}"
            names[part].append(name)
            labels = random.integers(0, CLASSES, [-(-side // 16) for side in sides])
            for axis, side in enumerate(sides):
                labels = labels.repeat(16, axis).take(range(side), axis)
            image = labels + random.normal(0, 1, sides)
            for array, file in ((image.astype(np.float32), f"imagesTr/{name}_0000"), (labels, f"labelsTr/{name}")):
                kept = array.astype(np.uint8) if array is labels else array
                SimpleITK.WriteImage(SimpleITK.GetImageFromArray(kept.T), str(folder / f"{file}.nii.gz"))
    (folder / "splits.json").write_text(json.dumps(names), encoding="utf-8")
