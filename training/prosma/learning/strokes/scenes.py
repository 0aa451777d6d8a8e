"""Scenes: an object in an image as a person could meet it, drawn at random from the data and changed at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from scipy import ndimage
from torch.nn import functional as F

from ...correct.prompt_input import MOST_ODDS
from ...image.box import Box, grown, shape_of, slices
from ...image.resampling import resample
from ..data.painting import rotation
from ..recipe import Strokes
from .objects import pseudo_object
from .sets import Volume, bounding_box

MOST_VOXELS = 2_000_000  # of a scene; larger surroundings are cut
LEAST_MARGIN = 16  # voxels of the finest axis around an object
MOST_TURNED = 1_200_000  # voxels of a scene that is turned
KNOTS = 3  # along each axis, of a smooth field


@dataclass
class Scene:
    """`image` float32 (C, I, J, K), `truth` bool (I, J, K): what the person has in mind, `spacing` in mm along I, J, K.

    `mask`: what there is before the first stroke; `log_odds` of the model that made it, or None.
    """

    image: np.ndarray
    truth: np.ndarray
    spacing: tuple[float, ...]
    mask: np.ndarray
    log_odds: np.ndarray | None = None


class Scenes:
    """Draws scenes from volumes: a set by the cube root of its number of objects, then each volume and label alike."""

    def __init__(self, volumes: Sequence[Volume], settings: Strokes, channels: int = 1, dimension: int = 3) -> None:
        self.settings, self.channels, self.dimension = settings, channels, dimension
        self.volumes: dict[str, list[Volume]] = {}
        for volume in volumes:
            self.volumes.setdefault(volume.set, []).append(volume)
        counts = {name: sum(len(volume.boxes) for volume in found) for name, found in self.volumes.items()}
        self.sets = sorted(name for name, count in counts.items() if count)
        weights = np.cbrt([counts[name] for name in self.sets])
        self.weights = weights / weights.sum()

    def draw(self, rng: Generator) -> Scene:
        """A scene, a function of the random state alone."""
        while True:
            name = self.sets[int(rng.choice(len(self.sets), p=self.weights))]
            volume = self.volumes[name][int(rng.integers(len(self.volumes[name])))]
            if self.dimension == 2 and volume.labels.shape[2] > 1:
                volume = one_slice(volume, rng)
            found = self.object_in(volume, rng)
            if found is None:
                continue
            image, truth = found
            scene = changed(image, truth, volume.spacing, self.settings, rng)
            if scene is not None:
                if rng.random() < self.settings.started_share:
                    start_wrong(scene, rng)
                return scene

    def object_in(self, volume: Volume, rng: Generator) -> tuple[np.ndarray, np.ndarray] | None:
        """The image around an object of a volume, and the object."""
        image = self.channels_of(volume, rng)
        if rng.random() < self.settings.pseudo_share:
            pseudo = pseudo_object(image[0].astype(np.float32), volume.spacing, rng)
            if pseudo is None:
                return None
            box, voxels = pseudo
            outer = surroundings(box, volume, rng)
            truth = np.zeros(shape_of(outer), bool)
            truth[slices(box, [low for low, _ in outer])] = voxels
            return image[(slice(None), *slices(outer))].astype(np.float32), truth
        if not volume.boxes:
            return None
        values = list(volume.boxes)
        first = values[int(rng.integers(len(values)))]
        chosen = {first}
        if len(values) > 1 and rng.random() < self.settings.merged_share:
            count = int(rng.integers(1, len(values)))
            chosen |= set(rng.choice(values, count, replace=False).tolist())
        box = tuple(
            (min(volume.boxes[v][axis][0] for v in chosen), max(volume.boxes[v][axis][1] for v in chosen))
            for axis in range(3)
        )
        outer = surroundings(box, volume, rng)
        truth = np.isin(volume.labels[slices(outer)], sorted(chosen))
        if rng.random() < self.settings.part_share:
            truth = one_part(truth, rng)
        return image[(slice(None), *slices(outer))].astype(np.float32), truth

    def channels_of(self, volume: Volume, rng: Generator) -> np.ndarray:
        """As many channels as the network takes: the first ones, or one at random."""
        count = len(volume.image)
        if self.channels == 1:
            return volume.image[int(rng.integers(count))][None]
        return volume.image[[n % count for n in range(self.channels)]]


def one_slice(volume: Volume, rng: Generator) -> Volume:
    """A slice across K as a picture: mostly one with labels."""
    labelled = np.flatnonzero(np.isin(volume.labels, list(volume.boxes)).any((0, 1)))
    any_of = labelled if len(labelled) and rng.random() < 0.9 else np.arange(volume.labels.shape[2])
    number = int(any_of[int(rng.integers(len(any_of)))])
    labels = volume.labels[:, :, number : number + 1]
    boxes = {value: bounding_box(labels == value) for value in volume.boxes if (labels == value).any()}
    return replace(volume, image=volume.image[..., number : number + 1], labels=labels, boxes=boxes)


def surroundings(box: Box, volume: Volume, rng: Generator) -> Box:
    """An object's box with a margin of 0.4 to 1.5 of its length, as far as the volume and MOST_VOXELS allow."""
    spacing, shape = np.array(volume.spacing), volume.labels.shape
    length = (np.array(shape_of(box)) * spacing).max()
    margin = max(rng.uniform(0.4, 1.5) * length, LEAST_MARGIN * spacing.min())
    outer = grown(box, np.ceil(margin / spacing).astype(int).tolist(), shape)
    while np.prod(shape_of(outer)) > MOST_VOXELS and margin > spacing.min():
        margin *= 0.7
        outer = grown(box, np.ceil(margin / spacing).astype(int).tolist(), shape)
    return outer


