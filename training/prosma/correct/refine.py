"""Refine: a stroke that says "belongs" or "does not belong" moves a mask's border in its neighbourhood.

For every voxel near the stroke that is on the other side, a small network (`stroke_network`) weighs what is known there
(`stroke_features`). It was fitted on simulated strokes on training cases by Testing/benchmarks/fit_refine.py; nothing is
trained at run time. Needs NumPy and SimpleITK alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import UserFacingError
from ..image.box import Box, grown, slices, smallest
from .stroke_features import Scene, distance_to, evidence, log_odds, standardised
from .stroke_network import load_networks, logits

REACH = 4.0  # how far a stroke reaches, in radii of its brush
LEAST_REACH = 12.0  # in voxels; errors at a border are long and thin, so that a stroke in them is often narrow
MARGIN = 0.5  # log odds that must speak for a change: strokes shall improve a mask each time, not only on the average


class StrokeError(UserFacingError):
    """Strokes, or arrays around them, that no border can be moved by."""


@dataclass(frozen=True)
class Refinement:
    """The part of a mask that a stroke may have changed.

    `box`: ((k0, k1), (j0, j1), (i0, i1)), half open. `mask`: bool, the new mask inside it. Outside nothing changes.
    """

    box: Box
    mask: np.ndarray

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index into an array (K, J, I)."""
        return slices(self.box)

    def on(self, mask: np.ndarray) -> np.ndarray:
        """A copy of the whole mask with this change."""
        result = np.array(mask, bool)
        result[self.slices] = self.mask
        return result


def refine(
    mask: np.ndarray,
    image: np.ndarray,
    strokes_add: np.ndarray | None,
    strokes_remove: np.ndarray | None,
    spacing,
    probability: np.ndarray | None = None,
    radius_mm: float | None = None,
    fixed: np.ndarray | None = None,
) -> Refinement:
    """Move the border of one segment by strokes. The same input gives the same result; no input is written to.

    Args:
        mask: the segment, bool (K, J, I); K = 1 for a single slice.
        image: numbers, (K, J, I), or (C, K, J, I) for colours and several channels.
        strokes_add, strokes_remove: voxels stroked as "belongs" and "does not belong", bool (K, J, I), or None. They
            are honoured exactly; where both say something, "does not belong" wins.
        spacing: voxel size along K, J, I in mm (for photographs 1, then millimetres are pixels everywhere here).
        probability: the network's for this segment, uint8 0 ... 255 (K, J, I). Without it image and strokes decide.
        radius_mm: how far from a stroke voxels may change; by default four times the stroke's own half width. At least
            twelve voxels.
        fixed: voxels of earlier strokes, bool (K, J, I): only a stroke may change them, and they speak for their own
            side around them.

    A stroke never changes voxels against its own meaning: "belongs" only adds, "does not belong" only removes. Only the
    part of the arrays around the strokes is read, so they may be memory-mapped. Raises StrokeError, with a sentence for
    a person, for arrays that do not fit together and where nothing was stroked.

    >>> mask, image, stroke = (np.zeros((1, 60, 60), kind) for kind in (bool, np.float32, bool))
    >>> image[0, 20:40, 20:40] = 100  # a bright square, of which the mask lacks the right half
    >>> mask[0, 20:40, 20:30] = True
    >>> stroke[0, 28:32, 30:38] = True
    >>> refined = refine(mask, image, stroke, None, spacing=(1, 1, 1)).on(mask)
    >>> bool(refined[stroke].all()), bool(refined.sum() > (mask | stroke).sum())
    (True, True)
    """
    mask, image = np.asanyarray(mask), np.asanyarray(image)
    image = image[None] if image.ndim == mask.ndim else image
    strokes = {"strokes_add": strokes_add, "strokes_remove": strokes_remove}
    check_arrays(mask, image, {**strokes, "probability": probability, "fixed": fixed}, spacing)
    add, remove = (None if stroke is None else np.asarray(stroke, bool) for stroke in (strokes_add, strokes_remove))
    given = [stroke for stroke in (add, remove) if stroke is not None]
    stroked = given[0] | given[1] if len(given) > 1 else given[0] if given else None
    extent = None if stroked is None else smallest(stroked)
    if stroked is None or extent is None:
        raise StrokeError("There is no stroke: nothing says what belongs to the segment and what does not.")
    if radius_mm is not None and not 0 < radius_mm < np.inf:
        raise StrokeError(f"The radius is a positive number of mm, not {radius_mm!r}.")
    spacing = np.asarray(spacing, float)
    reach = default_reach(stroked, extent, spacing) if radius_mm is None else float(radius_mm)
    box, scene = surroundings(stroked, extent, image, spacing, probability, reach, fixed)
    place = slices(box)
    added, removed = (np.zeros(scene.fixed.shape, bool) if s is None else s[place] for s in (add, remove))
    return Refinement(box, refine_box(np.array(mask[place], bool), added, removed, scene))


