"""Refine: a stroke that says "belongs" or "does not belong" moves a mask's border in its neighbourhood.

For every voxel near the stroke that is on the other side, the evidence for changing sides is a weighted sum of what is
known there: the network's log odds and how far off they are under the stroke, the geodesic distance to the stroke
through the image, the distance to the present border, likeness to the voxels on either side, and earlier strokes. The
weights come from a logistic regression on simulated strokes (Testing/benchmarks/fit_refine.py). Needs NumPy and
SimpleITK alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

REACH = 4.0  # how far a stroke reaches, in radii of its brush
FINENESS = 7.0  # details are looked at on a scale of the reach divided by this
LEAST_REACH = 4.0  # in voxels
SURE = 4.0  # log odds beyond which a network is not believed to be any surer
EDGE_COST = 1.0  # how much longer a path is that climbs one standard deviation of the image on the scale of details
FEATURES = (
    "one",
    "log_odds",
    "need",
    "distance",
    "squared",
    "depth",
    "thickness",
    "share",
    "opposed",
    "unlike",
    "likelihood",
    "extent",
)

# Weights of FEATURES, in their order: with the network's probabilities ("network") or without them ("image"), in a
# single slice (2) or a volume (3). Fitted on training cases of polyp-colonoscopy (2) and of hippocampus-mr with deformed
# organs of the head and neck (3); the constants for single slices were then shifted by hand. The script in
# Testing/benchmarks does not give these very numbers: they were fitted with other brushes and reaches, and it lacks the
# deformed organs.
WEIGHTS = {
    ("network", 2): (-3.45, 1.28, 0.363, -0.483, 0.051, -0.034, 0.041, 3.223, -20.486, -0.545, 0.226, 1.551),
    ("network", 3): (-1.839, 0.629, 0.177, -1.819, 0.402, -0.753, 0.647, 5.582, -0.826, 0.056, 0.107, -0.012),
    ("image", 2): (-7.955, 0.0, 0.0, 0.966, -0.791, -0.113, 0.026, 5.806, -2.297, -0.473, 0.486, 1.74),
    ("image", 3): (-6.307, 0.0, 0.0, -1.759, 0.372, -0.888, 0.327, 6.872, -1.043, -0.613, 0.482, 3.001),
}


@dataclass(frozen=True)
class Refinement:
    """The part of a mask that a stroke may have changed.

    `box`: ((k0, k1), (j0, j1), (i0, i1)), half open. `mask`: bool, the new mask inside it. Outside nothing changes.
    """

    box: tuple[tuple[int, int], ...]
    mask: np.ndarray

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index into an array (K, J, I)."""
        return tuple(slice(*pair) for pair in self.box)

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
        radius_mm: how far from a stroke voxels may change; by default four times the stroke's own half width.
        fixed: voxels that only a stroke may change, bool (K, J, I): earlier strokes, say. Those on the other side also
            speak against changes around them.

    A stroke never changes voxels against its own meaning: "belongs" only adds, "does not belong" only removes. Only the
    part of the arrays around the strokes is read, so they may be memory-mapped. Raises ValueError, with a sentence for
    a person, for arrays that do not fit together and where nothing was stroked.
    """
    mask, image = np.asanyarray(mask), np.asanyarray(image)
    image = image[None] if image.ndim == mask.ndim else image
    arrays = {"strokes_add": strokes_add, "strokes_remove": strokes_remove, "probability": probability, "fixed": fixed}
    check_arrays(mask, image, arrays, spacing)
    add, remove = (None if stroke is None else np.asarray(stroke, bool) for stroke in (strokes_add, strokes_remove))
    stroked = remove if add is None else add if remove is None else add | remove
    extent = None if stroked is None else smallest_box(stroked)
    if extent is None:
        raise ValueError("There is no stroke: nothing says what belongs to the segment and what does not.")
    if radius_mm is not None and not 0 < radius_mm < np.inf:
        raise ValueError(f"The radius is a positive number of mm, not {radius_mm!r}.")
    spacing = np.asarray(spacing, float)
    reach = default_reach(stroked, extent, spacing) if radius_mm is None else float(radius_mm)
    box, scene = surroundings(stroked, image, spacing, probability, reach, fixed)
    place = tuple(slice(*pair) for pair in box)
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
) -> tuple[tuple[tuple[int, int], ...], np.ndarray]:
    """As `refine`, for one label of a label map (K, J, I): the box and the new label map inside it.

    Other labels give way to the strokes themselves and to nothing else; what no longer belongs becomes 0.
    """
    labels = np.asanyarray(labels)
    if labels.dtype.kind not in "ui":
        raise ValueError(f"A label map holds whole numbers, not {labels.dtype}.")
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value not in legal_values(labels.dtype):
        raise ValueError(f"{value!r} is no label: labels are numbers from 1 to {np.iinfo(labels.dtype).max}.")
    mask, others = labels == value, (labels != value) & (labels != 0)
    found = refine(mask, image, strokes_add, strokes_remove, spacing, probability, radius_mm, others)
    result = labels[found.slices].copy()
    result[result == value] = 0
    result[found.mask] = value
    return found.box, result


def legal_values(kind) -> range:
    """What a label in a label map of this type can be."""
    return range(1, int(np.iinfo(kind).max) + 1)


def check_arrays(mask, image, arrays: dict, spacing) -> None:
    """ValueError where the arrays given to `refine` do not have one shape or the spacing is none."""
    if mask.ndim != 3:
        raise ValueError(f"The mask has {mask.ndim} dimensions; it has to have three, K, J and I.")
    if image.shape[1:] != mask.shape or not len(image):
        raise ValueError(f"The image {image.shape} and the mask {mask.shape} are not of one size.")
    for name, array in arrays.items():
        if array is not None and np.shape(array) != mask.shape:
            raise ValueError(f"{name} {np.shape(array)} and the mask {mask.shape} are not of one size.")
    if np.shape(spacing) != (3,) or not np.all(np.isfinite(spacing)) or min(spacing) <= 0:
        raise ValueError(f"The spacing is three positive numbers in mm, along K, J and I, not {spacing!r}.")


# --- the neighbourhood


def smallest_box(mask: np.ndarray) -> tuple[tuple[int, int], ...] | None:
    """The smallest box around a mask's voxels, half open; None where there are none."""
    box, part = [], mask
    for axis in range(3):
        where = np.flatnonzero(part.any(axis=tuple(n for n in range(3) if n != axis)))
        if not where.size:
            return None
        box.append((int(where[0]), int(where[-1]) + 1))
        part = part[(slice(None),) * axis + (slice(*box[-1]),)]
    return tuple(box)


