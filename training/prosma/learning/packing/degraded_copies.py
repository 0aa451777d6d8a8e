"""Copies of a labelled image that are harder to segment, for what a package knows of the quality of its results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ...image.box import Box, slices, smallest, whole
from ...image.geometry import Image
from ...image.intensity import within_range
from ..data.dataset import IGNORED

CLEAN = "clean"  # the kind of the image itself
LEAST_SIDE = 6  # voxels of a cut image along the axis that is cut
LEAST_CUT = 12  # voxels along an axis that may be cut
FEW_SLICES = 30  # up to which the last axis keeps its resolution


def degraded_copies(
    image: Image, labels: np.ndarray, model: dict, random: np.random.Generator
) -> Iterator[tuple[str, Image, np.ndarray]]:
    """Kind, image and labels: the image itself, with noise, with little contrast, coarse, and cut through its structures."""
    array = image.array.astype(np.float32)
    low, high = np.percentile(array, [0.5, 99.5])
    spread = float(high - low)

    def version(values: np.ndarray) -> Image:
        return replace(image, array=within_range(values, image.array, model["intensity"]).astype(np.float32))

    def noise(deviation: float) -> np.ndarray:
        return random.normal(0, deviation * spread, array.shape)

    yield CLEAN, image, labels
    yield "noise", version(array + noise(random.uniform(0.05, 0.25))), labels
    mean, contrast = array.mean(), random.uniform(0.12, 0.5)
    yield "contrast", version(mean + (array - mean) * contrast + noise(0.02)), labels
    yield "coarse", version(coarse(array, int(random.integers(2, 5)), model["dimension"])), labels
    box = cut_box(labels, random)
    yield "cut", image.cropped(box), labels[slices(box)]


def coarse(array: np.ndarray, factor: int, dimension: int) -> np.ndarray:
    """(C, I, J, K) with the mean of blocks of `factor` voxels along each axis; few slices keep their resolution."""
    for axis in range(1, 4):
        size = array.shape[axis]
        if size < 2 * factor or (axis == 3 and (dimension == 2 or size <= FEW_SLICES)):
            continue
        full = size // factor * factor
        blocks = np.moveaxis(array, axis, -1)[..., :full]
        means = blocks.reshape(*blocks.shape[:-1], full // factor, factor).mean(axis=-1)
        rest = np.moveaxis(array, axis, -1)[..., full:]
        array = np.moveaxis(np.concatenate([np.repeat(means, factor, axis=-1), rest], axis=-1), -1, axis)
    return array


def cut_box(labels: np.ndarray, random: np.random.Generator) -> Box:
    """A part of (I, J, K) whose border goes through the labels."""
    inner = smallest((labels > 0) & (labels != IGNORED)) or whole(labels.shape)
    box = [*whole(labels.shape)]
    axes = [axis for axis, size in enumerate(labels.shape) if size >= LEAST_CUT]
    if not axes:
        return tuple(box)
    axis = axes[random.integers(len(axes))]
    (low, high), size = inner[axis], labels.shape[axis]
    border = int(low + random.uniform(0.25, 0.75) * (high - low))
    first = random.random() < 0.5
    box[axis] = (0, max(LEAST_SIDE, border)) if first else (min(border, size - LEAST_SIDE), size)
    return tuple(box)
