"""A Gaussian-weighted sliding window whose memory does not grow with the volume's length.

Tiles run band by band along one axis. Scores of the tiles are added in a band as thick as one tile; rows that no later
tile touches are divided by their weight and delivered at once. Tile positions form a grid and the window is a product
of one-dimensional ones, so the sum of weights is a product too and needs no array. Needs numpy alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import Cancelled
from .intensity import pad_to_patch

LARGEST_OVERLAP = 0.9


def tile_starts(size: int, patch: int, overlap: float) -> list[int]:
    """First samples of the tiles along one axis: evenly spread, at least `overlap` (share of a tile) in common."""
    if size <= patch:
        return [0]
    step = max(1.0, patch * (1 - overlap))
    count = math.ceil((size - patch) / step - 1e-9) + 1
    return [round(n * (size - patch) / (count - 1)) for n in range(count)]


def gaussian_window(length: int) -> np.ndarray:
    """Weights of a tile along one axis: 1 in the middle, standard deviation length / 8, at least 0.001."""
    place = np.arange(length) - (length - 1) / 2
    return np.maximum(np.exp(-0.5 * (place / (length / 8)) ** 2), 1e-3).astype(np.float32)


@dataclass(frozen=True)
class TilePlan:
    """Where the tiles of a volume lie. `size` is the volume's spatial shape after padding to at least one tile.

    `starts[n]` and `windows[n]` are the tiles' first samples and weights along axis n, `axis` is the one that the band
    moves along.
    """

    size: tuple[int, ...]
    patch: tuple[int, ...]
    starts: tuple[list[int], ...]
    windows: tuple[np.ndarray, ...]
    axis: int

    @staticmethod
    def make(size: Sequence[int], patch: Sequence[int], overlap: float, flat: Sequence[int] = ()) -> TilePlan:
        """Tiles of shape `patch` over a volume of spatial shape `size`; axes in `flat` are not blended.

        ValueError for an overlap outside 0 ... LARGEST_OVERLAP.
        """
        if not 0 <= overlap <= LARGEST_OVERLAP:
            raise ValueError(f"The overlap of tiles is a share from 0 to {LARGEST_OVERLAP}, not {overlap}.")
        padded = tuple(max(n, p) for n, p in zip(size, patch, strict=True))
        starts = tuple(
            tile_starts(n, p, 0 if axis in flat else overlap)
            for axis, (n, p) in enumerate(zip(padded, patch, strict=True))
        )
        windows = tuple(np.ones(p, np.float32) if n in flat else gaussian_window(p) for n, p in enumerate(patch))
        axis = min(range(len(padded)), key=lambda n: (math.prod(padded) // padded[n] * patch[n], n not in flat))
        return TilePlan(padded, tuple(patch), starts, windows, axis)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.prod(len(starts) for starts in self.starts)

    def total_weight(self, axis: int) -> np.ndarray:
        """Sum of the tiles' weights at each sample of an axis."""
        total = np.zeros(self.size[axis], np.float32)
        for start in self.starts[axis]:
            total[start : start + self.patch[axis]] += self.windows[axis]
        return total


def slide(
    array: np.ndarray,
    plan: TilePlan,
    planes: int,
    predict: Callable[[np.ndarray], np.ndarray],
    deliver: Callable[[int, np.ndarray], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Run `predict` on every tile and deliver the blended scores.

    `array` is (C, *S). `predict` takes a tile (C, *patch) and gives `planes` scores for each voxel, float32
    (planes, *patch), which may be overwritten. `deliver(first, block)` gets finished rows in order: block is
    (planes, *S) with only the rows from `first` on along `plan.axis`; it is valid during the call only.
    `progress(done, total)` counts tiles; `cancelled()` is asked before each one. Raises Cancelled.
    """
    padded, inside = pad_to_patch(array, plan.patch)
    weight = outer_product(plan.windows)
    axis = plan.axis
    band_shape = [plan.patch[n] if n == axis else plan.size[n] for n in range(len(plan.size))]
    band = np.zeros((planes, *band_shape), np.float32)
    others = [[0] if n == axis else plan.starts[n] for n in range(len(plan.size))]
    tops = [*plan.starts[axis], plan.size[axis]]
    done = 0
    for top, following in itertools.pairwise(tops):
        for corner in itertools.product(*others):
            if cancelled():
                raise Cancelled
            place = [slice(start, start + length) for start, length in zip(corner, plan.patch, strict=True)]
            tile = [slice(top, top + plan.patch[n]) if n == axis else part for n, part in enumerate(place)]
            scores = predict(padded[(slice(None), *tile)])
            scores *= weight
            band[(slice(None), *place)] += scores
            done += 1
            progress(done, plan.count)
        _finish_rows(band, plan, top, following - top, inside, deliver)
        _move_band(band, axis, following - top)


def outer_product(windows: Sequence[np.ndarray]) -> np.ndarray:
    """The product of one-dimensional windows as an array with one axis for each."""
    result = np.ones((), np.float32)
    for window in windows:
        result = result[..., None] * window
    return result


def _rows(axis: int, start: int, stop: int | None) -> tuple[slice, ...]:
    """Index that takes rows of spatial axis `axis` of an array (planes, *S)."""
    return (*(slice(None),) * (axis + 1), slice(start, stop))


def _finish_rows(band: np.ndarray, plan: TilePlan, top: int, count: int, inside: tuple[slice, ...], deliver) -> None:
    """Delivers the band's first `count` rows, which lie at `top`, without the padding."""
    keep = inside[plan.axis]
    first, last = max(top, keep.start), min(top + count, keep.stop)
    if first >= last:
        return
    block = band[_rows(plan.axis, first - top, last - top)]
    block = block[(slice(None), *(slice(None) if n == plan.axis else part for n, part in enumerate(inside)))]
    for n, part in enumerate(inside):
        total = plan.total_weight(n)[slice(first, last) if n == plan.axis else part]
        block *= (1 / total).reshape([-1 if m == n else 1 for m in range(len(inside))])
    deliver(first - keep.start, block)


def _move_band(band: np.ndarray, axis: int, count: int) -> None:
    """Moves the band on by `count` rows, empty ones at its end. Plane by plane: overlapping copies take a temporary."""
    thickness = band.shape[axis + 1]
    for plane in band[:, None]:
        if count < thickness:
            plane[_rows(axis, 0, thickness - count)] = plane[_rows(axis, count, None)]
        plane[_rows(axis, max(0, thickness - count), None)] = 0