def grown_box(box, margin, shape) -> tuple[tuple[int, int], ...]:
    """`box` with `margin` voxels more on each side of each axis, within `shape`."""
    margin = np.ceil(margin).astype(int)
    return tuple(
        (max(0, low - int(m)), min(int(n), high + int(m))) for (low, high), m, n in zip(box, margin, shape, strict=True)
    )


def dimension(shape) -> int:
    """2 for a single slice along any axis, else 3."""
    return 3 if min(shape) > 1 else 2


def least_spacing(shape, spacing: np.ndarray) -> float:
    """The finest voxel size among the axes that have more than one voxel."""
    return float(min((s for s, n in zip(spacing, shape, strict=True) if n > 1), default=spacing.min()))


def default_reach(stroke: np.ndarray, box, spacing: np.ndarray) -> float:
    """REACH times half the width of a stroke in mm, looked at across the axis along which it is shortest."""
    part = np.pad(stroke[tuple(slice(*pair) for pair in box)], 1)
    flat = int(np.argmin([(high - low) * s for (low, high), s in zip(box, spacing, strict=True)]))
    across = [axis for axis in range(3) if axis != flat]
    width = distance_to(~part.any(axis=flat)[None], np.array([1.0, *spacing[across]])).max()
    return REACH * float(width)


