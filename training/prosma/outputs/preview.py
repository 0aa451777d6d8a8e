"""A picture of a result: axial, coronal and sagittal slice through the largest section, with outlines over the image.

Sides are those of radiology: the patient's right on the left, front and head upwards; millimetres are the same in all
three. A single slice or a picture is shown as it is stored. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..image.geometry import Image, plan_canonical
from ..image.resampling import resample, resample_nearest

SIDE = 256  # pixels of the longest side of the volume
GAP = 4
SMALLEST = 16  # pixels of the other sides, so that a thin volume still shows
PLANES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))  # axes to the right and down, and the one looked along; L, P, S
PERCENTILES = (1, 99)  # of grey values that become black and white


def preview(image: Image, labels: np.ndarray, described: Sequence[dict], side: int = SIDE) -> np.ndarray:
    """Pixels uint8 (height, width, 3): the planes side by side, each `described` label outlined in its colour.

    `labels` (I, J, K) on the grid of `image`.
    """
    flat = image.shape[2] == 1
    canonical = plan_canonical(image, {"dimension": 2 if flat else 3, "orientation": "LPS"})
    voxels, found = canonical.view(image.array), canonical.view(labels)
    scale = side / max(n * mm for n, mm in zip(found.shape, canonical.spacing, strict=True))
    sizes = [max(SMALLEST, round(n * mm * scale)) for n, mm in zip(found.shape, canonical.spacing, strict=True)]
    pictures = []
    for right, down, along in PLANES[:1] if flat else PLANES:
        depth = largest_section(found, along)
        order = [right, down, along]
        section = found.transpose(order)[..., depth]
        colours = as_colours(voxels.transpose(0, *(1 + axis for axis in order))[..., depth], flat)
        size = (sizes[right], sizes[down])
        pixels = resample(colours, size)
        draw_outlines(pixels, resample_nearest(section, size), described)
        upright = pixels.transpose(2, 1, 0)
        pictures.append(upright[::-1] if down == 2 else upright)  # S runs upwards
    return side_by_side([np.rint(picture).astype(np.uint8) for picture in pictures])


def largest_section(labels: np.ndarray, along: int) -> int:
    """The slice along an axis with most labelled voxels; the middle one where there is none."""
    counts = (labels > 0).sum(axis=tuple(axis for axis in range(3) if axis != along))
    return int(np.argmax(counts)) if counts.any() else len(counts) // 2


def as_colours(channels: np.ndarray, is_picture: bool) -> np.ndarray:
    """A slice (C, X, Y) in its colours where it is a picture of three channels, else its first channel in grey.

    float32 (3, X, Y), 0 to 255. Bytes stay as they are; other values are stretched between two percentiles.
    """
    colour = is_picture and len(channels) == 3
    shown = np.asarray(channels if colour else channels[:1], np.float32)
    if channels.dtype != np.uint8:
        low, high = np.percentile(shown, PERCENTILES)
        shown = 255 * (np.clip(shown, low, high) - low) / max(high - low, 1e-6)
    return np.broadcast_to(shown, (3, *shown.shape[1:]))


def draw_outlines(pixels: np.ndarray, labels: np.ndarray, described: Sequence[dict]) -> None:
    """Colour the outermost pixels of each label, (X, Y), in `pixels` (3, X, Y)."""
    padded = np.pad(labels, 1, mode="edge")
    around = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    border = np.any([labels != other for other in around], axis=0)
    for label in described:
        pixels[:, border & (labels == label["value"])] = np.array(label["color"], np.float32)[:, None]


def side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures in a row on black, in the middle of its height."""
    height = max(len(picture) for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + GAP * (len(pictures) - 1)
    row, x = np.zeros((height, width, 3), np.uint8), 0
    for picture in pictures:
        y = (height - len(picture)) // 2
        row[y : y + len(picture), x : x + picture.shape[1]] = picture
        x += picture.shape[1] + GAP
    return row
