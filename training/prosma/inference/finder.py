"""The finder: a coarse network looks at the whole volume and says where a model's structures lie, and on which side.

A model that learnt from volumes cropped to its structure cannot see a whole head. Its package may hold a second, small
package in the folder `finder/`, whose network works on a coarse grid and marks each structure as a whole (the left and the
right hippocampus). The fine model then works on a box of fixed size around each, whatever box a person drew, so that the
result does not depend on the hand. Results carry labels of their own for each region, see `ModelPackage.result_labels`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import EngineError
from ..image.box import Box, slices, start_of, union
from ..image.geometry import Image, closest_orientation
from ..package.model_package import ModelPackage
from ..package.regions import region_labels
from .fit import worst
from .one_piece import largest_part, part_around
from .options import VOLUMES
from .segmentation import Segmentation

LARGER = 1.25  # times the largest training volume: beyond it a volume shows more than the model knows
SMALLEST_ML = 0.5  # of what the finder marks: less is a stray voxel of its coarse grid
# From this probability on a voxel counts for a region's centre. The thin end of a structure seldom wins the argmax, which
# moved centres by 2 mm. Chosen on painted heads of the split `val`, as was the mirror image (`scores_of`).
POSSIBLE = 0.05
ONE_TILE = (
    1.25  # patches along each axis, of a volume that the finder sees at once: in tiles it took three times as long
)
NEAR_MM = 10.0  # from a box drawn by hand to the centre of what was meant: structures are thin, and hands miss
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])  # of places in RAS
OTHER_SIDE = {"7771000": "24028007", "24028007": "7771000"}  # SNOMED CT: left, right


@dataclass(frozen=True)
class Region:
    """What the finder found: its label `number` (1, 2, ...), the `centre` in RAS mm, the marked volume in ml."""

    number: int
    centre: tuple[float, float, float]
    ml: float


def shows_more(image: Image, package: ModelPackage) -> bool:
    """Whether the image reaches much farther, along any axis, than the largest volume that the model learnt from."""
    limits = (package.model.get("field_of_view") or {}).get("max_mm")
    if not limits:
        return False
    axes, _ = closest_orientation(image.ijk_to_ras, package.model["orientation"])
    extents = [image.shape[axis] * image.spacing[axis] for axis in axes]
    return any(extent > LARGER * limit for extent, limit in zip(extents, limits, strict=True))


def averaged_down(image: Image, spacing: Sequence[float], orientation: str) -> Image:
    """The image with whole blocks of voxels averaged, so that none is larger than `spacing` mm (along `orientation`)."""
    axes, _ = closest_orientation(image.ijk_to_ras, orientation)
    wanted = dict(zip(axes, spacing, strict=True))
    factors = [min(image.shape[axis], max(1, int(wanted[axis] / image.spacing[axis] + 1e-3))) for axis in range(3)]
    kept = [size // factor * factor for size, factor in zip(image.shape, factors, strict=True)]
    array = image.array[(slice(None), *(slice(0, size) for size in kept))]
    (i, j, k), (a, b, c) = [size // factor for size, factor in zip(kept, factors, strict=True)], factors
    array = array.reshape(len(array), i, a, j, b, k, c).mean(axis=(2, 4, 6), dtype=np.float32)
    matrix = image.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, :3] @ ((np.array(factors) - 1) / 2)
    matrix[:3, :3] *= factors
    return replace(image, array=array, ijk_to_ras=matrix)


def find_regions(finder, image: Image, cancelled: Callable[[], bool] | None = None) -> list[Region]:
    """The regions that the finder (a Segmenter) marks in an image (first channel): the largest part of each label.

    Its centre is that of all connected voxels in which the label is possible. Empty where it finds nothing.
    """
    model = finder.package.model
    coarse = averaged_down(replace(image, array=image.array[:1]), model["spacing"], model["orientation"])
    scores = scores_of(finder, coarse, cancelled)
    marked = scores.argmax(axis=0)
    regions = []
    for index, label in enumerate(finder.package.labels, start=1):
        part = largest_part(marked == index)
        ml = float(part.sum()) * (coarse.voxel_ml or 0.0)
        if ml >= SMALLEST_ML:
            possible = part_around(part, scores[index] >= POSSIBLE * 255)
            place = np.argwhere(possible).mean(axis=0)
            centre = coarse.ijk_to_ras[:3, :3] @ place + coarse.ijk_to_ras[:3, 3]
            regions.append(Region(label["value"], (float(centre[0]), float(centre[1]), float(centre[2])), ml))
    return regions


def scores_of(finder, coarse: Image, cancelled: Callable[[], bool] | None = None) -> np.ndarray:
    """Probabilities of the finder's labels (1 + labels, I, J, K), 0 to 255; where all have sides also of the mirror image.

    There left is right, so that the mean of both is as good for either side.
    """
    finder.one_tile = ONE_TILE
    scores = finder.segment(coarse, outputs=["probabilities"], cancelled=cancelled).probabilities
    others = counterparts(finder.package.labels)
    if others is None:
        return scores
    mirrored = replace(coarse, ijk_to_ras=MIRROR @ coarse.ijk_to_ras)
    found = finder.segment(mirrored, outputs=["probabilities"], cancelled=cancelled).probabilities
    return (scores.astype(np.float32) + found[[0, *(1 + other for other in others)]]) / 2


def counterparts(labels: Sequence[dict]) -> list[int] | None:
    """For each label the number (from 0) of the same structure's other side; None unless all have one, by their terms."""
    terms = [label.get("terminology") or {} for label in labels]
    found = [(str(term.get("type")), (term.get("modifier") or ["", ""])[1]) for term in terms]
    wanted = [(kind, OTHER_SIDE.get(side)) for kind, side in found]
    return [found.index(other) for other in wanted] if all(other in found for other in wanted) else None


