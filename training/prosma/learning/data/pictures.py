"""Slices as pictures for people: the way up and the sides that Slicer shows, in the image's own colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as Picture
from scipy import ndimage

from ...image.geometry import ANATOMY, Canonical, Image, plan_canonical
from ...outputs.preview import as_colours


def side_by_side(array: np.ndarray, maps: Sequence[np.ndarray], model: dict, side: int) -> np.ndarray:
    """An image as a model sees it (C, *S), alone and under each label map (*S): pixels uint8 (height, width, 3).

    The slice is the one with most labels of the last map.
    """
    matrix = np.eye(4)
    if model["dimension"] == 2:
        array, maps = array[..., None], [labels[..., None] for labels in maps]
    else:
        for axis, letter in enumerate(model["orientation"]):
            row, sign = ANATOMY[letter]
            matrix[:3, axis] = 0
            matrix[row, axis] = sign * (model.get("spacing") or (1, 1, 1))[axis]
    colors = [label["color"] for label in model["labels"]]
    labelled = next((labels for labels in reversed(maps) if labels.any()), maps[-1])
    view = SliceView.of_most_labels(Image(array, matrix), labelled, model["dimension"])
    return np.hstack([np.asarray(view.picture(side, labels, colors)) for labels in (None, *maps)])


@dataclass(frozen=True)
class SliceView:
    """One slice of an image. In 3D axial, the patient's right on the left; 2D images as they are."""

    image: Image
    canonical: Canonical
    depth: int

    @classmethod
    def of_most_labels(cls, image: Image, labels: np.ndarray, dimension: int) -> SliceView:
        """The slice with most labelled voxels of ``labels`` (I, J, K); the middle one where there is none."""
        canonical = plan_canonical(image, {"dimension": dimension, "orientation": "LPS"})
        counts = (canonical.view(labels) > 0).sum(axis=(0, 1))
        return cls(image, canonical, int(np.argmax(counts)) if counts.any() else len(counts) // 2)

    def picture(self, side: int, labels: np.ndarray | None = None, colors: list[list[int]] | None = None):
        """The slice at its true proportions, its longer side ``side`` pixels, with labels (I, J, K) painted over it.

        ``colors[value - 1]`` is the colour of a label, three numbers from 0 to 255.
        """
        pixels = self.background()
        if labels is not None:
            flat = self.canonical.view(labels)[..., self.depth]
            for value, color in enumerate(colors or [], start=1):
                inside = flat == value
                pixels[inside] = 0.6 * pixels[inside] + 0.4 * np.array(color)
                pixels[inside & ~ndimage.binary_erosion(inside)] = color
        rows = np.ascontiguousarray(pixels.transpose(1, 0, 2).round().astype(np.uint8))
        extent = np.array(rows.shape[1::-1]) * self.canonical.spacing[:2]
        size = [max(1, round(side * part / extent.max())) for part in extent]
        return Picture.fromarray(rows).resize(size, Picture.Resampling.BICUBIC)

    def background(self) -> np.ndarray:
        """The slice in colour, or its first channel in grey: (X, Y, 3), 0 to 255."""
        channels = self.canonical.view(self.image.array)[..., self.depth]
        return np.array(as_colours(channels, self.image.shape[2] == 1).transpose(1, 2, 0))
