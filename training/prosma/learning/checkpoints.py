"""Checkpoints and records of runs: read as data, never as code; and which recipe a run may be resumed with."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import torch

from ..errors import UserFacingError
from .recipe import Recipe, RecipeError

LASTING = {  # of a recipe: what the weights mean, and which cases they must not see
    "model": ("id", "dimension", "channels", "prompt", "labels", "spacing", "resize", "orientation", "intensity"),
    "fitting": ("fold",),
    "strokes": ("left_out", "left_out_labels"),
}


class CheckpointError(UserFacingError):
    """A checkpoint that cannot be read as data; the message names the file."""


def read_checkpoint(path: Path) -> dict:
    """The content of a checkpoint, on the CPU. A checkpoint can hold code; only numbers, texts and tensors are taken.

    Raises CheckpointError for a file that is damaged, or that holds anything else.
    """
    try:
        check_whole(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f"The checkpoint '{path}' cannot be read: it is damaged, or holds more than numbers and texts "
            "and so was not written by `prosma train`. Use the run's own checkpoint, or train again elsewhere."
        ) from error
    if not isinstance(content, dict) or not {"epoch", "state_dict"} <= set(content):
        raise CheckpointError(
            f"'{path}' is no checkpoint of `prosma train`: it lacks 'epoch' or 'state_dict'. Train again elsewhere."
        )
    return content


def check_whole(path: Path) -> None:
    """BadZipFile for bytes that are not those written: PyTorch's reader does not look at the file's checksums."""
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)


def read_record(path: Path) -> dict:
    """The content of a JSON file that a run keeps. Raises RecipeError, which names it, where it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise RecipeError(
            f"'{path}', a record of the run, is missing or damaged.", "Put a copy of it back, or train again elsewhere."
        )
    return content


def epochs_to_resume(run: Path, recipe: Recipe) -> int:
    """How many epochs a run has done. RecipeError where it was begun with a recipe that differs from this one in more than
    how it is trained, or has more epochs than this one asks for.
    """
    before = read_record(run / "recipe.json")
    now = json.loads(json.dumps(recipe.to_dict()))
    network = {*(before.get("network") or {}), *now["network"]}
    names = [(section, key) for section, keys in {**LASTING, "network": sorted(network)}.items() for key in keys]
    others = [
        f"{section}.{key}"
        for section, key in names
        if (before.get(section) or {}).get(key) != (now.get(section) or {}).get(key)
    ]
    if others:
        raise RecipeError(
            f"'{run}' was begun with another recipe: {', '.join(others)} differ.",
            f"Resume with the run's own '{run / 'recipe.json'}', or choose another --out.",
        )
    done = read_checkpoint(run / "last.ckpt")["epoch"] + 1
    if done > recipe.fitting.epochs:
        raise RecipeError(
            f"'{run}' has {done} epochs already; {recipe.fitting.epochs} are asked for.",
            "Ask for more, or export it as it is.",
        )
    return done
