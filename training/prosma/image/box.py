"""Boxes of voxels: a pair (low, high), half open, for each axis, in the order of the axes of the array that they lie in.

The Slicer module uses these too. Only `span` and `smallest` need numpy, for the masks that they are given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

Box = tuple[tuple[int, int], ...]


def whole(shape: Sequence[int]) -> Box:
    """The box of all voxels of an array of this shape."""
    return placed([0] * len(shape), shape)


def placed(start: Sequence[int], shape: Sequence[int]) -> Box:
    """The box of an array of this shape whose first voxel lies at `start`."""
    return tuple((int(first), int(first) + int(n)) for first, n in zip(start, shape, strict=True))


def start_of(box) -> tuple[int, ...]:
    """Index of the box's first voxel."""
    return tuple(low for low, _ in box)


def shape_of(box) -> tuple[int, ...]:
    """Number of voxels along each axis."""
    return tuple(high - low for low, high in box)


def slices(box, start: Sequence[int] = (0, 0, 0)) -> tuple[slice, ...]:
    """The box as an index into an array whose first voxel lies at `start`."""
    return tuple(slice(low - first, high - first) for (low, high), first in zip(box, start, strict=True))


def slices_kji(box, start: Sequence[int] = (0, 0, 0)) -> tuple[slice, ...]:
    """As `slices`, for a box and a start along I, J, K and an array (K, J, I), as Slicer has them."""
    return slices(tuple(box)[::-1], tuple(start)[::-1])


def moved(box, steps: Sequence[int]) -> Box:
    """The box with so many voxels added to its indices along each axis."""
    return tuple((low + step, high + step) for (low, high), step in zip(box, steps, strict=True))


def union(boxes: Iterable) -> Box | None:
    """The smallest box around all boxes; those that are None do not count, and None where there are no others."""
    boxes = [box for box in boxes if box is not None]
    if not boxes:
        return None
    return tuple((min(low for low, _ in pairs), max(high for _, high in pairs)) for pairs in zip(*boxes, strict=True))


def overlap(one, other) -> Box | None:
    """What two boxes have in common; None for nothing."""
    common = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return common if all(low < high for low, high in common) else None


def slabs(box, voxels: int) -> Iterator[Box]:
    """Parts of a box along its last axis, in order, each of about so many voxels."""
    *others, (first, last) = box
    step = max(1, voxels // max(1, math.prod(shape_of(others))))
    for start in range(first, last, step):
        yield (*others, (start, min(start + step, last)))


def grown(box, margins: Sequence[int], shape: Sequence[int]) -> Box:
    """The box with so many voxels more on both sides along each axis, within an array of this shape."""
    parts = zip(box, margins, shape, strict=True)
    return tuple((max(0, low - int(more)), min(int(n), high + int(more))) for (low, high), more, n in parts)


def span(seen) -> tuple[int, int] | None:
    """From the first to behind the last True of a mask along one axis; None where all are False."""
    import numpy as np

    where = np.flatnonzero(seen)
    return (int(where[0]), int(where[-1]) + 1) if where.size else None


def smallest(mask) -> Box | None:
    """The smallest box around a mask's voxels (bounding box); None where there are none."""
    box, part = [], mask
    for axis in range(mask.ndim):
        found = span(part.any(axis=tuple(n for n in range(mask.ndim) if n != axis)))
        if found is None:
            return None
        box.append(found)
        part = part[(slice(None),) * axis + (slice(*found),)]
    return tuple(box)