# --- the decision


@dataclass(frozen=True)
class Scene:
    """What is known around strokes: `image` (C, K, J, I) standardised, `spacing` and `reach` in mm, the network's
    `log_odds` of belonging (K, J, I) or None, and the voxels that are `fixed`."""

    image: np.ndarray
    spacing: np.ndarray
    reach: float
    log_odds: np.ndarray | None
    fixed: np.ndarray

    @property
    def scale(self) -> float:
        """The size of details in mm."""
        return self.reach / FINENESS


def surroundings(stroked, image, spacing: np.ndarray, probability, reach: float, fixed) -> tuple[tuple, Scene]:
    """The box that strokes can change, as in Refinement, and what is known there; the arguments are on the whole grid."""
    reach = max(reach, LEAST_REACH * least_spacing(stroked.shape, spacing))
    box = grown_box(smallest_box(stroked), reach / spacing, stroked.shape)
    place = tuple(slice(*pair) for pair in box)
    fixed = np.zeros(stroked[place].shape, bool) if fixed is None else np.array(fixed[place], bool)
    odds = None if probability is None else log_odds(probability[place])
    return box, Scene(standardised(image[(slice(None), *place)]), spacing, reach, odds, fixed)


def refine_box(mask: np.ndarray, add: np.ndarray, remove: np.ndarray, scene: Scene) -> np.ndarray:
    """The new mask in a box: first what was added, then what was removed, which therefore wins."""
    add = add & ~remove
    fixed = scene.fixed | add | remove
    result = mask | add
    if (add & ~mask).any():
        result |= joining(mask & ~remove, add, fixed, scene, sign=1)
    result &= ~remove
    if (remove & mask).any():
        result &= ~joining(~(mask | add), remove, fixed, scene, sign=-1)
    return result


def joining(own: np.ndarray, stroke: np.ndarray, fixed: np.ndarray, scene: Scene, sign: int) -> np.ndarray:
    """The voxels that join a stroke's side, `own`, besides the stroke itself; they hang together with it.

    `sign` is 1 where this side is "belongs", else -1.
    """
    found = evidence(own, stroke, fixed, scene, sign)
    weights = WEIGHTS["image" if scene.log_odds is None else "network", dimension(own.shape)]
    chosen = np.zeros(own.shape, bool)
    chosen[found.candidates] = found.features @ np.array(weights, np.float32) > 0
    return connected_to(stroke, chosen) & ~stroke


@dataclass(frozen=True)
class Evidence:
    """`candidates`: bool (K, J, I), the voxels that may join; `features`: float32 (candidates, len(FEATURES))."""

    candidates: np.ndarray
    features: np.ndarray


def evidence(own: np.ndarray, stroke: np.ndarray, fixed: np.ndarray, scene: Scene, sign: int) -> Evidence:
    """What speaks for and against each voxel near the stroke joining its side. Distances are relative, so that a
    stroke on a photograph and one on a scan are judged alike; log odds are counted in favour of the stroke's side."""
    spacing, scale = scene.spacing, scene.scale
    candidates = ~own & ~stroke & ~fixed & (distance_to(stroke, spacing) <= scene.reach)
    fresh = stroke & ~own
    depth = distance_to(own, spacing) if own.any() else np.full(own.shape, scene.reach, np.float32)
    travelled = geodesic_distance(stroke, candidates, scene)
    candidates &= travelled <= 2 * scene.reach
    distance = travelled[candidates] / scene.reach
    likelihood, unlike = likeness(own, stroke, scene)
    opposed = fixed & ~own & ~stroke
    near_opposed = np.exp(-distance_to(opposed, spacing)[candidates] / (2 * scale)) if opposed.any() else 0.0
    odds = np.zeros(own.shape, np.float32) if scene.log_odds is None else sign * scene.log_odds
    size = float(fresh.sum() * np.prod([s for s, n in zip(spacing, own.shape, strict=True) if n > 1]))
    values = {
        "one": 1.0,
        "log_odds": np.clip(odds[candidates], -SURE, 1.0),
        "need": np.clip(-odds[fresh], -1.0, SURE).mean(),
        "distance": distance,
        "squared": distance**2,
        "depth": np.minimum(depth[candidates] / scale, FINENESS),
        "thickness": min(depth[fresh].max() / scale, FINENESS),
        "share": smooth((own | stroke).astype(np.float32), scale, spacing)[candidates],
        "opposed": near_opposed,
        "unlike": unlike[candidates],
        "likelihood": likelihood[candidates],
        "extent": size ** (1 / dimension(own.shape)) / scale,
    }
    features = np.empty((int(candidates.sum()), len(FEATURES)), np.float32)
    for column, name in enumerate(FEATURES):
        features[:, column] = values[name]
    return Evidence(candidates, features)


