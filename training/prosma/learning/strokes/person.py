"""A simulated person who strokes an image: first inside the object, then where the mask is most wrong.

The ways of speaking follow Wong et al., ScribblePrompt (ECCV 2024), and Isensee et al., nnInteractive (2025): curved strokes
on one slice, with a brush that mostly stays in the region, boxes, lassos, and remarks that are now and then a little wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from ...correct.prompt_input import Said
from ...image.box import Box, slices, smallest

POINTS = 0.12  # share of remarks that are points
REGIONS = 0.12  # share of first remarks that are boxes or lassos
SPILLS = 0.2  # share of strokes whose brush may paint outside the region
WRONG = 0.05  # share of strokes that lie a voxel or two beside where they were meant
LARGEST = 0.8  # share of strokes that go to the largest wrong region, the others to any, by its size
USUAL_VIEW = (0.6, 0.85)  # share of strokes on the slices as they were acquired: cubic voxels, thick slices


@dataclass(frozen=True)
class Remark:
    """What was said at once: `voxels` (bool) in a `box` of the image's grid; a stroke, or with `region` a box or a lasso."""

    box: Box
    voxels: np.ndarray
    belongs: bool = True
    region: bool = False

    def said_in(self, said: Said) -> None:
        """Write it down in `said`; what is said last is true where remarks differ."""
        place, said.newest = slices(self.box), self.box
        if self.region:
            if said.region is None:
                said.region = np.zeros(said.mask.shape, bool)
            said.region[place] |= self.voxels
            return
        this, other = (said.belongs, said.does_not) if self.belongs else (said.does_not, said.belongs)
        this[place] |= self.voxels
        other[place] &= ~self.voxels


def next_remark(truth: np.ndarray, mask: np.ndarray, spacing, rng: Generator, first: bool) -> Remark | None:
    """What a person says about `mask` who has `truth` in mind, both bool (I, J, K); None where nothing is wrong."""
    missing, surplus = truth & ~mask, mask & ~truth
    found = wrong_region(missing, surplus, rng)
    if found is None:
        return None
    part, box, belongs = found
    axis = viewed_axis(part.shape, mask.shape, spacing, rng)
    areas = part.sum(tuple(n for n in range(3) if n != axis)).astype(float)
    number = int(rng.choice(len(areas), p=areas**2 / (areas**2).sum()))
    plane = np.take(part, number, axis)
    steps = np.array([s for n, s in enumerate(spacing) if n != axis], float)
    if first and belongs and rng.random() < REGIONS:
        if rng.random() < 0.4 and min(part.shape) > 1:
            return boxed(box, mask.shape, rng)
        return on_grid(lassoed(plane, steps, rng), box, axis, number, mask.shape, region=True)
    stroke = scribble(plane, steps, rng)
    if rng.random() < WRONG:
        stroke = np.roll(stroke, rng.integers(-2, 3, 2), (0, 1))
    return on_grid(stroke, box, axis, number, mask.shape, belongs=belongs)


def wrong_region(missing: np.ndarray, surplus: np.ndarray, rng: Generator) -> tuple[np.ndarray, Box, bool] | None:
    """A connected wrong region: the voxels in its box, the box, and whether they are missing."""
    regions = []
    for wrong, belongs in ((missing, True), (surplus, False)):
        box = smallest(wrong)
        if box is None:
            continue
        parts, count = ndimage.label(wrong[slices(box)])
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        number = int(sizes.argmax()) if rng.random() < LARGEST else int(rng.choice(count, p=sizes / sizes.sum()))
        regions.append((int(sizes[number]), parts == number + 1, box, belongs))
    if not regions:
        return None
    _, voxels, box, belongs = max(regions, key=lambda region: region[0])
    inner = smallest(voxels)
    assert inner is not None
    outer = tuple((low + a, low + b) for (a, b), (low, _) in zip(inner, box, strict=True))
    return voxels[slices(inner)], outer, belongs


def viewed_axis(part, shape, spacing, rng: Generator) -> int:
    """The axis across which the person looks: that of a single slice, mostly that of thick slices, else any."""
    if 1 in shape:
        return list(shape).index(1)
    thick = int(np.argmax(spacing))
    usual = USUAL_VIEW[int(max(spacing) > 1.5 * min(spacing))]
    return thick if rng.random() < usual else int(rng.integers(3))


