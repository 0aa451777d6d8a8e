"""Refine: a stroke that says "belongs" or "does not belong" moves a mask's border in its neighbourhood.

For every voxel near the stroke that is on the other side, a small network weighs what is known there: the segmentation
network's log odds and how far off they are under the strokes, the distance to the stroke in space and through the
image, the depth behind the present border and the border's shape, likeness to the voxels on either side, and earlier
strokes. Its weights (`stroke_network`) were fitted on simulated strokes on training cases by
Testing/benchmarks/fit_refine.py; nothing is trained at run time. Needs NumPy and SimpleITK alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from ..errors import UserFacingError
from ..image.box import Box, grown, slices, smallest
from .stroke_network import FEATURES, load_networks, logits

REACH = 4.0  # how far a stroke reaches, in radii of its brush
LEAST_REACH = 12.0  # in voxels; errors at a border are long and thin, so that a stroke in them is often narrow
SURE = 4.0  # log odds beyond which a network is not believed to be any surer
EDGE_COST = 1.0  # how much longer a path is that climbs one standard deviation of the image within a voxel
CONTEXT = 3.0  # what is looked at around a voxel falls off over the reach divided by this
NEARBY = 2.5  # shape and image around a voxel are looked at over so many voxels
MOST_DEEP = 8.0  # voxels behind the border beyond which a depth counts as this
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
    barred: np.ndarray | None = None,
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
        barred: voxels that only a stroke may change and that say nothing about others, bool (K, J, I).

    A stroke never changes voxels against its own meaning: "belongs" only adds, "does not belong" only removes. Only the
    part of the arrays around the strokes is read, so they may be memory-mapped. Raises StrokeError, with a sentence for
    a person, for arrays that do not fit together and where nothing was stroked.
    """
    mask, image = np.asanyarray(mask), np.asanyarray(image)
    image = image[None] if image.ndim == mask.ndim else image
    arrays = {"strokes_add": strokes_add, "strokes_remove": strokes_remove, "probability": probability}
    arrays |= {"fixed": fixed, "barred": barred}
    check_arrays(mask, image, arrays, spacing)
    add, remove = (None if stroke is None else np.asarray(stroke, bool) for stroke in (strokes_add, strokes_remove))
    stroked = remove if add is None else add if remove is None else add | remove
    extent = None if stroked is None else smallest(stroked)
    if extent is None:
        raise StrokeError("There is no stroke: nothing says what belongs to the segment and what does not.")
    if radius_mm is not None and not 0 < radius_mm < np.inf:
        raise StrokeError(f"The radius is a positive number of mm, not {radius_mm!r}.")
    spacing = np.asarray(spacing, float)
    reach = default_reach(stroked, extent, spacing) if radius_mm is None else float(radius_mm)
    box, scene = surroundings(stroked, image, spacing, probability, reach, fixed, barred)
    place = slices(box)
    inside = [np.zeros(scene.fixed.shape, bool) if stroke is None else stroke[place] for stroke in (add, remove)]
    return Refinement(box, refine_box(np.array(mask[place], bool), *inside, scene))


def refine_label(
    labels: np.ndarray,
    image: np.ndarray,
    value: int,
    strokes_add: np.ndarray | None,
    strokes_remove: np.ndarray | None,
    spacing,
    probability: np.ndarray | None = None,
    radius_mm: float | None = None,
) -> tuple[Box, np.ndarray]:
    """As `refine`, for one label of a label map (K, J, I): the box and the new label map inside it.

    Other labels give way to the strokes themselves and to nothing else; what no longer belongs becomes 0.
    """
    labels = np.asanyarray(labels)
    if labels.dtype.kind not in "ui":
        raise StrokeError(f"A label map holds whole numbers, not {labels.dtype}.")
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value not in legal_values(labels.dtype):
        raise StrokeError(f"{value!r} is no label: labels are numbers from 1 to {np.iinfo(labels.dtype).max}.")
    mask, others = labels == value, (labels != value) & (labels != 0)
    found = refine(mask, image, strokes_add, strokes_remove, spacing, probability, radius_mm, barred=others)
    result = labels[found.slices].copy()
    result[result == value] = 0
    result[found.mask] = value
    return found.box, result


