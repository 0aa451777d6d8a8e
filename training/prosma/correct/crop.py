"""Where a promptable network looks: a cube of patient space around what was said last, as a box of voxels.

A box may reach beyond the array. The cube has about the same length in mm along each axis; the network sees it resampled to
its patch, so that objects of any size fill about the same share of what it sees. Axes may stand in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..image.box import Box, overlap, shape_of, slices, smallest
from ..image.resampling import AxisWeights, resample, resample_far, resample_known

ZOOM = 2.5  # edge of the first cube, in lengths of what was said
LEAST_VOXELS = 32  # edge of the smallest cube, in voxels of the finest axis
GROWTH = 1.5  # of the edge, where the change reaches the patch's border
ROOM = 1.25  # edge of a cube at least, in lengths of the change that it should hold
HALF = 0.501  # as in `resampled_size`: readers differ in the last digit of a spacing, and halves are frequent
FAR = 8  # lengths of an array along an axis, from which on what lies beyond it is not made: a cube around a needle is large
TOUCH = 0.01  # share of a face of the patch that may change without being taken for a touch


def first_cube(said: Box, spacing: Sequence[float], shape: Sequence[int], zoom: float = ZOOM) -> Box:
    """The cube around the box of what was said, with an edge of `zoom` times its length, in an array of this shape."""
    steps = np.asarray(spacing, float)
    edge = max(zoom * longest(said, steps), LEAST_VOXELS * steps[np.asarray(shape) > 1].min(initial=np.inf))
    return cube(said, edge if np.isfinite(edge) else 1.0, steps, shape)


def grown_cube(box: Box, change: Box, spacing: Sequence[float], shape: Sequence[int]) -> Box:
    """A larger cube around the box of what changes in a cube."""
    steps = np.asarray(spacing, float)
    edge = max(GROWTH * longest(box, steps), ROOM * longest(change, steps))
    return cube(change, edge, steps, shape)


def longest(box: Box, spacing: np.ndarray) -> float:
    """The longest side of a box in mm."""
    return float((np.array(shape_of(box)) * spacing).max())


def cube(around: Box, edge: float, spacing: np.ndarray, shape: Sequence[int]) -> Box:
    """The cube with this edge (mm) and the box `around` in its middle, moved into the array as far as it fits there.

    An axis with a single voxel keeps it.
    """
    box = []
    for (low, high), step, size in zip(around, spacing, shape, strict=True):
        count = max(1, int(np.floor(edge / step + HALF))) if size > 1 else 1
        first = round((low + high - count) / 2)
        first = min(max(first, 0), size - count) if count <= size else (size - count) // 2
        box.append((first, first + count))
    return tuple(box)


def inside(box: Box, shape: Sequence[int]) -> Box:
    """The part of a box that lies in an array of this shape."""
    return tuple((max(0, low), min(int(size), high)) for (low, high), size in zip(box, shape, strict=True))


def cut(array: Any, box: Box, size: Sequence[int], edge: bool = False) -> np.ndarray:
    """The last axes of `array` inside the box, resampled to `size`, float32. Beyond the array: 0, or with `edge` its edge.

    `array`: a numpy array, or `prompt_input.Placed` or Layers.
    """
    lead = array.ndim - len(box)
    shape = array.shape[lead:]
    known = inside(box, shape)
    if hasattr(array, "occupied"):
        return cut_of_few(array, box, size)
    part = array[(slice(None),) * lead + slices(known)]
    missing = [(max(0, -low), max(0, high - n)) for (low, high), n in zip(box, shape, strict=True)]
    for axis in by_cost(shape_of(box), size):  # whole rows first, in Slicer's order: three times as fast
        if sum(missing[axis]) > FAR * part.shape[lead + axis]:
            part = resample_far(part, lead + axis, shape_of(box)[axis], size[axis], missing[axis][0], edge)
            continue
        if any(missing[axis]):  # one axis at a time: a cube around a thin array is large
            around = [missing[axis] if n == lead + axis else (0, 0) for n in range(array.ndim)]
            part = np.pad(part, around, mode="edge" if edge else "constant")
        steps = [n if other != axis else size[axis] for other, n in enumerate(part.shape[lead:])]
        part = resample(part, steps)
    return np.asarray(part, np.float32)


def by_cost(shape: Sequence[int], size: Sequence[int]) -> list[int]:
    """The axes, in the order in which they are resampled: that which shrinks most first, of equal ones the last."""
    return sorted(range(len(size)), key=lambda axis: (size[axis] / shape[axis], -axis))


def cut_of_few(layers: Any, box: Box, size: Sequence[int]) -> np.ndarray:
    """`cut` of Layers: only the part that holds something is resampled."""
    known = layers.occupied and overlap(layers.occupied, box)
    if known is None:
        return np.zeros(tuple(size), np.float32)
    part = layers[slices(known)].astype(np.float32)
    for axis in by_cost(shape_of(box), size):
        low, high = box[axis]
        part = resample_known(part, axis, high - low, size[axis], known[axis][0] - low)
    return part


def marked(mask: Any, box: Box, size: Sequence[int]) -> np.ndarray:
    """Where a bool mask (array or Layers) has any voxel, on the patch's grid, 0 or 1; thin strokes are not averaged away."""
    shape = mask.shape
    known: Box | None = inside(box, shape)
    if hasattr(mask, "occupied"):
        known = mask.occupied and overlap(mask.occupied, box)
        if known is None:
            return np.zeros(tuple(size), np.float32)
    assert known is not None
    result = mask[slices(known)]
    for axis, ((low, high), (first, last), side) in enumerate(zip(box, known, size, strict=True)):
        count = high - low
        place = np.arange(first, last) - low
        if count <= side:  # each voxel of the patch takes the one it lies in
            index = np.floor((np.arange(side) + 0.5) * count / side).astype(int) - place[0]
            there = (index >= 0) & (index < len(place))
            result = np.take(result, np.clip(index, 0, len(place) - 1), axis)
            result = result & np.expand_dims(there, tuple(a for a in range(len(shape)) if a != axis))
        else:  # each voxel marks the one of the patch that it lies in
            target = (place * side) // count
            starts = np.flatnonzero(np.diff(target, prepend=-1))
            wide = np.zeros([side if a == axis else m for a, m in enumerate(result.shape)], bool)
            wide[(slice(None),) * axis + (target[starts],)] = np.logical_or.reduceat(result, starts, axis)
            result = wide
    return result.astype(np.float32)


