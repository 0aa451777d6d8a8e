"""Fine-tuning: a few corrected cases make a new model package from an old one, without the data the old one learnt from.

The weights go on learning at a small rate, and the new package holds a mixture of the old weights and of what they became
(weight-space ensembling, Wortsman et al., arXiv:2109.01903): most of what was gained on the corrected cases stays, and
little of what was known before is lost.
"""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...cancel import Cancelled, never, stop_if
from ...errors import UserFacingError
from ...fast.allocator import keep_freed_memory
from ...package import ModelPackage, find_packages, model_folders, write_package
from ...package.weights import joined, load_networks
from ..data.dataset import Case, DatasetError, LabelledFolder, check_label_names, read_case, read_files
from ..data.patches import Patches, PatchNumbers, cached, training_transforms
from ..packing.card import tuned_card
from ..recipe import Recipe
from .fitting import SegmentationTask, hardware, precision, trainer_device
from .progress import Progress

BATCH_SIZES = {2: 4, 3: 1}  # by dimension; few cases have no use for large batches, but minutes count


class FineTuningError(UserFacingError):
    """Fine-tuning that cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class FineTuningOptions:
    """How the weights are moved.

    The defaults were chosen on the validation cases of the bundled hippocampus model, with training cases changed as if
    from another scanner, or as if cut in thick slices. Dice on the 23 cases changed like them rose, on the 23 unchanged
    ones it fell, by

        scanner, 5 cases: rate 5e-4, keep 0.2: +0.041, -0.005    rate 5e-4, keep 0.5: +0.032, -0.003
                          rate 1e-3, keep 0.2: +0.043, -0.008    rate 1e-3, keep 0.5: +0.036, -0.004
                                                                 rate 2e-3, keep 0.5: +0.043, -0.006
        slices, 2 cases:  rate 1e-3, keep 0.2: +0.010, -0.011    rate 1e-3, keep 0.5: +0.011, -0.004

    all after 60 steps of one patch, 100 seconds of one CPU core in all.
    """

    steps: int = 60
    batch_size: int | None = None  # patches a step; None: BATCH_SIZES
    learning_rate: float = 1e-3
    keep: float = 0.5  # share of the old weights in the result
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0 or (self.batch_size is not None and self.batch_size < 1):
            raise FineTuningError("Steps, batch size and learning rate should be above zero.")
        if self.seed < 0:
            raise FineTuningError(f"The seed should be a whole number from 0 on, not {self.seed}.")
        if not 0 <= self.keep < 1:
            raise FineTuningError(f"The share of the old weights should be at least 0 and below 1, not {self.keep}.")

    def for_dimension(self, dimension: int) -> FineTuningOptions:
        """With the batch size that is usual for models of this dimension, if none was chosen."""
        return replace(self, batch_size=self.batch_size or BATCH_SIZES[dimension])


def fine_tune(
    package: ModelPackage,
    data: str | os.PathLike,
    output: str | os.PathLike,
    *,
    replay: str | os.PathLike | None = None,
    id: str | None = None,
    name: str | None = None,
    tuning: FineTuningOptions | None = None,
    accelerator: str = "auto",
    progress: Progress = lambda stage, fraction, seconds_left: None,
    cancelled: Callable[[], bool] = never,
) -> ModelPackage:
    """Write a new package at ``output``: ``package`` after learning from the labelled cases in ``data``.

    Args:
        data, replay: labelled folders, as for training; where there is a splits.json only its training split is used.
            ``replay`` holds cases that the old model was trained on: every second patch then comes from them.
        id, name: of the new model. By default the old ones with "-tuned" and ", fine-tuned".
        progress: called with a stage, the finished share (0 to 1) and the seconds that are left, None if not known.
        cancelled: asked after each case that is read and after each step.

    Nothing is written before the end, and then the whole package. Raises FineTuningError, DatasetError that names the
    case, and Cancelled.
    """
    check_kind(package)
    tuning, output = (tuning or FineTuningOptions()).for_dimension(package.dimension), Path(output)
    id = id or free_id(package.id)
    check_id(id, package)
    check_output(output)
    started = time.monotonic()
    progress("Reading", 0.0, None)
    cases = corrected_cases(data, package, cancelled)
    old_cases = replayed_cases(replay, tuning) if replay is not None else []
    recipe = tuning_recipe(package, tuning)
    sources = [
        Patches(cached(part, recipe.model), training_transforms(recipe), tuning.seed)
        for part in (cases, old_cases)
        if part
    ]
    sets, device = [], ""
    for number in range(1, package.sets + 1):
        reporter = Reporter(progress, cancelled, number, package.sets)
        learnt, device = fitted_weights(package, recipe, Alternating(sources), accelerator, reporter)
        sets.append(interpolated_weights(load_networks(package, [number])[0].state_dict(), learnt, tuning.keep))
    progress("Writing", 1.0, 0.0)
    record = {
        "parent": {"id": package.id, "version": package.version, "sha256": package.sha256},
        "cases": len(cases),
        "replayed_cases": len(old_cases),
        **asdict(tuning),
        "seconds": round(time.monotonic() - started),
        "hardware": device,
    }
    model = tuned_description(package, id, name or f"{package.name}, fine-tuned", record)
    preview = package.preview_path.read_bytes() if package.preview_path else None
    check_output(output)
    finder = package.open_finder() if package.has_finder else None
    return write_package(output, model, save(joined(sets)), tuned_card(model), preview, finder)


def check_output(output: Path) -> None:
    """Raise FineTuningError if something is there already: no package is ever replaced."""
    if output.exists():
        raise FineTuningError(f"'{output}' is there already and stays as it is. Choose another --output.")


def free_id(parent: str) -> str:
    """'x' -> 'x-tuned', or 'x-tuned-2', ... if a bundled or imported model has that id. 'x-tuned' -> 'x-tuned-2'."""
    base = re.sub(r"-tuned(-\d+)?$", "", parent) + "-tuned"
    taken = {parent, *(package.id for package in find_packages(model_folders()) if isinstance(package, ModelPackage))}
    number, id = 1, base
    while id in taken:
        number += 1
        id = f"{base}-{number}"
    return id


def check_kind(package: ModelPackage) -> None:
    """FineTuningError for a model without structures of its own."""
    if package.is_promptable:
        raise FineTuningError(
            f"The model '{package.id}' segments what strokes mean and has no structures to correct. Choose another model.",
            code="bad_model",
        )


def check_id(id: str, package: ModelPackage) -> None:
    """Raise FineTuningError for the old model's own id and for characters that an id cannot have."""
    if id == package.id:
        raise FineTuningError(f"'{id}' is the id of the model that is fine-tuned. Give the new one another --id.")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", id):
        raise FineTuningError(f"The id '{id}' is not allowed: use lower-case letters, digits, '.', '-' and '_'.")


