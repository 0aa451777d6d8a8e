"""What a promptable network sees: the image, what was said about it and what is known of the object, as channels of a patch.

Training and use make their patches here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..image.box import Box, moved, overlap, placed, shape_of, slices, smallest, start_of, union, whole
from .crop import cut, marked

# Channels after those of the image, in this order: all that model.json may name.
PROMPT_CHANNELS = ("likeness", "mask", "belongs", "does not belong", "region", "log odds")
LIKENESS, MASK, BELONGS, NOT, REGION, LOG_ODDS = range(-len(PROMPT_CHANNELS), 0)
PERCENTILES = (0.5, 99.5)  # of a patch, to which its image is clipped
SAMPLED = 7  # every so many voxels of a patch make its percentiles
BINS, RANGE = 32, 3.0  # of the histogram of stroked values, in deviations of the patch
SMOOTHING = np.array([1, 4, 6, 4, 1]) / 16  # of that histogram
MOST_ODDS = 4.0  # log odds are clipped to this


class Placed:
    """A part of a grid as an array of the whole grid, which has `elsewhere` outside the part; computed only where asked for.

    >>> Placed(np.ones((2, 2), bool), (1, 0), (4, 3))[0:3, 0:3].astype(int).tolist()
    [[0, 0, 0], [1, 1, 0], [1, 1, 0]]
    """

    def __init__(self, array: np.ndarray, start: Sequence[int], shape: Sequence[int], elsewhere: float = 0) -> None:
        self.array, self.box, self.shape, self.elsewhere = array, placed(start, array.shape), tuple(shape), elsewhere
        self.ndim = len(self.shape)

    def within(self, box: Box) -> Placed:
        """The same seen from a box of the grid, whose first voxel becomes the first one."""
        start = [first - low for first, (low, _) in zip(start_of(self.box), box, strict=True)]
        return Placed(self.array, start, shape_of(box), self.elsewhere)

    def __getitem__(self, place: tuple[slice, ...]) -> np.ndarray:
        wanted = tuple(part.indices(n)[:2] for part, n in zip(place, self.shape, strict=True))
        result = np.full([max(0, high - low) for low, high in wanted], self.elsewhere, self.array.dtype)
        common = overlap(wanted, self.box) if self.array.size else None
        if common is not None:
            result[slices(common, start_of(wanted))] = self.array[slices(common, start_of(self.box))]
        return result


class Layers:
    """Bool arrays on one grid painted over each other, True or False where each is True; computed only where it is asked for.

    A volume has hundreds of times as many voxels as a patch: what was said is never put together on the whole grid.
    """

    def __init__(self, shape: Sequence[int], *layers: tuple[np.ndarray | Placed | None, bool]) -> None:
        self.shape = tuple(shape)
        self.ndim = len(self.shape)
        self.layers = [(array, value) for array, value in layers if array is not None]

    @functools.cached_property
    def occupied(self) -> Box | None:
        """A box outside of which all is False; None where all is."""
        return union(box_around(array) for array, value in self.layers if value)

    def within(self, box: Box) -> Layers:
        """The same seen from a box of the grid, whose first voxel becomes the first one; nothing is copied."""
        place = slices(box)
        parts = ((a.within(box) if isinstance(a, Placed) else a[place], value) for a, value in self.layers)
        return Layers(shape_of(box), *parts)

    def __getitem__(self, place: tuple[slice, ...]) -> np.ndarray:
        result = np.zeros(np.broadcast_to(False, self.shape)[place].shape, bool)
        for array, value in self.layers:
            result[np.asarray(array[place], bool)] = value
        return result


def box_around(array: np.ndarray | Placed | None) -> Box | None:
    """The smallest box around what is not 0; None for nothing. An array in Slicer's order is looked at in that order."""
    if array is None:
        return None
    if isinstance(array, Placed):
        inner = box_around(array.array)
        return None if inner is None else overlap(moved(inner, start_of(array.box)), whole(array.shape))
    if array.flags.c_contiguous:
        return smallest(array)
    box = smallest(array.T)
    return None if box is None else box[::-1]