def back(values: np.ndarray, box: Box, part: Box) -> np.ndarray:
    """Values on the patch of a box brought back to a part of it on the array's grid, linearly."""
    return resample(values, shape_of(box), slices(part, [low for low, _ in box]))


def reached(change: np.ndarray, box: Box, shape: Sequence[int]) -> Box | None:
    """The voxels of an array of this shape to which a change (bool, on the patch of a box) is brought `back`, as a box."""
    found = smallest(change)
    if found is None:
        return None
    sides = []
    for (first, last), (low, high), side in zip(found, box, change.shape, strict=True):
        rows = AxisWeights.make(side, high - low).touched(first, last)
        sides.append((low + rows.start, low + rows.stop))
    return overlap(tuple(sides), inside(box, shape))


def touches(change: np.ndarray, box: Box, shape: Sequence[int]) -> bool:
    """Whether a change (bool, on the patch) reaches a face of the cube beyond which the array goes on."""
    for axis, ((low, high), n) in enumerate(zip(box, shape, strict=True)):
        for end, goes_on in ((0, low > 0), (-1, high < n)):
            face = change[(slice(None),) * axis + (end,)]
            if goes_on and n > 1 and np.count_nonzero(face) > TOUCH * face.size:
                return True
    return False


def box_on_array(change: np.ndarray, box: Box) -> Box | None:
    """The box, in voxels of the array, around a change on the patch; None where nothing changes."""
    found = smallest(change)
    if found is None:
        return None
    ends = zip(found, box, change.shape, strict=True)
    return tuple(
        (low + int(np.floor(first * (high - low) / side)), low + int(np.ceil(last * (high - low) / side)))
        for (first, last), (low, high), side in ends
    )
