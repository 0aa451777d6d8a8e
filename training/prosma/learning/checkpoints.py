"""Checkpoints of runs: read as data, never as code."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from ..errors import UserFacingError


class CheckpointError(UserFacingError):
    """A checkpoint that cannot be read as data; the message names the file."""


def read_checkpoint(path: Path) -> dict:
    """The content of a checkpoint, on the CPU. A checkpoint can hold code; only numbers, texts and tensors are taken.

    Raises CheckpointError for a file that is damaged, or that holds anything else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f"The checkpoint '{path}' cannot be read: it is damaged, or holds more than numbers and texts "
            "and so was not written by `prosma train`. Use the run's own checkpoint, or train again."
        ) from error
    if not isinstance(content, dict) or not {"epoch", "state_dict"} <= set(content):
        raise CheckpointError(
            f"'{path}' is no checkpoint of `prosma train`: it lacks 'epoch' or 'state_dict'. Train again."
        )
    return content