def legal_values(kind) -> range:
    """What a label in a label map of this type can be."""
    return range(1, int(np.iinfo(kind).max) + 1)


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
    width = distance_to(~part.any(axis=flat)[None], np.array([1.0, *spacing[across]])).max()
    return REACH * float(width)


# --- the decision


@dataclass(frozen=True)
class Scene:
    """What is known around strokes: `image` (C, K, J, I) standardised, `spacing`, `voxel` (its mean size) and `reach`
    in mm, the network's `log_odds` of belonging (K, J, I) or None, and the voxels that are `fixed` and `barred`."""

    image: np.ndarray
    spacing: np.ndarray
    voxel: float
    reach: float
    log_odds: np.ndarray | None
    fixed: np.ndarray
    barred: np.ndarray


def surroundings(
    stroked, image, spacing: np.ndarray, probability, reach: float, fixed=None, barred=None
) -> tuple[tuple, Scene]:
    """The box that strokes can change, as in Refinement, and what is known there; the arguments are on the whole grid."""
    voxel = voxel_size(stroked.shape, spacing)
    reach = max(reach, LEAST_REACH * voxel)
    box = grown(smallest(stroked), np.ceil(reach / spacing), stroked.shape)
    place = slices(box)
    kept = [np.zeros(stroked[place].shape, bool) if m is None else np.array(m[place], bool) for m in (fixed, barred)]
    odds = None if probability is None else log_odds(probability[place])
    return box, Scene(standardised(image[(slice(None), *place)]), spacing, voxel, reach, odds, *kept)


def refine_box(mask: np.ndarray, add: np.ndarray, remove: np.ndarray, scene: Scene) -> np.ndarray:
    """The new mask in a box: first what was added, then what was removed, which therefore wins."""
    add = add & ~remove
    scene = replace(scene, fixed=scene.fixed | add | remove)
    result = mask | add
    if (add & ~mask).any():
        result |= joining(mask & ~remove, add, scene, sign=1)
    result &= ~remove
    if (remove & mask).any():
        result &= ~joining(~(mask | add), remove, scene, sign=-1)
    return result


def joining(own: np.ndarray, stroke: np.ndarray, scene: Scene, sign: int) -> np.ndarray:
    """The voxels that join a stroke's side, `own`, besides the stroke itself. `sign`: 1 for "belongs", else -1.

    With neither log odds nor a border within reach, the image alone would have to say what the segment is: none join.
    """
    if scene.log_odds is None and not own.any():
        return own
    found = evidence(own, stroke, scene, sign)
    chosen = np.zeros(own.shape, bool)
    source = "image" if scene.log_odds is None else "network"
    chosen[found.candidates] = logits(found.features, load_networks()[source, dimension(own.shape)]) > MARGIN
    return chosen


@dataclass(frozen=True)
class Evidence:
    """`candidates`: bool (K, J, I), the voxels that may join; `features`: float32 (candidates, `names`)."""

    candidates: np.ndarray
    features: np.ndarray
    names: tuple[str, ...]


def evidence(own: np.ndarray, stroke: np.ndarray, scene: Scene, sign: int) -> Evidence:
    """What speaks for and against each voxel near the stroke joining its side.

    Parts of the stroke that are on its side already count as earlier strokes. Log odds are counted in favour of the
    stroke's side, depths in voxels, and distances by the reach, so that a stroke on a photograph and one on a scan are
    judged alike.
    """
    stroke = connected_to(stroke & ~own, stroke)
    fresh = stroke & ~own
    away = distance_to(stroke, scene.spacing)
    candidates = ~own & ~stroke & ~scene.fixed & ~scene.barred & (away <= scene.reach)
    values = of_place(own, stroke, away, scene)
    values |= of_strokes(own, stroke, scene)
    values |= of_image(own, stroke, scene)
    values |= {"adds": float(sign), "extent": np.log(fresh.sum()), "reach": np.log(scene.reach / scene.voxel)}
    if scene.log_odds is not None:
        values |= of_log_odds(own, stroke, np.clip(sign * scene.log_odds, -SURE, SURE), scene)
    names = FEATURES["image" if scene.log_odds is None else "network"]
    features = np.empty((int(candidates.sum()), len(names)), np.float32)
    for column, name in enumerate(names):
        value = values[name]
        features[:, column] = value[candidates] if isinstance(value, np.ndarray) else value
    return Evidence(candidates, features, names)


