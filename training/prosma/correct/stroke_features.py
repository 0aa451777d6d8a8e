"""Features of the voxels around a stroke, from which the networks of `refine` say what joins the stroke's side.

For every voxel near the stroke that is on the other side: the segmentation network's log odds and how far off they are
under the strokes, the distance to the stroke in space and through the image, the depth behind the present border and the
border's shape, likeness to the voxels on either side, and earlier strokes. Needs NumPy and SimpleITK alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .stroke_network import FEATURES

SURE = 4.0  # log odds beyond which a network is not believed to be any surer
EDGE_COST = 1.0  # how much longer a path is that climbs one standard deviation of the image within a voxel
CONTEXT = 3.0  # what is looked at around a voxel falls off over the reach divided by this
NEARBY = 2.5  # shape and image around a voxel are looked at over so many voxels
MOST_DEEP = 8.0  # voxels behind the border beyond which a depth counts as this


@dataclass(frozen=True)
class Scene:
    """What is known around strokes: `image` (C, K, J, I) standardised, `spacing`, `voxel` (its mean size) and `reach`
    in mm, the network's `log_odds` of belonging (K, J, I) or None, and the voxels that are `fixed`."""

    image: np.ndarray
    spacing: np.ndarray
    voxel: float
    reach: float
    log_odds: np.ndarray | None
    fixed: np.ndarray


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
    stroke = connected_component(stroke & ~own, stroke)
    fresh = stroke & ~own
    away = distance_to(stroke, scene.spacing)
    candidates = ~own & ~stroke & ~scene.fixed & (away <= scene.reach)
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
        "share": gaussian_average(this, NEARBY * scene.voxel, scene.spacing),
        "share_next_to": gaussian_average(this, scene.voxel, scene.spacing),
        "thickness": float(depth[fresh].max()),
        "mean_thickness": float(depth[fresh].mean()),
    }


def of_strokes(own: np.ndarray, stroke: np.ndarray, scene: Scene) -> dict:
    """Features of how much was stroked near a voxel, and of earlier strokes of either side."""
    values = {"stroked": np.sqrt(gaussian_sum(stroke, 2 * scene.voxel, scene.spacing))}
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
    shares = [np.maximum(gaussian_average(side, width, scene.spacing), 1e-3) for side in (this, ~this)]
    local, ratio, unlike, unlike_around = (np.zeros(own.shape, np.float32) for _ in range(4))
    for channel in scene.image:
        mean = gaussian_average(channel, width, scene.spacing)
        inner = gaussian_average(channel * this, width, scene.spacing)
        variance = np.maximum(gaussian_average(channel**2, width, scene.spacing) - mean**2, 0.02)
        near = (channel - inner / shares[0]) ** 2
        far = (channel - (mean - inner) / shares[1]) ** 2
        local += np.clip((far - near) / (2 * variance), -SURE, SURE)
        ratio += likelihood_ratio(channel, this)
        unlike += (channel - channel[fresh].mean()) ** 2
        unlike_around += (gaussian_average(channel, scene.voxel, scene.spacing) - channel[fresh].mean()) ** 2
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
    values = {"log_odds": odds, "log_odds_around": gaussian_average(odds, scene.voxel, scene.spacing)}
    for name, width, doubt in (("offset", scene.reach / CONTEXT, 1.0), ("offset_next_to", 1.5 * scene.voxel, 0.5)):
        weight = gaussian_sum(supports | opposes, width, scene.spacing) + doubt
        values[name] = gaussian_sum(error, width, scene.spacing) / weight
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


def gaussian_average(array: np.ndarray, width: float, spacing) -> np.ndarray:
    """Gaussian smoothing with a standard deviation of `width` mm; at the borders, of what is inside."""
    return gaussian_filter(array, width, spacing, average=True)


def gaussian_sum(array: np.ndarray, width: float, spacing) -> np.ndarray:
    """Sum around each voxel, in which a voxel counts by a Gaussian of its distance: 1 at the voxel itself."""
    return gaussian_filter(array, width, spacing, average=False)


def gaussian_filter(array: np.ndarray, width: float, spacing, average: bool) -> np.ndarray:
    """Separable Gaussian filter, as products of matrices: for these small boxes faster than SimpleITK's filters."""
    result = np.asarray(array, np.float32)
    for axis, n in enumerate(array.shape):
        if n > 1:
            steps = np.subtract.outer(np.arange(n), np.arange(n)) * (spacing[axis] / width)
            kernel = np.exp(-(steps**2) / 2)
            kernel /= kernel.sum(axis=1, keepdims=True) if average else 1
            result = np.moveaxis(np.tensordot(kernel.astype(np.float32), result, (1, axis)), 0, axis)
    return result


def geodesic_distance(stroke: np.ndarray, scene: Scene) -> np.ndarray:
    """Geodesic distance: the length in mm of the shortest path from the stroke to each voxel, where crossing edges of the
    image makes a path longer. Very large where it is longer than the reach."""
    steepness = np.zeros(stroke.shape, np.float32)
    for channel in scene.image:
        even = gaussian_average(channel, scene.voxel, scene.spacing)
        for axis, n in enumerate(stroke.shape):
            if n > 1:
                steepness += np.gradient(even, scene.spacing[axis], axis=axis) ** 2
    cost = 1 + EDGE_COST * scene.voxel * np.sqrt(steepness / len(scene.image))
    front = stroke & (distance_to(~stroke, scene.spacing) <= 1.01 * scene.spacing.max())
    seeds = [[int(n) for n in index] for index in np.argwhere(front)[:, ::-1]]
    marching = sitk.FastMarching(to_itk((1 / cost).astype(np.float32), scene.spacing), seeds, 1.0, scene.reach)
    return np.where(stroke, 0, np.minimum(sitk.GetArrayFromImage(marching), 1e9)).astype(np.float32)


def connected_component(stroke: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The connected components (by faces) of `chosen` that the stroke has a part in."""
    parts = sitk.ConnectedComponent(to_itk((chosen | stroke).astype(np.uint8), (1.0, 1.0, 1.0)), False)
    parts = sitk.GetArrayFromImage(parts)
    return np.isin(parts, np.unique(parts[stroke]))