def on_grid(stroke: np.ndarray, box: Box, axis: int, number: int, shape, **kind) -> Remark:
    """A stroke on a plane, which may be wider than the box's side on both ends alike, as a remark on the image's grid."""
    place, cropped = [], stroke
    sides = iter(range(2))
    for n, (low, high) in enumerate(box):
        if n == axis:
            place.append((low + number, low + number + 1))
            continue
        side = next(sides)
        margin = (stroke.shape[side] - (high - low)) // 2
        first, last = max(0, low - margin), min(shape[n], low - margin + stroke.shape[side])
        start = first - (low - margin)
        cropped = np.take(cropped, range(start, start + last - first), side)
        place.append((first, last))
    voxels = np.expand_dims(cropped, axis)
    inner = smallest(voxels)
    if inner is None:  # it lies outside the image: the middle of the plane stands for it
        return Remark(tuple(place), np.ones(voxels.shape, bool), **kind)
    tight = tuple((low + a, low + b) for (low, _), (a, b) in zip(place, inner, strict=True))
    return Remark(tight, voxels[slices(inner)], **kind)


def scribble(plane: np.ndarray, spacing: np.ndarray, rng: Generator) -> np.ndarray:
    """A curved stroke or a point inside the largest part of a plane (bool), in an array that is wider by 2 on each side."""
    plane = np.pad(plane, 2)
    depth = ndimage.distance_transform_edt(plane, sampling=spacing)
    parts, _ = ndimage.label(plane, np.ones((3, 3)))
    plane = parts == parts.flat[int(depth.argmax())]
    depth = depth * plane
    rows = np.argwhere(depth >= rng.uniform(0.15, 0.7) * depth.max())
    start, end = farther_pair(rows, spacing, rng)
    line = np.zeros(plane.shape, bool)
    if rng.random() < POINTS:
        line[tuple(start)] = True
        radius = rng.uniform(0, 1.2) * spacing.min()
    else:
        line[tuple(curve(start, end, plane.shape, rng).T)] = True
        line &= plane
        radius = rng.uniform(0.05, 0.6) * depth.max()
    if not line.any():
        line[tuple(start)] = True
    stroke = ndimage.distance_transform_edt(~line, sampling=spacing) <= radius
    return stroke if rng.random() < SPILLS else stroke & plane


def farther_pair(rows: np.ndarray, spacing: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two of the points (n, 2): of a few random pairs one that is far apart, as people stroke along what they mean."""
    pairs = rows[rng.integers(len(rows), size=(int(rng.integers(1, 9)), 2))]
    lengths = np.linalg.norm((pairs[:, 0] - pairs[:, 1]) * spacing, axis=1)
    start, end = pairs[int(lengths.argmax())]
    return start, start + (end - start) * rng.uniform(0.5, 1.0)


def curve(start: np.ndarray, end: np.ndarray, shape, rng: Generator) -> np.ndarray:
    """Pixels (n, 2) of a bent line, a quadratic Bezier curve."""
    along = end - start
    middle = (start + end) / 2 + rng.uniform(-0.3, 0.3) * np.array([-along[1], along[0]])
    t = np.linspace(0, 1, 2 * int(np.abs(along).max()) + 2)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    return np.clip(np.round(points).astype(int), 0, np.array(shape) - 1)


def boxed(box: Box, shape, rng: Generator) -> Remark:
    """A box around an object whose faces lie up to a tenth of its length beside it."""
    sides = []
    for (low, high), n in zip(box, shape, strict=True):
        first, last = np.round([low, high] + rng.uniform(-0.1, 0.1, 2) * (high - low)).astype(int)
        first = int(np.clip(first, 0, n - 1))
        sides.append((first, int(np.clip(last, first + 1, n))))
    return Remark(tuple(sides), np.ones([high - low for low, high in sides], bool), region=True)


def lassoed(plane: np.ndarray, spacing: np.ndarray, rng: Generator) -> np.ndarray:
    """The inside of a lasso, or of a box, around the voxels of a plane (bool), in a wider array."""
    extent = max(np.ptp(np.argwhere(plane), axis=0) * spacing)
    wide = np.pad(plane, int(np.ceil(0.15 * extent / spacing.min())) + 1)
    if rng.random() < 0.5:
        margin = rng.uniform(0, 0.12) * extent
        return ndimage.distance_transform_edt(~wide, sampling=spacing) <= margin
    result = np.zeros(wide.shape, bool)
    box = smallest(wide)
    assert box is not None
    more = np.round(rng.uniform(0, 0.1) * extent / spacing).astype(int)
    result[tuple(slice(max(0, low - m), high + m) for (low, high), m in zip(box, more, strict=True))] = True
    return result