def of_place(own: np.ndarray, stroke: np.ndarray, away: np.ndarray, scene: Scene) -> dict:
    """Features of where a voxel is: from the stroke and behind the border, and of the border's shape around it."""
    depth = distance_to(own, scene.spacing) if own.any() else np.full(own.shape, scene.reach, np.float32)
    depth = np.minimum(depth / scene.voxel, MOST_DEEP)
    this, fresh = own | stroke, stroke & ~own
    return {
        "distance": away / scene.reach,
        "travelled": np.minimum(geodesic_distance(stroke, scene) / scene.reach, 1),
        "near": np.exp(-away / (scene.reach / CONTEXT)),
        "next_to": np.exp(-away / (2 * scene.voxel)),
        "depth": depth,
        "shallow": np.exp(-depth),
        "share": smooth(this, NEARBY * scene.voxel, scene.spacing),
        "share_next_to": smooth(this, scene.voxel, scene.spacing),
        "thickness": float(depth[fresh].max()),
        "mean_thickness": float(depth[fresh].mean()),
    }


def of_strokes(own: np.ndarray, stroke: np.ndarray, scene: Scene) -> dict:
    """Features of how much was stroked near a voxel, and of earlier strokes of either side."""
    values = {"stroked": np.sqrt(gathered(stroke, 2 * scene.voxel, scene.spacing))}
    earlier = scene.fixed & ~stroke
    for name, side in (("supported", earlier & own), ("opposed", earlier & ~own)):
        away = distance_to(side, scene.spacing) if side.any() else np.full(own.shape, 1e6, np.float32)
        values[name] = np.exp(-away / (scene.reach / CONTEXT))
        values[f"{name}_next_to"] = np.exp(-away / (2 * scene.voxel))
    return values


def of_image(own: np.ndarray, stroke: np.ndarray, scene: Scene) -> dict:
    """Features of how much more a voxel resembles the stroke's side than the other, near it and in the whole box (log
    likelihood ratios of normal distributions, averaged over channels), and of how far it and its surroundings are
    from the stroke's mean, in standard deviations of the box."""
    this, fresh, width = own | stroke, stroke & ~own, NEARBY * scene.voxel
    shares = [np.maximum(smooth(side, width, scene.spacing), 1e-3) for side in (this, ~this)]
    local, ratio, unlike, unlike_around = (np.zeros(own.shape, np.float32) for _ in range(4))
    for channel in scene.image:
        mean = smooth(channel, width, scene.spacing)
        inner = smooth(channel * this, width, scene.spacing)
        variance = np.maximum(smooth(channel**2, width, scene.spacing) - mean**2, 0.02)
        near = (channel - inner / shares[0]) ** 2
        far = (channel - (mean - inner) / shares[1]) ** 2
        local += np.clip((far - near) / (2 * variance), -SURE, SURE)
        ratio += likelihood_ratio(channel, this)
        unlike += (channel - channel[fresh].mean()) ** 2
        unlike_around += (smooth(channel, scene.voxel, scene.spacing) - channel[fresh].mean()) ** 2
    count = len(scene.image)
    return {
        "local_likelihood": local / count,
        "likelihood": np.clip(ratio / count, -SURE, SURE),
        "unlike": np.minimum(np.sqrt(unlike / count), 2),
        "unlike_around": np.minimum(np.sqrt(unlike_around / count), 2),
    }


def likelihood_ratio(channel: np.ndarray, this: np.ndarray) -> np.ndarray | float:
    """Log of how much likelier each value is among the values in `this` than among the others; 0 if there are none."""
    if this.all():
        return 0.0
    means = channel[this].mean(), channel[~this].mean()
    widths = channel[this].std() + 0.1, channel[~this].std() + 0.1
    near, far = (((channel - m) / w) ** 2 / 2 + np.log(w) for m, w in zip(means, widths, strict=True))
    return far - near


