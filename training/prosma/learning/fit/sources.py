"""What a recipe learns from: labelled images, or images painted from label maps."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..data.dataset import LabelledFolder
from ..data.painting import PaintedCases, PaintedPatch, label_maps
from ..data.patches import cached, training_transforms
from ..recipe import Recipe

VALIDATION_PAINTINGS = 20  # of each label map


def training_data(recipe: Recipe, data: str | os.PathLike | Sequence[str | os.PathLike]) -> tuple:
    """Cases to train on and to validate on, and what makes a patch of one: labelled images, or painted label maps."""
    if recipe.painting is None:
        folder = LabelledFolder.open(data, recipe.fitting.fold)
        train, val = (cached(folder.split(part), recipe.model) for part in ("train", "val"))
        return train, val, training_transforms(recipe)
    maps = data if isinstance(data, (str, os.PathLike)) else data[0]
    paint = PaintedPatch(recipe.painting, *(recipe.model[key] for key in ("patch_size", "spacing", "intensity")))
    return label_maps(maps, "train"), PaintedCases(label_maps(maps, "val"), paint, VALIDATION_PAINTINGS), paint
