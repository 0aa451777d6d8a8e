"""From a stroke to a mask with a promptable network: where it looks, and what of its answer is taken.

The network is any function from a patch (channels, *size) to log odds (*size). One connected region around what was said last
changes, and nothing else; strokes are honoured exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import SimpleITK as sitk

from ..image.box import Box, moved, overlap, slices, smallest, start_of, union
from .crop import ZOOM, back, box_on_array, cube, first_cube, grown_cube, inside, longest, reached, touches
from .prompt_input import BELONGS, MASK, REGION, Layers, Said, box_around, patch_of
from .refine import Refinement

MOST_GROWTHS = 4
SLACK = 1e-3  # readers differ in the last digit of a spacing: a whole number of cubes may not become one more
COARSE = 1.3405  # size of the patch's voxels, in the image's finest, from which on a finer look at the border pays
BAND = 4  # voxels of the finer patch around the border that may change
MOST_LOOKS = 4  # at the border: what a person waits for
DOUBT = 2.0  # log odds below which a voxel is doubtful
MAYBE = -3.0  # log odds from which on a first stroke's object may go on: where it does is seen in a larger cube
REGION_ZOOM = 1.6  # as ZOOM, for boxes and lassos, which go around an object
BESIDE = 0.15  # of a region's sides: how far an object may lie beside it, as people draw it

Network = Callable[[np.ndarray], np.ndarray]


def prompted(
    image: np.ndarray, said: Said, spacing: Sequence[float], network: Network, size: Sequence[int], fine: bool = False
) -> Refinement:
    """What the mask becomes after the newest thing said. `image`: (C, *S); the arguments are not written to.

    With `fine` the border is looked at once more at twice the scale where the patch is coarser than the image.
    """
    shape = said.mask.shape
    box = first_cube(said.newest, spacing, shape, zoom_of(said))
    bound = said.newest if goes_around(said.newest, shape) and not is_stroked(said) else None
    for step in range(MOST_GROWTHS + 1):
        patch = patch_of(image, said, box, size)
        odds = network(patch)
        change = near_newest(odds > 0, patch, said, box, bound)
        around = box_on_array(change, box)
        if bound or step == MOST_GROWTHS or around is None:
            break
        # inside a large object nothing says how far it goes, and the network takes it for a small one rather
        farther = change if patch[MASK].any() else near_newest(odds > MAYBE, patch, said, box)
        if not touches(farther, box, shape):
            break
        box = grown_cube(box, around, spacing, shape)
    found = answered(odds, change, said, box)
    coarseness = longest(box, np.asarray(spacing, float)) / max(size) / min(spacing)
    if fine and around is not None and coarseness > COARSE:
        found = mended(image, said, spacing, network, size, found, odds, (box, around))
    return with_all_strokes(found, said)


def with_all_strokes(found: Refinement, said: Said) -> Refinement:
    """`found` with strokes elsewhere that the mask does not follow: what was said before stays true, wherever it is."""
    parts = [found.box]
    for strokes, value in ((said.belongs, True), (said.does_not, False)):
        place = strokes.occupied if isinstance(strokes, Layers) else box_around(strokes)
        known = place and overlap(place, found.box)
        if place is None or known == place:
            continue
        wrong = strokes[slices(place)] & (said.mask[slices(place)] != value)
        if known is not None:
            wrong[slices(known, start_of(place))] = False
        inner = smallest(wrong)
        if inner is not None:
            parts.append(moved(inner, start_of(place)))
    if len(parts) == 1:
        return found
    part = union(parts)
    assert part is not None
    mask = np.array(said.mask[slices(part)], bool)
    mask[slices(found.box, start_of(part))] = found.mask
    return Refinement(part, (mask | said.belongs[slices(part)]) & ~said.does_not[slices(part)])


def mended(
    image: np.ndarray,
    said: Said,
    spacing: Sequence[float],
    network: Network,
    size: Sequence[int],
    found: Refinement,
    odds: np.ndarray,
    where: tuple[Box, Box],
) -> Refinement:
    """`found` with the border of the change looked at again, in cubes half as long as the one that it was found in.

    `odds`: the network's answer there. `where`: that cube, and the box around the change. Only voxels near the border change,
    and only inside the cube; of many cubes only those are looked at where the answer was most doubtful.
    """
    steps, (box, around), shape = np.asarray(spacing, float), where, said.mask.shape
    looks = tiles(around, longest(box, steps) / 2, steps, shape)
    outer = union([found.box, *(inside(look, shape) for look in looks)])
    assert outer is not None
    back_by = [-low for low in start_of(outer)]
    later, image, inner = said.within(outer), image[(slice(None), *slices(outer))], moved(found.box, back_by)
    later.mask[slices(inner)] = found.mask
    for look in most_doubtful(looks, odds, box):
        tile = moved(look, back_by)
        patch = patch_of(image, later, tile, size)
        band = near_border(patch[MASK] > 0.5)
        if not band.any():
            continue
        new = network(patch)
        better = answered(new, band & ((new > 0) != (patch[MASK] > 0.5)), later, tile)
        common = overlap(better.box, inner)
        if common is not None:
            later.mask[slices(common)] = better.mask[slices(common, start_of(better.box))]
    return Refinement(found.box, later.mask[slices(inner)])


def most_doubtful(looks: list[Box], odds: np.ndarray, box: Box) -> list[Box]:
    """The MOST_LOOKS cubes, in their order, in which the answer for `box` (log odds, on its patch) is most doubtful."""
    doubtful = np.abs(odds) < DOUBT
    counts = []
    for look in looks:
        part = []
        for (low, high), (first, last), side in zip(look, box, odds.shape, strict=True):
            scale = side / (last - first)
            part.append(slice(max(0, int((low - first) * scale)), max(0, int(np.ceil((high - first) * scale)))))
        counts.append(int(doubtful[tuple(part)].sum()))
    chosen = sorted(range(len(looks)), key=lambda n: -counts[n])[:MOST_LOOKS]
    return [looks[n] for n in sorted(chosen)]


def tiles(around: Box, edge: float, steps: np.ndarray, shape: Sequence[int]) -> list[Box]:
    """Cubes with this edge (mm), side by side, that cover a box."""
    parts = []
    for (low, high), step, n in zip(around, steps, shape, strict=True):
        count = 1 if n == 1 else max(1, int(np.ceil((high - low) * step / edge - SLACK)))
        ends = np.round(np.linspace(low, high, count + 1)).astype(int)
        parts.append([(int(a), max(int(a) + 1, int(b))) for a, b in itertools.pairwise(ends)])
    return [cube(middle, edge, steps, shape) for middle in itertools.product(*parts)]


def near_border(mask: np.ndarray) -> np.ndarray:
    """Voxels of a bool array within BAND of a border between its values; BAND in voxels, along the axes."""
    return widened(mask) & widened(~mask)


def widened(mask: np.ndarray) -> np.ndarray:
    """Where a bool array has any True within BAND voxels along each axis (a box); dilation by doubling steps."""
    for axis, n in enumerate(mask.shape):
        lines = np.moveaxis(mask, axis, 0)
        wide = np.zeros((n + 2 * BAND, *lines.shape[1:]), bool)
        wide[BAND : BAND + n] = lines
        seen = 1  # each voxel of `wide` tells of so many, from itself on
        while seen < 2 * BAND + 1:
            step = min(seen, 2 * BAND + 1 - seen)
            wide = wide[:-step] | wide[step:]
            seen += step
        mask = np.moveaxis(wide, 0, axis)
    return mask


def zoom_of(said: Said) -> float:
    """Edge of the first cube in lengths of what was said last."""
    return ZOOM if is_stroked(said) else REGION_ZOOM


def is_stroked(said: Said) -> bool:
    """Whether there are strokes where something was said last; if not, it was a box or a lasso."""
    place = slices(said.newest)
    return bool(said.belongs[place].any() or said.does_not[place].any())


def goes_around(part: Box, shape: Sequence[int]) -> bool:
    """Whether a box or a lasso goes around its object along all axes: a box, or a lasso in a picture."""
    return all(n == 1 or high - low > 1 for (low, high), n in zip(part, shape, strict=True))


def on_patch(part: Sequence[tuple[float, float]], box: Box, size: Sequence[int]) -> tuple[slice, ...]:
    """Where the patch of `box` shows a part of the array's grid: all voxels that it touches, at least one along each axis."""
    window = []
    for (low, high), (first, last), side in zip(part, box, size, strict=True):
        scale = side / (last - first)
        start = int(np.clip((low - first) * scale, 0, side - 1))
        window.append(slice(start, max(start + 1, int(np.ceil((high - first) * scale)))))
    return tuple(window)