def region_box(image: Image, region: Region, size_mm: Sequence[float], orientation: str) -> Box | None:
    """The voxels of a box of `size_mm` (along `orientation`) around a region, cut to the image; None outside it.

    Its place and size in voxels depend on the region alone, so that the fine model always sees the same.
    """
    centre = np.linalg.solve(image.ijk_to_ras, [*region.centre, 1.0])[:3]
    axes, _ = closest_orientation(image.ijk_to_ras, orientation)
    sides = dict(zip(axes, size_mm, strict=True))
    box = []
    for axis in range(3):
        size = max(1, round(sides[axis] / image.spacing[axis]))
        low = math.floor(centre[axis] - (size - 1) / 2 + 0.501)  # halves go one way in every reader
        low, high = max(0, low), min(image.shape[axis], low + size)
        if low >= high:
            return None
        box.append((int(low), int(high)))
    return tuple(box)


def meant(regions: Sequence[Region], image: Image, box: Box) -> list[Region]:
    """The regions whose centre lies in a box of the image's voxels; where none does, the nearest, NEAR_MM away at most."""
    apart = [mm_outside(region, image, box) for region in regions]
    nearest = min(apart, default=0.0)
    return [region for region, mm in zip(regions, apart, strict=True) if mm <= min(nearest, NEAR_MM)]


def mm_outside(region: Region, image: Image, box: Box) -> float:
    """How far a region's centre lies from a box of the image's voxels; 0 inside."""
    centre = np.linalg.solve(image.ijk_to_ras, [*region.centre, 1.0])[:3]
    beyond = [max(low - 0.5 - at, at - high + 0.5, 0.0) for at, (low, high) in zip(centre, box, strict=True)]
    return float(np.linalg.norm(np.multiply(beyond, image.spacing)))


def nothing_found(package: ModelPackage, outside: bool) -> EngineError:
    """The error for a volume that is larger than the model knows and in which the finder marks nothing to work on."""
    names = ", ".join(label["name"] for label in package.labels)
    where = "inside the region of interest" if outside else "in this volume"
    return EngineError(
        "bad_input",
        f"The model '{package.name}' looks for {names}, but its finder marks nothing of the kind {where}.",
        "Check that this is the right model; else set a region of interest closely around the structure.",
    )


def merged(parts: Sequence[tuple[Region, Segmentation]], package: ModelPackage, allocate) -> Segmentation:
    """One result of those of all regions: labels by region, volumes on the smallest box around them."""
    count = len(package.labels)
    first = parts[0][1]
    box = union(part.box for _, part in parts) or first.box
    result = Segmentation(
        labels=np.zeros_like(first.labels),
        box=box,
        device=first.device,
        described=[label for region, _ in parts for label in region_labels(package.model, region.number)],
        statistics=merged_statistics([part.statistics for _, part in parts]),
        fit=worst([part.fit for _, part in parts]),
        expected_dice={
            value + region.number * count: expected
            for region, part in parts
            for value, expected in part.expected_dice.items()
        },
    )
    for region, part in parts:
        found = part.labels > 0
        result.labels[found] = part.labels[found] + region.number * count
    shape = [high - low for low, high in box]
    for name in VOLUMES:
        if getattr(first, name) is None:
            continue
        classes = 1 + len(package.result_labels) if name == "probabilities" else None
        volume = allocate(name, tuple(shape), classes, getattr(first, name).dtype)
        place_volumes(volume, name, [(region, part, getattr(part, name)) for region, part in parts], box, count)
        setattr(result, name, volume)
    if first.reach is not None:
        result.reach = [None] * len(package.result_labels)
        for region, part in parts:
            start = region.number * count
            result.reach[start : start + count] = part.reach or []
    return result


def place_volumes(volume: np.ndarray, name: str, parts: Sequence[tuple], box: Box, count: int) -> None:
    """Fill a volume on `box` with those of the regions; where regions overlap, the larger value stays."""
    if name == "probabilities":
        volume[0] = 255
    for region, part, values in parts:
        i, j, k = slices(part.box, start_of(box))
        if name != "probabilities":
            volume[i, j, k] = np.maximum(volume[i, j, k], values)
            continue
        volume[0, i, j, k] = np.minimum(volume[0, i, j, k], values[0])
        first = 1 + region.number * count
        volume[first : first + count, i, j, k] = values[1:]


def merged_statistics(parts: Sequence[dict]) -> dict:
    """Statistics of several regions: counts of tiles added up, everything else averaged, entry by entry."""
    sums = ("tiles", "of_tiles")
    return {
        key: sum(part[key] for part in parts) if key in sums else averaged([part[key] for part in parts])
        for key in parts[0]
    }


def averaged(values: Sequence):
    """The mean of numbers; of lists and dicts of one form, entry by entry; other values as the first has them."""
    first = values[0]
    if isinstance(first, dict):
        return {key: averaged([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [averaged(list(entries)) for entries in zip(*values, strict=True)]
    if isinstance(first, (int, float)) and not isinstance(first, bool):
        mean = sum(values) / len(values)
        return round(mean) if all(isinstance(value, int) for value in values) else mean
    return first
