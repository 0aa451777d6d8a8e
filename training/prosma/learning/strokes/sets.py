"""Data sets in memory: every label of every case is something that a promptable network can be asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...image.box import Box
from ..data.dataset import Case, DatasetError, LabelledFolder, data_sets_in, label_values, read_files, words
from ..recipe import Strokes

LOG = logging.getLogger(__name__)

FULL = (0.1, 99.9)  # percentiles to which images are clipped, so that 16 bits hold them


@dataclass(frozen=True)
class Volume:
    """A case in memory: `image` float16 (C, I, J, K), mean 0, deviation 1 a channel; `labels` uint8 (I, J, K).

    `spacing` in mm along I, J, K; `boxes`: of each label that may be asked for.
    """

    set: str
    id: str
    image: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float]
    boxes: dict[int, Box]


def folders_of(data: str | os.PathLike | Sequence[str | os.PathLike], left_out: Sequence[str]) -> list[Path]:
    """The data sets that are named, or that lie in the folders named; without those left out. DatasetError for none."""
    named = [data] if isinstance(data, (str, os.PathLike)) else data
    found: list[Path] = []
    for folder in map(Path, named):
        found += data_sets_in(folder) or [folder]
    found = [folder for folder in found if folder.name not in left_out]
    if not found:
        raise DatasetError(
            f"'{named[0]}' holds no data to train on: it should be a folder of labelled images, or of several such folders "
            "that the recipe does not leave out."
        )
    return found


def read_sets(
    data, strokes: Strokes, dimension: int, parts: Sequence[str] = ("train", "val"), fold: int = 0
) -> dict[str, list]:
    """The volumes of each part, over all sets, and for `dimension` 2 the pictures. DatasetError, which names the file.

    A name in `strokes` that leaves nothing out is told: one that is misspelt would let the network see what a test is for.
    """
    volumes: dict[str, list[Volume]] = {part: [] for part in parts}
    paths, known = folders_of(data, strokes.left_out), set[str]()
    present = {path.name for path in folders_of(data, ())}
    for path in paths:
        folder = LabelledFolder.open(path, fold)
        known |= set[str]().union(*map(words, label_values(folder.description)))
        flat = next(iter(folder.cases.values())).is_photograph
        if flat and dimension == 3:
            continue
        asked = asked_labels(folder, strokes.left_out_labels)
        for part in parts:
            volumes[part] += [read_volume(case, path.name, asked) for case in folder.split(part)]
    idle = [name for name in strokes.left_out if name not in present]
    idle += [word for word in strokes.left_out_labels if word.casefold() not in known]
    if idle:
        LOG.warning("The recipe leaves out %s, but nothing in the data has such a name.", ", ".join(idle))
    for part, found in volumes.items():
        if not any(volume.boxes for volume in found):
            raise DatasetError(f"There is no labelled {'image' if dimension == 2 else 'volume'} for '{part}'.")
    return volumes


def asked_labels(folder: LabelledFolder, left_out: Sequence[str]) -> list[int] | None:
    """The values of the labels that may be asked for; None for any above 0, where dataset.json names none."""
    values = label_values(folder.description)
    if not values:
        return None
    barred = {word.casefold() for word in left_out}
    return [value for name, value in values.items() if isinstance(value, int) and value and not words(name) & barred]


def read_volume(case: Case, set: str, asked: Sequence[int] | None) -> Volume:
    """A case with the boxes of its labels; masks of 0 and 255 become 0 and 1."""
    image, labels = read_files(case)
    if case.ignored_value is not None:
        labels = np.where(labels == case.ignored_value, 0, labels)
    if labels.max() == 255:
        labels = labels > 127
    labels = np.ascontiguousarray(labels.astype(np.uint8))
    boxes = {}
    for value in np.unique(labels).tolist():
        if value and (asked is None or value in asked):
            boxes[value] = bounding_box(labels == value)
    array = np.stack([evened(channel) for channel in image.array])
    spacing = (1.0, 1.0, 1.0) if case.is_photograph else image.spacing
    return Volume(set, case.id, array, labels, spacing, boxes)


def bounding_box(mask: np.ndarray) -> Box:
    """The smallest box around the voxels of a mask that has some."""
    return tuple((int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(mask))


def evened(channel: np.ndarray) -> np.ndarray:
    """A channel clipped to its percentiles, with mean 0 and deviation 1, in 16 bits."""
    low, high = np.percentile(channel.reshape(-1)[:: max(1, channel.size // 1_000_000)], FULL)
    clipped = np.clip(channel.astype(np.float32), low, high)
    return ((clipped - clipped.mean()) / max(1e-6, float(clipped.std()))).astype(np.float16)