def corrected_cases(data: str | os.PathLike, package: ModelPackage, cancelled: Callable[[], bool]) -> list[Case]:
    """The cases to learn from. Raises DatasetError with the first one that does not fit the model."""
    check_label_names(LabelledFolder.open(data), package.labels, package.id)
    cases = training_cases(data)
    for case in cases:
        check_case(case, package)
        stop_if(cancelled)
    return cases


def training_cases(data: str | os.PathLike) -> list[Case]:
    """All cases of the folder; only those for training where it has a splits.json. Raises DatasetError."""
    folder = LabelledFolder.open(data)
    return folder.split("train" if (folder.folder / "splits.json").is_file() else "all")


def check_case(case: Case, package: ModelPackage) -> None:
    """Raise DatasetError for a case of another dimension, with other channels, or with labels the model does not have."""
    slices = read_files(case)[0].shape[2]
    if package.dimension == 2 and slices > 1:
        raise DatasetError(
            f"Case '{case.id}' is a volume of {slices} slices, but the model '{package.id}' works on single images. "
            "Save each corrected slice as a case of its own."
        )
    if package.dimension == 3 and slices == 1:
        raise DatasetError(
            f"Case '{case.id}' is a single image, but the model '{package.id}' works on volumes. "
            "Fine-tune a model for 2D images with it."
        )
    read_case(case, package.model)


