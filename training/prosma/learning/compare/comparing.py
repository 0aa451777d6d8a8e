"""The runs of a comparison: each variant with each seed is trained, exported and scored on clean and degraded images.

RUNS/<variant>-seed<k>/ is an ordinary run with its package and ``scores.json``, which is written when all is done.
Whatever is there is not done again; what was broken off goes on; runs that another process has in hand are left to it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from ...errors import UserFacingError
from ...files import write_json
from ...image.geometry import Image
from ...image.intensity import within_range
from ...inference.segmenter import Segmenter
from ..checkpoints import read_checkpoint, read_record
from ..data.dataset import IGNORED, Case, LabelledFolder, read_case
from ..fit.fitting import train
from ..judge.evaluation import gate_summary, overlap_metrics
from ..packing.export import export
from ..recipe import Recipe
from .degrading import degrade
from .grid import Grid

METRICS = ("dice", "iou")
CLEAN = "clean"
_ONE_AT_A_TIME = threading.Lock()


class ComparisonError(UserFacingError):
    """A comparison that cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Run:
    """One variant trained with one seed, in its own folder."""

    grid: Grid
    variant: str
    seed: int
    out: Path

    @property
    def name(self) -> str:
        return f"{self.variant}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        return self.out / self.name

    @property
    def recipe(self) -> Recipe:
        return self.grid.recipe(self.variant, self.seed)

    @property
    def evaluation(self) -> dict:
        """What the scores depend on besides the weights."""
        return {"split": self.grid.split, "degradations": self.grid.degradations}

    def scores(self) -> dict | None:
        """Content of scores.json; None if there is none or it was made under other degradations or on another split."""
        path = self.folder / "scores.json"
        if not path.is_file():
            return None
        scores = read_record(path)
        return scores if scores["evaluation"] == self.evaluation else None

    def late_gain(self) -> float | None:
        """What the validation's Dice gained in the last third of the epochs: little where a network has finished learning.

        None where there was no validation before that third.
        """
        path = self.folder / "history.json"
        epochs = read_record(path)["epochs"] if path.is_file() else []
        dice = [epoch.get("val/dice") for epoch in epochs]
        before = dice[len(dice) * 2 // 3 - 1] if len(dice) > 1 else None
        return None if before is None else dice[-1] - before

    def is_trained(self) -> bool:
        checkpoint = self.folder / "last.ckpt"
        if not checkpoint.is_file():
            return False
        epoch = read_checkpoint(checkpoint)["epoch"]
        return epoch + 1 >= self.recipe.fitting.epochs

    def check(self) -> None:
        """Raise ComparisonError if the folder holds a run of another recipe."""
        path = self.folder / "recipe.json"
        if not path.is_file():
            return
        found = Recipe.from_dict(read_record(path))
        if found.to_dict() != self.recipe.to_dict():
            raise ComparisonError(
                f"'{self.folder}' was trained with other settings than this comparison's. Choose another --out, or "
                "remove that folder to train it again."
            )


def all_runs(grid: Grid, out: str | os.PathLike) -> list[Run]:
    """Seed by seed, so that a comparison that is broken off has every variant with the first seeds."""
    return [Run(grid, variant, seed, Path(out)) for seed in grid.seeds for variant in grid.variants]


def compare(
    grid: Grid,
    data: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    variants: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    workers: int = 1,
    threads: int | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Make the runs of the grid that are not there yet; returns the names of all that are still missing then.

    ``variants`` and ``seeds`` choose some of them; several processes may share one ``out``. Raises ComparisonError,
    DatasetError, RecipeError before the training that they concern.
    """
    runs = checked_runs(grid, data, out, variants, seeds)
    cases = LabelledFolder.open(data).split(grid.split)
    use_threads(threads)
    for number, run in enumerate(runs, start=1):
        place = f"{number}/{len(runs)} {run.name}"
        if run.scores():
            say(f"{place}: done before")
            continue
        run.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(run.out / f".{run.name}.lock", timeout=0):
                say(f"{place}: training and scoring")
                scores = run.scores() or make(run, data, cases, workers, threads, device)
        except Timeout:
            say(f"{place}: another process is making it")
            continue
        dice = np.mean(scores["scores"][CLEAN]["dice"])
        say(f"{place}: Dice {dice:.4f}, {scores['seconds']} s of training")
    return [run.name for run in all_runs(grid, out) if not run.scores()]


def checked_runs(
    grid: Grid,
    data: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    variants: Sequence[str] | None,
    seeds: Sequence[int] | None,
) -> list[Run]:
    """The chosen runs of the grid. ComparisonError, DatasetError where one cannot be made."""
    variants = chosen("variant", variants, list(grid.variants))
    seeds = chosen("seed", seeds, grid.seeds)
    runs = [run for run in all_runs(grid, out) if run.variant in variants and run.seed in seeds]
    LabelledFolder.open(data).split(grid.split)
    for run in runs:
        run.check()
    return runs


def one_run(
    grid: Grid, data: Sequence[str], out: str, variant: str, seed: int, threads: int | None, device: str
) -> str:
    """One run of the grid in this process, for a worker of a cluster; what there is to say of it.

    One at a time: a training has the random numbers and the threads of its process for itself.
    """
    said: list[str] = []
    how: dict[str, Any] = {"workers": 0, "threads": threads, "device": device}
    with _ONE_AT_A_TIME:
        compare(grid, data, out, variants=[variant], seeds=[seed], say=said.append, **how)
    return said[-1].partition(" ")[2]


def chosen(what: str, wanted: Sequence | None, known: Sequence) -> Sequence:
    """``wanted``, or all. Raises ComparisonError for one that the grid does not have."""
    absent = [entry for entry in wanted or () if entry not in known]
    if absent:
        raise ComparisonError(f"The comparison has no {what} '{absent[0]}'; it has {', '.join(map(str, known))}.")
    return wanted or known


def use_threads(threads: int | None) -> None:
    """For training and inference alike: inference takes all cores unless the environment says otherwise."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)


def make(
    run: Run,
    data: Sequence[str | os.PathLike],
    cases: Sequence[Case],
    workers: int,
    threads: int | None,
    device: str,
) -> dict:
    """Train what is missing of a run, score it, and write its ``scores.json``, whose content is returned."""
    if not run.is_trained():
        train(run.recipe, data, run.folder, resume=True, workers=workers, threads=threads, accelerator=device)
    package = export(run.folder, run.folder / "package")
    history = read_record(run.folder / "history.json")
    segmenter = Segmenter(package, device)
    content = {
        "variant": run.variant,
        "seed": run.seed,
        "network": run.grid.variants[run.variant],
        "parameters": package.model["weights"]["parameters"],
        "seconds": history["seconds"],
        "hardware": history["hardware"],
        "data": [Path(folder).resolve().name for folder in data],
        "evaluation": run.evaluation,
        **score(segmenter, cases, run.grid.conditions),
    }
    write_json(run.folder / "scores.json", content)
    return content


def score(segmenter: Segmenter, cases: Sequence[Case], conditions: Sequence[tuple[str, float]]) -> dict:
    """Scores of every case, clean and under each condition, what the gates do, and the seconds for a clean case.

    ``scores[condition][metric]`` has one number for each of ``cases``: the mean over labels, where a label that is
    neither there nor found counts as 1. ``labelled`` tells which cases have any label.
    """
    model = segmenter.package.model
    names = [CLEAN, *(condition_name(*condition) for condition in conditions)]
    scores: dict = {name: {metric: [] for metric in METRICS} for name in names}
    gates: dict = {name: [] for name in names}
    labelled, seconds = [], []
    for case in cases:
        image, reference = read_case(case, model)
        labelled.append(bool(((reference > 0) & (reference != IGNORED)).any()))
        for name, version in versions(image, case.id, conditions, model["intensity"]):
            result = segmenter.segment(version, refuse_unfit=False)
            for metric, value in overlaps(result.labels, reference, model).items():
                scores[name][metric].append(round(value, 4))
            gates[name].append({"levels": [], "removed_share": None, **result.statistics})
            if name == CLEAN:
                seconds.append(result.seconds["total"])
    return {
        "cases": [case.id for case in cases],
        "labelled": labelled,
        "seconds_per_case": round(sum(seconds) / len(seconds), 4),
        "scores": scores,
        "gates": {name: gate_summary(rows) for name, rows in gates.items()},
    }


def versions(
    image: Image, key: str, conditions: Sequence[tuple[str, float]], intensity: dict
) -> Iterator[tuple[str, Image]]:
    """The clean image, then each degraded one with values that the model takes, with the names of the conditions."""
    yield CLEAN, image
    for kind, level in conditions:
        worse = degrade(image, kind, level, key)
        yield condition_name(kind, level), replace(worse, array=within_range(worse.array, image.array, intensity))


def condition_name(kind: str, level: float) -> str:
    return f"{kind} {level:g}"


def overlaps(predicted: np.ndarray, reference: np.ndarray, model: dict) -> dict[str, float]:
    """Mean over labels of each metric for label maps (I, J, K); 1 for a label that is in neither.

    Voxels that the reference leaves out (IGNORED) do not count.
    """
    predicted = np.where(reference == IGNORED, 0, predicted)
    rows = [
        overlap_metrics(predicted == label["value"], reference == label["value"], None) for label in model["labels"]
    ]
    found = {metric: [row[metric] for row in rows] for metric in METRICS}
    return {name: sum(1.0 if v is None else v for v in values) / len(rows) for name, values in found.items()}