def likeness(own: np.ndarray, stroke: np.ndarray, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """How much more a voxel resembles the stroke's side than the other (log likelihood ratio of two normal
    distributions, averaged over channels, -4 ... 4), and how far it is from the stroke's mean, in standard deviations
    of the neighbourhood (0 ... 2)."""
    this, other = own | stroke, ~(own | stroke)
    ratio, away = np.zeros(own.shape, np.float32), np.zeros(own.shape, np.float32)
    for channel in scene.image:
        away += (channel - channel[stroke].mean()) ** 2
        if other.any():
            means = channel[this].mean(), channel[other].mean()
            widths = channel[this].std() + 0.1, channel[other].std() + 0.1
            near, far = (((channel - m) / w) ** 2 / 2 + np.log(w) for m, w in zip(means, widths, strict=True))
            ratio += far - near
    count = len(scene.image)
    return np.clip(ratio / count, -SURE, SURE), np.minimum(np.sqrt(away / count), 2.0)


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
    """Gaussian smoothing with a standard deviation of `width` mm."""
    variance = [width**2 if n > 1 else 0.0 for n in array.shape[::-1]]
    return sitk.GetArrayFromImage(sitk.DiscreteGaussian(to_itk(array, spacing), variance, 32, 0.02, True))


def geodesic_distance(stroke: np.ndarray, candidates: np.ndarray, scene: Scene) -> np.ndarray:
    """Length in mm of the shortest path from the stroke to each voxel, through candidates alone, where crossing edges
    of the image makes a path longer. Very large where there is no path of at most twice the reach."""
    steepness = np.zeros(stroke.shape, np.float32)
    for channel in scene.image:
        even = smooth(channel, scene.scale / 2, scene.spacing)
        for axis, n in enumerate(stroke.shape):
            if n > 1:
                steepness += np.gradient(even, scene.spacing[axis], axis=axis) ** 2
    cost = 1 + EDGE_COST * scene.scale * np.sqrt(steepness / len(scene.image))
    speed = np.where(candidates | stroke, 1 / cost, 0).astype(np.float32)
    front = stroke & (distance_to(~stroke, scene.spacing) <= 1.01 * scene.spacing.max())
    seeds = [[int(n) for n in index] for index in np.argwhere(front)[:, ::-1]]
    marching = sitk.FastMarching(to_itk(speed, scene.spacing), seeds, 1.0, 2 * scene.reach)
    return np.where(stroke, 0, np.minimum(sitk.GetArrayFromImage(marching), 1e9)).astype(np.float32)


def connected_to(stroke: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The voxels of `chosen` that hang together with the stroke by their faces."""
    parts = sitk.ConnectedComponent(to_itk((chosen | stroke).astype(np.uint8), (1.0, 1.0, 1.0)), False)
    parts = sitk.GetArrayFromImage(parts)
    return np.isin(parts, np.unique(parts[stroke]))