def of_log_odds(own: np.ndarray, stroke: np.ndarray, odds: np.ndarray, scene: Scene) -> dict:
    """Features of the network's log odds, and of how far all strokes near a voxel say that they are off."""
    earlier, fresh = scene.fixed & ~stroke, stroke & ~own
    supports, opposes = fresh | (earlier & own), earlier & ~own
    error = supports * np.clip(1 - odds, 0, 1 + SURE) - opposes * np.clip(1 + odds, 0, 1 + SURE)
    values = {"log_odds": odds, "log_odds_around": smooth(odds, scene.voxel, scene.spacing)}
    for name, width, doubt in (("offset", scene.reach / CONTEXT, 1.0), ("offset_next_to", 1.5 * scene.voxel, 0.5)):
        weight = gathered(supports | opposes, width, scene.spacing) + doubt
        values[name] = gathered(error, width, scene.spacing) / weight
    return values | {"need": float(np.clip(-odds[fresh], -1, SURE).mean())}


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Of probabilities 0 ... 255, as float32; the ends are taken as half a step from 0 and 1."""
    share = (np.arange(256, dtype=np.float32) + 0.5) / 256
    return np.log(share / (1 - share))[np.asarray(probability)]


def standardised(image: np.ndarray) -> np.ndarray:
    """Each channel as float32 with mean 0 and standard deviation 1; what is not finite counts as the mean."""
    result = np.array(image, np.float32)
    for number, channel in enumerate(result):
        finite = np.isfinite(channel)
        values = channel[finite].astype(np.float64)
        mean, width = (values.mean(), values.std()) if values.size else (0.0, 1.0)
        result[number] = np.where(finite, (channel - mean) / (width or 1.0), 0)
    return result


# --- images of SimpleITK, on the box


def to_itk(array: np.ndarray, spacing) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in spacing[::-1]])
    return image


def distance_to(mask: np.ndarray, spacing) -> np.ndarray:
    """Distance in mm from each voxel to the nearest one of `mask`, 0 inside; very large where the mask is empty."""
    image = to_itk(mask.astype(np.uint8), spacing)
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return np.maximum(sitk.GetArrayFromImage(distance), 0) * ~mask


def smooth(array: np.ndarray, width: float, spacing) -> np.ndarray:
    """Gaussian average with a standard deviation of `width` mm; at the borders, of what is inside."""
    return filtered(array, width, spacing, average=True)


def gathered(array: np.ndarray, width: float, spacing) -> np.ndarray:
    """Sum around each voxel, in which a voxel counts by a Gaussian of its distance: 1 at the voxel itself."""
    return filtered(array, width, spacing, average=False)


def filtered(array: np.ndarray, width: float, spacing, average: bool) -> np.ndarray:
    """Axis by axis as products of matrices: for these small boxes faster than SimpleITK's filters."""
    result = np.asarray(array, np.float32)
    for axis, n in enumerate(array.shape):
        if n > 1:
            steps = np.subtract.outer(np.arange(n), np.arange(n)) * (spacing[axis] / width)
            kernel = np.exp(-(steps**2) / 2)
            kernel /= kernel.sum(axis=1, keepdims=True) if average else 1
            result = np.moveaxis(np.tensordot(kernel.astype(np.float32), result, (1, axis)), 0, axis)
    return result


def geodesic_distance(stroke: np.ndarray, scene: Scene) -> np.ndarray:
    """Length in mm of the shortest path from the stroke to each voxel, where crossing edges of the image makes a path
    longer. Very large where it is longer than the reach."""
    steepness = np.zeros(stroke.shape, np.float32)
    for channel in scene.image:
        even = smooth(channel, scene.voxel, scene.spacing)
        for axis, n in enumerate(stroke.shape):
            if n > 1:
                steepness += np.gradient(even, scene.spacing[axis], axis=axis) ** 2
    cost = 1 + EDGE_COST * scene.voxel * np.sqrt(steepness / len(scene.image))
    front = stroke & (distance_to(~stroke, scene.spacing) <= 1.01 * scene.spacing.max())
    seeds = [[int(n) for n in index] for index in np.argwhere(front)[:, ::-1]]
    marching = sitk.FastMarching(to_itk((1 / cost).astype(np.float32), scene.spacing), seeds, 1.0, scene.reach)
    return np.where(stroke, 0, np.minimum(sitk.GetArrayFromImage(marching), 1e9)).astype(np.float32)


def connected_to(stroke: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The voxels of `chosen` that hang together with the stroke by their faces."""
    parts = sitk.ConnectedComponent(to_itk((chosen | stroke).astype(np.uint8), (1.0, 1.0, 1.0)), False)
    parts = sitk.GetArrayFromImage(parts)
    return np.isin(parts, np.unique(parts[stroke]))