def near_newest(new: np.ndarray, patch: np.ndarray, said: Said, box: Box, bound: Box | None = None) -> np.ndarray:
    """Where `new` (bool, on the patch) differs from the mask in regions that hang together with what was said last.

    `bound`: what goes around the object, if anything does; beyond it and a little more nothing changes.
    """
    change = new != (patch[MASK] > 0.5)
    if bound is not None:
        wide = [(low - BESIDE * (high - low), high + BESIDE * (high - low)) for low, high in bound]
        near = np.zeros(change.shape, bool)
        near[on_patch(wide, box, change.shape)] = True
        change &= near
    seeds, window = np.zeros(new.shape, bool), on_patch(said.newest, box, new.shape)
    seeds[window] = patch[(slice(BELONGS, REGION + 1), *window)].any(0)
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
    whole = inside(box, said.mask.shape)
    strokes = [getattr(said_so, "occupied", whole) for said_so in (said.belongs, said.does_not)]
    places = [reached(change, box, said.mask.shape), *(place and overlap(place, whole) for place in strokes)]
    part = union(places) or tuple((low, low + 1) for low, _ in whole)
    place = slices(part)
    mask = np.where(back(change, box, part) > 0, back(odds, box, part) > 0, said.mask[place])
    mask |= said.belongs[place]
    mask &= ~said.does_not[place]
    return Refinement(part, mask)