def check_arrays(mask, image, arrays: dict, spacing) -> None:
    """StrokeError where the arrays given to `refine` do not have one shape or the spacing is none."""
    if mask.ndim != 3:
        raise StrokeError(f"The mask has {mask.ndim} dimensions; it has to have three, K, J and I.")
    if image.shape[1:] != mask.shape or not len(image):
        raise StrokeError(f"The image {image.shape} and the mask {mask.shape} are not of one size.")
    for name, array in arrays.items():
        if array is not None and np.shape(array) != mask.shape:
            raise StrokeError(f"{name} {np.shape(array)} and the mask {mask.shape} are not of one size.")
    if np.shape(spacing) != (3,) or not np.all(np.isfinite(spacing)) or min(spacing) <= 0:
        raise StrokeError(f"The spacing is three positive numbers in mm, along K, J and I, not {spacing!r}.")


# --- the neighbourhood


def dimension(shape) -> int:
    """2 for a single slice along any axis, else 3."""
    return 3 if min(shape) > 1 else 2


def voxel_size(shape, spacing) -> float:
    """The geometric mean of the voxel sizes along the axes that have more than one voxel."""
    sizes = [s for s, n in zip(spacing, shape, strict=True) if n > 1]
    return float(np.exp(np.mean(np.log(sizes or list(spacing)))))


def reach_of(brush_radius: float, shape, spacing) -> float:
    """How far in mm the stroke of a brush reaches."""
    return max(REACH * brush_radius, LEAST_REACH * voxel_size(shape, spacing))


def default_reach(stroke: np.ndarray, box, spacing: np.ndarray) -> float:
    """REACH times half the width of a stroke in mm, looked at across the axis along which it is shortest."""
    part = np.pad(stroke[slices(box)], 1)
    flat = int(np.argmin([(high - low) * s for (low, high), s in zip(box, spacing, strict=True)]))
    across = [axis for axis in range(3) if axis != flat]
    outside = np.asarray(~part.any(axis=flat))[None]
    width = distance_to(outside, np.array([1.0, *spacing[across]])).max()
    return REACH * float(width)


# --- the decision


def surroundings(
    stroked, extent: Box, image, spacing: np.ndarray, probability, reach: float, fixed=None
) -> tuple[Box, Scene]:
    """The box that strokes can change, as in Refinement, and what is known there; the arguments are on the whole grid.

    `extent`: the smallest box around the strokes.
    """
    voxel = voxel_size(stroked.shape, spacing)
    reach = max(reach, LEAST_REACH * voxel)
    box = grown(extent, np.ceil(reach / spacing).astype(int).tolist(), stroked.shape)
    place = slices(box)
    earlier = np.zeros(stroked[place].shape, bool) if fixed is None else np.array(fixed[place], bool)
    odds = None if probability is None else log_odds(probability[place])
    return box, Scene(standardised(image[(slice(None), *place)]), spacing, voxel, reach, odds, earlier)


def refine_box(mask: np.ndarray, add: np.ndarray, remove: np.ndarray, scene: Scene) -> np.ndarray:
    """The new mask in a box: first what was added, then what was removed, which therefore wins."""
    add = add & ~remove
    scene = replace(scene, fixed=scene.fixed | add | remove)
    result = mask | add
    if (add & ~mask).any():
        result |= grown_region(mask & ~remove, add, scene, sign=1)
    result &= ~remove
    if (remove & mask).any():
        result &= ~grown_region(~(mask | add), remove, scene, sign=-1)
    return result


def grown_region(own: np.ndarray, stroke: np.ndarray, scene: Scene, sign: int) -> np.ndarray:
    """Region growing: the voxels that join a stroke's side, `own`, besides the stroke. `sign`: 1 for "belongs", else -1.

    With neither log odds nor a border within reach, the image alone would have to say what the segment is: none join.
    """
    if scene.log_odds is None and not own.any():
        return own
    found = evidence(own, stroke, scene, sign)
    chosen = np.zeros(own.shape, bool)
    source = "image" if scene.log_odds is None else "network"
    chosen[found.candidates] = logits(found.features, load_networks()[source, dimension(own.shape)]) > MARGIN
    return chosen
