"""Images made worse on purpose: noise, speckle and lost contrast of a given strength, the same for every model.

Each change is relative to the image's own intensities and is made before the model's normalisation, on the file's own
grid. It depends on the kind, the level and a key (the case) alone, and all levels of a kind share one random pattern,
so that a higher level changes the same voxels further.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from ...image.geometry import Image

RANGE = (0.5, 99.5)  # percentiles between which a channel's intensities are taken to lie


def degrade(image: Image, kind: str, level: float, key: str) -> Image:
    """``image`` as float32 (C, I, J, K) with its geometry, degraded by ``level`` (0: unchanged) of a ``KINDS`` entry.

    ``noise``: Gaussian, independent in each voxel; its standard deviation is ``level`` times the channel's range.
    ``speckle``: each intensity, counted from the channel's low end, is multiplied by 1 + ``level`` times such noise.
    ``contrast``: intensities are drawn to the channel's mean along a random direction: not at all at one end of the
    image, by the share ``level`` (at most 1) from its middle on. An even loss would be undone by a z-score.
    """
    digest = hashlib.sha256(f"{kind} {key}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    array = KINDS[kind](image.array.astype(np.float32), level, generator)
    return replace(image, array=array.astype(np.float32, copy=False))


def add_noise(array: np.ndarray, level: float, generator: np.random.Generator) -> np.ndarray:
    low, high = intensity_range(array)
    return array + level * (high - low) * generator.standard_normal(array.shape, np.float32)


def add_speckle(array: np.ndarray, level: float, generator: np.random.Generator) -> np.ndarray:
    low, _ = intensity_range(array)
    return low + (array - low) * (1 + level * generator.standard_normal(array.shape, np.float32))


def fade_contrast(array: np.ndarray, level: float, generator: np.random.Generator) -> np.ndarray:
    shape = array.shape[1:]
    direction = generator.standard_normal(3) * (np.array(shape) > 1)
    place = np.tensordot(direction, np.indices(shape) / np.array(shape).reshape(3, 1, 1, 1), axes=1)
    place = (place - place.min()) / max(float(np.ptp(place)), 1e-6)
    mean = array.mean(axis=(1, 2, 3), keepdims=True)
    return mean + (array - mean) * (1 - level * np.minimum(1, 2 * place).astype(np.float32))


def intensity_range(array: np.ndarray) -> np.ndarray:
    """Low and high end of each channel's intensities, (2, C, 1, 1, 1)."""
    return np.percentile(array, RANGE, axis=(1, 2, 3), keepdims=True).astype(np.float32)


KINDS = {"noise": add_noise, "speckle": add_speckle, "contrast": fade_contrast}