def replayed_cases(replay: str | os.PathLike, tuning: FineTuningOptions) -> list[Case]:
    """No more cases than there are patches for, drawn at random: the folder may hold hundreds."""
    cases = training_cases(replay)
    order = np.random.default_rng(tuning.seed).permutation(len(cases))
    patches = tuning.steps * (tuning.batch_size or max(BATCH_SIZES.values()))
    return [cases[index] for index in order[: -(-patches // 2)]]


def tuning_recipe(package: ModelPackage, tuning: FineTuningOptions) -> Recipe:
    """The package's own description with these settings; augmentation as trainings have it by default."""
    model = {key: value for key, value in package.model.items() if key not in ("schema", "network", "weights")}
    fitting = {
        "epochs": 1,
        "iterations": tuning.steps,
        "batch_size": tuning.batch_size,
        "learning_rate": tuning.learning_rate,
        "average_decay": 0.9,  # the last ten steps or so: an average over more would hold on to the old weights
        "deep_supervision": False,  # packages have no heads for it
        "seed": tuning.seed,
    }
    return Recipe.from_dict({"model": model, "network": package.model["network"], "fitting": fitting})


class Alternating(Dataset):
    """Patches from several sources in turn."""

    def __init__(self, sources: Sequence[Patches]) -> None:
        self.sources = sources

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def __getitem__(self, number: int) -> dict:
        turn, source = divmod(number, len(self.sources))
        return self.sources[source][turn]


class Reporter(Callback):
    """Tells how far the steps are, and ends them when the caller wants it.

    ``number``: of the set of weights that learns, counted from 1, of so many ``sets``.
    """

    def __init__(self, progress: Progress, cancelled: Callable[[], bool], number: int = 1, sets: int = 1) -> None:
        self.progress, self.cancelled, self.number, self.sets = progress, cancelled, number, sets

    def on_train_start(self, *_: object) -> None:
        self.start = time.monotonic()
        self.progress("Fine-tuning", (self.number - 1) / self.sets, None)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        stop_if(self.cancelled)
        done, steps = trainer.global_step, trainer.max_steps
        left = (time.monotonic() - self.start) * (steps * (1 + self.sets - self.number) - done) / done
        self.progress("Fine-tuning", (self.number - 1 + done / steps) / self.sets, round(left, 1))


def fitted_weights(
    package: ModelPackage, recipe: Recipe, patches: Dataset, accelerator: str, reporter: Reporter
) -> tuple[dict[str, Tensor], str]:
    """What the package's weights become after the recipe's steps on ``patches``, and on what that was computed.

    Of several sets that of the ``reporter``'s number. The weights are on the CPU, in float32. Raises Cancelled.
    """
    keep_freed_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    task = SegmentationTask(recipe.to_dict())
    task.network.load_state_dict(load_networks(package, [reporter.number])[0].state_dict())
    fitting = recipe.fitting
    trainer = pl.Trainer(
        **{"devices": 1, **trainer_device(accelerator)},
        precision=precision(fitting.precision, accelerator),
        max_steps=fitting.iterations,
        gradient_clip_val=fitting.gradient_clip,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=False,
        callbacks=[reporter],
    )
    numbers = PatchNumbers(fitting.iterations, fitting.batch_size)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")  # no validation, no workers: a few cases need none
            trainer.fit(task, DataLoader(patches, fitting.batch_size, sampler=numbers))
    except SystemExit:  # how Lightning ends at SIGTERM and at Ctrl+C
        raise Cancelled from None
    learnt = {name: tensor.cpu().float() for name, tensor in task.average.module.state_dict().items()}
    return learnt, hardware(trainer)


def interpolated_weights(old: dict[str, Tensor], learnt: dict[str, Tensor], keep: float) -> dict[str, Tensor]:
    """``keep`` of the old weights and the rest of the learnt ones, in half precision."""
    return {name: torch.lerp(learnt[name], old[name], keep).half().contiguous() for name in old}


def tuned_description(package: ModelPackage, id: str, name: str, record: dict) -> dict:
    """model.json of the new package: the old one's, without its test results, which belong to the old weights."""
    model = {key: value for key, value in package.model.items() if key not in ("results", "weights")}
    return {
        **model,
        "id": id,
        "name": name,
        "version": "1.0.0",  # a model of its own
        "fine_tuning": [*package.model.get("fine_tuning", []), record],
        "weights": {key: value for key, value in package.model["weights"].items() if key not in ("file", "sha256")}
        | {"dtype": "float16"},
    }