def one_part(truth: np.ndarray, rng: Generator) -> np.ndarray:
    """One connected part of an object, by size."""
    parts, count = ndimage.label(truth)
    if count < 2:
        return truth
    sizes = np.bincount(parts.ravel())[1:]
    return parts == 1 + int(rng.choice(count, p=sizes / sizes.sum()))


# --- random changes


def changed(image: np.ndarray, truth: np.ndarray, spacing, settings: Strokes, rng: Generator) -> Scene | None:
    """A scene with other spacing, direction, resolution and contrast; None where nothing of the object is left."""
    flat = 1 in truth.shape
    stretch = np.exp(rng.uniform(-1, 1, 3) * np.log(settings.stretch))
    if flat:
        stretch[np.array(truth.shape) == 1] = 1.0
    steps = np.array(spacing) * stretch
    if truth.size <= MOST_TURNED and rng.random() < settings.rotation_probability:
        image, truth = turned(image, truth, steps, settings.rotation, rng)
    if not flat and rng.random() < settings.thick_probability:
        image, truth, steps = thickened(image, truth, steps, rng)
    order = rng.permutation(3) if not flat else np.arange(3)
    image, truth, steps = image.transpose(0, *(order + 1)), truth.transpose(order), steps[order]
    for axis in range(3):
        if rng.random() < 0.5:
            image, truth = np.flip(image, axis + 1), np.flip(truth, axis)
    if not truth.any() or truth.all():
        return None
    image = np.stack([other_contrast(channel, truth, settings, rng) for channel in image])
    truth = np.ascontiguousarray(truth)
    return Scene(image, truth, tuple(steps.tolist()), np.zeros(truth.shape, bool))


def turned(image: np.ndarray, truth: np.ndarray, spacing: np.ndarray, degrees: float, rng: Generator):
    """Both turned about the middle by up to so many degrees about each axis; a picture only in its plane."""
    angles = np.deg2rad(rng.uniform(-degrees, degrees, 3))
    if 1 in truth.shape:
        angles[[n for n in range(3) if truth.shape[n] > 1]] = 0
    extent = np.array(truth.shape) * spacing
    matrix = np.diag(1 / extent) @ rotation(angles) @ np.diag(extent)  # in the coordinates of grid_sample, -1 to 1
    theta = torch.zeros(1, 3, 4)
    theta[0, :, :3] = torch.from_numpy(np.ascontiguousarray(matrix[::-1, ::-1]))  # whose axes come in reverse
    grid = F.affine_grid(theta, [1, 1, *truth.shape], align_corners=False)
    seen = F.grid_sample(torch.from_numpy(image)[None], grid, padding_mode="border", align_corners=False)[0]
    object_ = F.grid_sample(torch.from_numpy(truth)[None, None].float(), grid, align_corners=False)[0, 0]
    return seen.numpy(), object_.numpy() > 0.5


