"""Small volumes with structure, for tests that need no anatomy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from prosma.image.geometry import Image


def smooth_volume(shape=(24, 20, 18), channels=1, seed=0, matrix=None) -> Image:
    """An int16 volume with structure, so that a network's answer varies."""
    random = np.random.default_rng(seed)
    coarse = random.normal(size=(channels, *(-(-n // 4) for n in shape)))
    array = coarse.repeat(4, 1).repeat(4, 2).repeat(4, 3)[:, : shape[0], : shape[1], : shape[2]]
    array = (400 * array + 20 * random.normal(size=array.shape)).astype(np.int16)
    return Image(np.ascontiguousarray(array), np.diag([1.0, 1.2, 1.5, 1.0]) if matrix is None else matrix)


def smooth_shades(shape, channels=1, seed=0) -> Image:
    """The same in shades of 8 bits."""
    image = smooth_volume(shape, channels, seed)
    return replace(image, array=np.clip(image.array / 8 + 128, 0, 255).astype(np.uint8))
