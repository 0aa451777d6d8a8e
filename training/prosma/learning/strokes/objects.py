"""Pseudo-objects: supervoxels and regions of like values, in any image, labelled or not.

They teach a promptable network that an object is what the strokes say, not one of a list of organs (as in ScribblePrompt and
nnInteractive).
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.random import Generator
from scipy import ndimage

from ...correct.crop import cut, inside
from ...image.box import Box, shape_of
from ...image.resampling import resample

SIDE = 40  # of the grid on which supervoxels are found
SUPERVOXELS = (6, 16)  # their size on that grid
MOST_JOINED = 4
LIKE = 0.5  # of the deviation of the values, that joined supervoxels may differ
TRIES = 6
SHARES = (0.002, 0.4)  # of the cube that an object may fill


def pseudo_object(image: np.ndarray, spacing, rng: Generator) -> tuple[Box, np.ndarray] | None:
    """Where an object lies in `image` (I, J, K): a box and the object in it (bool); None where only air was met."""
    for _ in range(TRIES):
        box = inside(random_cube(image.shape, spacing, rng), image.shape)
        size = tuple(SIDE if n > 1 else 1 for n in image.shape)
        seen = cut(image, box, size)
        spread = float(seen.std())
        if spread < 1e-3 or float(np.ptp(seen)) < 0.2:
            continue
        seen = ndimage.gaussian_filter(seen, rng.uniform(0.4, 1.2))
        found = joined_supervoxels(seen, rng) if rng.random() < 0.6 else like_values(seen, spread, rng)
        if found is not None and SHARES[0] < found.mean() < SHARES[1]:
            voxels = resample(found, shape_of(box)) > 0.5
            if voxels.any():
                return box, voxels
    return None


def random_cube(shape, spacing, rng: Generator) -> Box:
    """A cube of 24 to 96 voxels of the finest axis somewhere in the image."""
    edge = min(spacing) * 24 * 4 ** rng.random()
    counts = [max(1, round(edge / s)) if n > 1 else 1 for n, s in zip(shape, spacing, strict=True)]
    return tuple((low := int(rng.integers(max(1, n - c + 1))), low + c) for n, c in zip(shape, counts, strict=True))


def joined_supervoxels(seen: np.ndarray, rng: Generator) -> np.ndarray | None:
    """A supervoxel (SLIC) with some of its neighbours of the most similar values."""
    flat = [n for n, size in enumerate(seen.shape) if size == 1]
    image = sitk.GetImageFromArray(np.ascontiguousarray(seen.squeeze()))
    grid = [int(rng.integers(*SUPERVOXELS))] * image.GetDimension()
    weight = float(np.ptp(seen)) * rng.uniform(0.02, 0.3)
    parts = sitk.GetArrayFromImage(sitk.SLIC(image, grid, weight, 4))
    parts = np.expand_dims(parts, flat[0]) if flat else parts
    values = np.unique(parts)
    means = dict(zip(values, np.atleast_1d(ndimage.mean(seen, parts, values)), strict=True))
    first = int(rng.choice(values))
    chosen = parts == first
    for _ in range(int(rng.integers(MOST_JOINED + 1))):
        around = np.unique(parts[ndimage.binary_dilation(chosen) & ~chosen])
        nearest = min(around, key=lambda value: abs(means[value] - means[first]), default=None)
        if nearest is None or abs(means[nearest] - means[first]) > LIKE * seen.std():
            break
        chosen |= parts == nearest
    return chosen


def like_values(seen: np.ndarray, spread: float, rng: Generator) -> np.ndarray | None:
    """The connected region around a random voxel whose values are like its own, opened and filled."""
    seed = tuple(int(rng.integers(n)) for n in seen.shape)
    near = np.abs(seen - seen[seed]) < spread * rng.uniform(0.2, 0.8)
    parts, _ = ndimage.label(near)
    region = parts == parts[seed]
    if rng.random() < 0.7:
        region = ndimage.binary_opening(region)
        parts, count = ndimage.label(region)
        if not count:
            return None
        region = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    return ndimage.binary_fill_holes(region)
