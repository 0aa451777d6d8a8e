"""A drawn picture for models whose training images may not be shown: a field of view with shapes in the labels' colours."""

from __future__ import annotations

import io
import math
import zlib

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFilter

SIDE = 256
FINE = 3  # drawn this much larger, then shrunk, for smooth edges
BACKGROUND = (24, 28, 36)
TISSUE, RIM = (62, 68, 80), (150, 158, 172)
FIELDS = {"US": "fan", "colour image": "aperture"}


def icon(model: dict) -> bytes:
    """PNG, 256 x 256, for a model.json's content; the same for the same id, modality and label colours."""
    random = np.random.default_rng(zlib.crc32(model["id"].encode()))
    side = SIDE * FINE
    picture = Picture.new("RGB", (side, side), BACKGROUND)
    outline = field_of_view(FIELDS.get(model["modality"], "section"))
    field = mask_of(outline)
    picture.paste(texture(random), mask=field)
    for place, size, label in places(model["labels"]):
        shape = blob(random, place, size)
        color = tuple(label["color"])
        inside = Picture.fromarray(np.minimum(np.asarray(mask_of(shape)), np.asarray(field)))
        picture.paste(color, mask=inside.point(lambda value: value * 3 // 5))
        ImageDraw.Draw(picture).line(scaled([*shape, shape[0]]), fill=color, width=3 * FINE, joint="curve")
    ImageDraw.Draw(picture).line(scaled([*outline, outline[0]]), fill=RIM, width=2 * FINE, joint="curve")
    stream = io.BytesIO()
    picture.resize((SIDE, SIDE), Picture.Resampling.LANCZOS).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def field_of_view(kind: str) -> list[tuple[float, float]]:
    """Outline in 0 to 1, x to the right, y down: an ultrasound fan, a scope's cut-off circle, or a body's section."""
    if kind == "fan":
        angles = np.radians(np.linspace(59, 121, 40))
        near, far = (
            [(0.5 + radius * math.cos(angle), -0.02 + radius * math.sin(angle)) for angle in angles]
            for radius in (0.22, 0.92)
        )
        return [*near, *reversed(far)]
    angles = np.linspace(0, 2 * math.pi, 120, endpoint=False)
    if kind == "aperture":
        return [(0.5 + clipped(0.46 * math.cos(a), 0.40), 0.5 + clipped(0.46 * math.sin(a), 0.40)) for a in angles]
    return [(0.5 + 0.44 * math.cos(a), 0.5 + 0.38 * math.sin(a)) for a in angles]


def clipped(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


def places(labels: list[dict]) -> list[tuple[tuple[float, float], float, dict]]:
    """Centre and radius for each label: one in the middle, several on a ring."""
    if len(labels) == 1:
        return [((0.52, 0.54), 0.17, labels[0])]
    size = min(0.13, 0.5 / len(labels))
    angles = [2 * math.pi * (number + 0.25) / len(labels) for number in range(len(labels))]
    return [
        ((0.5 + 0.21 * math.cos(angle), 0.53 + 0.19 * math.sin(angle)), size, label)
        for angle, label in zip(angles, labels, strict=True)
    ]


def blob(random: np.random.Generator, place: tuple[float, float], size: float) -> list[tuple[float, float]]:
    """A smooth closed curve around ``place``."""
    waves = [(count, random.uniform(0.04, 0.22 / count), random.uniform(0, 2 * math.pi)) for count in (2, 3, 5)]
    angles = np.linspace(0, 2 * math.pi, 120, endpoint=False)
    radii = [size * (1 + sum(depth * math.cos(n * angle + phase) for n, depth, phase in waves)) for angle in angles]
    return [
        (place[0] + radius * math.cos(angle), place[1] + radius * math.sin(angle))
        for radius, angle in zip(radii, angles, strict=True)
    ]


def texture(random: np.random.Generator) -> Picture.Image:
    """Soft grey clouds, the size of the drawing."""
    clouds = Picture.fromarray(random.integers(0, 256, (12, 12), dtype=np.uint8))
    clouds = clouds.resize((SIDE, SIDE), Picture.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(8))
    shade = 0.75 + 0.5 * np.asarray(clouds, dtype=np.float32)[..., None] / 255
    grey = Picture.fromarray(np.clip(shade * np.array(TISSUE), 0, 255).astype(np.uint8))
    return grey.resize((SIDE * FINE, SIDE * FINE), Picture.Resampling.BICUBIC)


def mask_of(outline: list[tuple[float, float]]) -> Picture.Image:
    """White inside the outline, the size of the drawing."""
    mask = Picture.new("L", (SIDE * FINE, SIDE * FINE))
    ImageDraw.Draw(mask).polygon(scaled(outline), fill=255)
    return mask


def scaled(outline: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * SIDE * FINE, y * SIDE * FINE) for x, y in outline]