def thickened(image: np.ndarray, truth: np.ndarray, spacing: np.ndarray, rng: Generator):
    """As if the slices across one axis were 1.5 to 4 times as thick."""
    axis, factor = int(rng.integers(3)), rng.uniform(1.5, 4)
    size = list(truth.shape)
    size[axis] = max(4, round(size[axis] / factor))
    steps = spacing.copy()
    steps[axis] *= truth.shape[axis] / size[axis]
    return resample(image, size), resample(truth, size) > 0.5, steps


def other_contrast(image: np.ndarray, truth: np.ndarray, settings: Strokes, rng: Generator) -> np.ndarray:
    """Blur, field, window, curve, inversion and noise."""
    image = np.array(image, np.float32, order="C")
    wide = [n > 1 for n in image.shape]
    if rng.random() < settings.blur_probability:
        image = ndimage.gaussian_filter(image, [rng.uniform(0.3, 1.2) * w for w in wide])
    if rng.random() < settings.window_probability:  # as if the display's window were set to the object
        here = image[truth]
        half = float(here.std()) * rng.uniform(2, 6) + 0.1
        np.clip(image, here.mean() - half, here.mean() + half, out=image)
    if rng.random() < settings.curve_probability:
        image = through_curve(image, rng)
    if rng.random() < settings.field_probability:
        knots = rng.normal(0, rng.uniform(0, 0.4), [KNOTS if w else 1 for w in wide])
        image *= np.exp(resample(knots, image.shape))
    if rng.random() < settings.inverted_share:
        image = -image
    if rng.random() < settings.noise_probability:
        spread = float(image.std()) * rng.uniform(0, settings.noise)
        image += spread * rng.standard_normal(image.shape, np.float32)
    return image


def through_curve(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Values through a random curve: mostly rising, now and then with a turn, as another contrast would have."""
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return image
    steps = rng.exponential(1.0, 6)
    if rng.random() < 0.3:
        steps *= rng.choice([-1.0, 1.0], 6, p=[0.3, 0.7])
    heights = np.concatenate([[0.0], np.cumsum(steps)])
    return np.interp(image, np.linspace(low, high, 7), heights).astype(np.float32)


# --- masks to begin with


def start_wrong(scene: Scene, rng: Generator) -> None:
    """A faulty mask, as a model or another person may have left it, half of the time with the model's log odds."""
    truth, spacing = scene.truth, np.array(scene.spacing)
    distance = signed_distance(truth, spacing)
    depth = float(distance.max())
    knots = [int(rng.integers(3, 8)) if n > 3 else 1 for n in truth.shape]
    field = resample(rng.normal(0, 1, knots), truth.shape)
    believed = distance + depth * (rng.uniform(0.1, 0.6) * field + rng.normal(0, 0.15))
    if rng.random() < 0.3:  # it ends early along some direction, or goes on
        axis, place = int(rng.integers(3)), rng.uniform(0.15, 0.4)
        inner = np.flatnonzero(truth.any(tuple(n for n in range(3) if n != axis)))
        cut = int(np.quantile(inner, place if rng.random() < 0.5 else 1 - place))
        side = slice(0, cut) if place < 0.5 else slice(cut, None)
        believed[(slice(None),) * axis + (side,)] -= 0.8 * depth
    scene.mask = believed > 0
    if rng.random() < 0.5:
        blurred = 0.7 * believed + 0.3 * distance
        sharpness = rng.uniform(1, 4) / max(1e-3, depth)
        odds = np.clip(sharpness * blurred * MOST_ODDS / 2, -2 * MOST_ODDS, 2 * MOST_ODDS)
        sign = np.where(scene.mask, 1, -1)
        scene.log_odds = (sign * np.abs(odds) * np.where(odds * sign > 0, 1, 0.05)).astype(np.float32)


def signed_distance(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance to the border in mm, positive inside."""
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return (inside - outside).astype(np.float32)
