"""Runs as `prosma train` leaves them, read for a package, and whether several of them belong in one."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...contracts import shown
from ...package.schema import MOST_SETS
from ..checkpoints import read_checkpoint, read_record
from ..data.dataset import DatasetError, LabelledFolder
from ..recipe import Recipe, RecipeError

PREFIX = "average.module."
SEEN_BEFORE = {"val": ("train",), "test": ("train", "val")}  # splits that hold none of a split's cases


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its recipe, the content of history.json, and the moving average of its weights."""

    folder: Path
    recipe: Recipe
    history: dict
    weights: dict[str, torch.Tensor]

    @classmethod
    def read(cls, folder: str | os.PathLike) -> Run:
        """Raises RecipeError when the folder holds no finished run."""
        folder = Path(folder)
        checkpoint = folder / "last.ckpt"
        if not checkpoint.is_file() or not (folder / "recipe.json").is_file():
            raise RecipeError(
                f"'{folder}' holds no run: train one first (prosma train RECIPE --data DIR --out {folder})."
            )
        recipe = Recipe.from_dict(read_record(folder / "recipe.json"))
        history = read_record(folder / "history.json")
        return cls(folder, recipe, history, averaged_weights(checkpoint))

    @property
    def fold(self) -> int:
        return self.recipe.fitting.fold


def averaged_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The moving average in a checkpoint, without the heads that only training needs."""
    state = read_checkpoint(checkpoint)["state_dict"]
    return {
        name.removeprefix(PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}auxiliary_heads.")
    }


def read_runs(folders: Sequence[str | os.PathLike]) -> list[Run]:
    """Runs whose answers can be averaged. Raises RecipeError for those that are not of one model."""
    if len(folders) > MOST_SETS:
        raise RecipeError(
            f"A package holds at most {MOST_SETS} sets of weights, not {len(folders)}.", "Give fewer runs."
        )
    runs = [Run.read(folder) for folder in folders]
    for run in runs[1:]:
        difference = next(differences(runs[0].recipe, run.recipe), None)
        if difference is not None:
            raise RecipeError(
                f"The runs '{runs[0].folder}' and '{run.folder}' cannot be averaged: {difference}.",
                f"Train each with the recipe of the first: prosma train {runs[0].folder / 'recipe.json'} --data DATA "
                "--fold K -o RUN.",
            )
    for first, second in itertools.combinations(runs, 2):
        if same_weights(first.weights, second.weights):
            raise RecipeError(
                f"The runs '{first.folder}' and '{second.folder}' hold the same weights: their average says nothing new.",
                "Give each run once, or train one with another --fold or seed.",
            )
    return runs


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two networks are one, to the bit."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def differences(first: Recipe, second: Recipe) -> Iterator[str]:
    """Each entry of the package in which two recipes differ, as a clause."""
    for section, one, other in (
        ("", first.model, second.model),
        ("network.", first.network_arguments, second.network_arguments),
    ):
        for name in sorted({*one, *other}):
            if one.get(name) != other.get(name):
                yield f"their '{section}{name}' is {shown(one.get(name))} and {shown(other.get(name))}"


def open_folders(runs: Sequence[Run], data: str | os.PathLike | Sequence[str | os.PathLike]) -> list[LabelledFolder]:
    """The data with the splits of each run's fold. Raises DatasetError."""
    by_fold = {fold: LabelledFolder.open(data, fold) for fold in {run.fold for run in runs}}
    return [by_fold[run.fold] for run in runs]


def trained_on(folders: Sequence[LabelledFolder]) -> list[str]:
    """The ids of the cases that at least one of the runs has learnt from."""
    return list(dict.fromkeys(name for folder in folders for name in folder.splits.get("train", [])))


def refuse_seen_cases(runs: Sequence[Run], folders: Sequence[LabelledFolder], split: str) -> None:
    """Raise DatasetError where a case of the first run's split is one that another was trained on, or chosen by."""
    for run, folder in zip(runs[1:], folders[1:], strict=True):
        for name in SEEN_BEFORE.get(split, ()):
            seen = set(folder.splits.get(name, []))
            known = next((case.id for case in folders[0].split(split) if case.id in seen), None)
            if known is not None:
                raise DatasetError(
                    f"The case '{known}' of the split '{split}' is among the {name} cases of the run '{run.folder}': it "
                    "cannot tell how good their average is.",
                    "Give --split test where every fold has the same test cases, or export without --data.",
                )


def never_seen(folders: Sequence[LabelledFolder]) -> LabelledFolder:
    """The first run's data, with those validation cases alone that no run has learnt from."""
    seen = set(trained_on(folders))
    val = [name for name in folders[0].splits.get("val", []) if name not in seen]
    return dataclasses.replace(folders[0], splits={**folders[0].splits, "val": val})


def counted_cases(runs: Sequence[Run], folders: Sequence[LabelledFolder] = ()) -> dict[str, int]:
    """How many cases were for training and validation; of several folds all that any run has learnt from."""
    recorded = [run.history.get("cases", {}) for run in runs]
    if len({run.fold for run in runs}) == 1 and all(cases == recorded[0] for cases in recorded):
        counts = {name: len(ids) for name, ids in folders[0].splits.items()} if folders else {}
        return {**counts, **recorded[0]}
    if not folders:
        return {}
    val = never_seen(folders).splits["val"]
    return {"train": len(trained_on(folders)), **({"val": len(val)} if val else {})}