@dataclass
class Said:
    """What a person said about an image, on its grid S: bool arrays, and what is known of the object.

    `belongs`, `does_not`: strokes and points. `region`: boxes and lassos, in which the object roughly lies, or None.
    `mask`: the object so far. `newest`: the box of what was said last. `log_odds`: a model's, float, or None.
    """

    belongs: np.ndarray | Layers
    does_not: np.ndarray | Layers
    mask: Any  # np.ndarray, or Layers where nobody writes to it
    newest: Box
    region: np.ndarray | Layers | None = None
    log_odds: Any = None  # likewise, or Placed

    @classmethod
    def nothing(cls, shape: Sequence[int]) -> Said:
        """Before the first stroke, from nothing."""
        return cls(np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool), whole(shape))

    def within(self, box: Box) -> Said:
        """The part inside a box, with a mask of its own that may be written to."""
        others = [None if array is None else within(array, box) for array in (self.region, self.log_odds)]
        mask, newest = np.array(self.mask[slices(box)], bool), moved(self.newest, [-low for low, _ in box])
        return Said(within(self.belongs, box), within(self.does_not, box), mask, newest, *others)


def within(array: Any, box: Box) -> Any:
    """A view of an array, of Layers or of Placed inside a box."""
    return array[slices(box)] if isinstance(array, np.ndarray) else array.within(box)


def patch_of(image: np.ndarray, said: Said, box: Box, size: Sequence[int]) -> np.ndarray:
    """The network's input: (image channels + PROMPT_CHANNELS, *size) float32. `image`: (C, *S)."""
    seen = standardised(cut(image, box, size, edge=True))
    nothing = np.zeros(tuple(size), np.float32)
    belongs, does_not = marked(said.belongs, box, size), marked(said.does_not, box, size)
    mask = cut(said.mask, box, size)
    region = nothing if said.region is None else marked(said.region, box, size)
    odds = nothing if said.log_odds is None else np.clip(cut(said.log_odds, box, size), -MOST_ODDS, MOST_ODDS)
    known = next((where for where in (belongs > 0, mask > 0.5, region > 0) if where.any()), None)
    likeness = nothing if known is None else likeness_to(seen, known)
    return np.stack([*seen, likeness, mask, belongs, does_not, region, odds])


def standardised(patch: np.ndarray) -> np.ndarray:
    """Each channel clipped to percentiles, mean 0 and deviation 1; a constant one becomes 0."""
    sampled = patch.reshape(len(patch), -1)[:, ::SAMPLED]
    low, high = (
        end.astype(np.float32).reshape(-1, *[1] * (patch.ndim - 1))
        for end in np.percentile(sampled, PERCENTILES, axis=1)
    )
    patch = np.clip(patch, low, high)
    axes = tuple(range(1, patch.ndim))
    patch -= patch.mean(axes, dtype=np.float64, keepdims=True).astype(np.float32)
    deviation = np.sqrt(np.square(patch).mean(axes, dtype=np.float64, keepdims=True))
    tiny = 1e-6 * np.maximum(1e-6, np.maximum(abs(low), abs(high)))  # rounding must not be blown up to noise
    return patch * np.where(deviation > tiny, 1 / np.maximum(deviation, tiny), 0).astype(np.float32)


def likeness_to(seen: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How common a voxel's value is among the known ones, 0 to 1: their smoothed histogram, the mean over channels."""
    result = np.zeros(known.shape, np.float32)
    for channel in seen:
        bins = ((channel + RANGE) * (BINS / (2 * RANGE))).astype(np.int64)
        np.clip(bins, 0, BINS - 1, out=bins)
        counts = np.convolve(np.bincount(bins[known], minlength=BINS), SMOOTHING, "same")
        result += (counts / counts.max()).astype(np.float32)[bins]
    return result / len(seen)
