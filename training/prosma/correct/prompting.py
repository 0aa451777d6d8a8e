"""From a stroke to a mask with a promptable network: where it looks, and what of its answer is taken.

The network is any function from a patch (channels, *size) to log odds (*size). One connected region around what was said last
changes, and nothing else; strokes are honoured exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import SimpleITK as sitk

from ..image.box import Box, slices
from .crop import ZOOM, back, box_on_array, first_cube, grown_cube, touches
from .prompt_input import BELONGS, MASK, REGION, Said, patch_of
from .refine import Refinement

MOST_GROWTHS = 4
REGION_ZOOM = 1.6  # as ZOOM, for boxes and lassos, which go around an object

Network = Callable[[np.ndarray], np.ndarray]


def prompted(
    image: np.ndarray, said: Said, spacing: Sequence[float], network: Network, size: Sequence[int]
) -> Refinement:
    """What the mask becomes after the newest thing said. `image`: (C, *S); the arguments are not written to."""
    shape = said.mask.shape
    box = first_cube(said.newest, spacing, shape, zoom_of(said))
    for step in range(MOST_GROWTHS + 1):
        patch = patch_of(image, said, box, size)
        odds = network(patch)
        change = near_newest(odds > 0, patch, said, box)
        around = box_on_array(change, box)
        if step == MOST_GROWTHS or around is None or not touches(change, box, shape):
            break
        box = grown_cube(box, around, spacing, shape)
    return answered(odds, change, said, box)


def zoom_of(said: Said) -> float:
    """Edge of the first cube in lengths of what was said last."""
    place = slices(said.newest)
    stroked = said.belongs[place].any() or said.does_not[place].any()
    return ZOOM if stroked else REGION_ZOOM


def near_newest(new: np.ndarray, patch: np.ndarray, said: Said, box: Box) -> np.ndarray:
    """Where `new` (bool, on the patch) differs from the mask in regions that hang together with what was said last."""
    change = new != (patch[MASK] > 0.5)
    seeds = np.zeros(new.shape, bool)
    window = []
    for (low, high), (first, last), side in zip(said.newest, box, new.shape, strict=True):
        scale = side / (last - first)
        start = int(np.clip((low - first) * scale, 0, side - 1))
        window.append(slice(start, max(start + 1, int(np.ceil((high - first) * scale)))))
    seeds[tuple(window)] = patch[(slice(BELONGS, REGION + 1), *window)].any(0)
    return joined_to(seeds, change)


def joined_to(seeds: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The part of `change` in connected components of both that hold a seed."""
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray((change | seeds).astype(np.uint8)), True)
    numbers = sitk.GetArrayFromImage(parts)
    chosen = np.zeros(int(numbers.max()) + 1, bool)
    chosen[numbers[seeds]] = True
    chosen[0] = False
    return chosen[numbers] & change


def answered(odds: np.ndarray, change: np.ndarray, said: Said, box: Box) -> Refinement:
    """The mask where it may have changed: the network's answer where `change` says so, the strokes, else what there was."""
    shape = said.mask.shape
    part, values = back(odds, box, shape)
    _, changes = back(change.astype(np.float32), box, shape)
    place = slices(part)
    mask = np.where(changes > 0, values > 0, said.mask[place])
    mask |= said.belongs[place]
    mask &= ~said.does_not[place]
    return Refinement(part, mask)
