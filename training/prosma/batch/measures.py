"""Measures of segments for tables of a cohort: where each lies, how large it is, and what the image is like inside."""

from __future__ import annotations

import numpy as np

from ..image.box import slices, start_of
from ..image.geometry import Image
from ..image.labels import Extent, extents_of, segment_volumes


def describe_segments(
    labels: np.ndarray, image: Image, descriptions: list[dict], extents: list[Extent], in_full: bool = False
) -> list[dict]:
    """One entry for each of a model's labels: value, name, voxels, ml (None for pictures), and `in_full` see `measure`.

    Args:
        labels: (I, J, K), on the grid of the image.
        descriptions: of the labels that it may hold.
        extents: of labels 1, 2, 3, ... in it.
    """
    entries = segment_volumes(extents, image.voxel_ml, descriptions)
    return [
        {**entry, "name": label["name"], **(measure(labels, image, label["value"], extent) if in_full else {})}
        for entry, extent, label in zip(entries, extents_of(extents, descriptions), descriptions, strict=True)
    ]


def add_uncertainty(segments: list[dict], labels: np.ndarray, uncertainty: np.ndarray) -> None:
    """Give each entry `uncertainty`: the mean over its voxels, 0 (sure) to 1 (all classes alike), None where it has none.

    `labels` and `uncertainty` (entropy, 255 for its greatest possible value) are (I, J, K) of the same part of the grid.
    """
    most = max(entry["value"] for entry in segments)
    counts = np.bincount(labels.ravel(order="K"), minlength=most + 1)
    sums = np.bincount(labels.ravel(order="K"), uncertainty.ravel(order="K"), minlength=most + 1)
    for entry in segments:
        count = int(counts[entry["value"]])
        entry["uncertainty"] = round(float(sums[entry["value"]]) / count / 255, 4) if count else None


def measure(labels: np.ndarray, image: Image, value: int, extent: Extent) -> dict:
    """More about one label; every number is None where it is empty.

    `surface_mm2` of a volume, or `boundary_mm` of a single slice, `boundary_pixels` of a picture without a voxel size: by
    Crofton's formula (LabelShapeStatisticsImageFilter of ITK, Lehmann and Legland, Insight Journal 2012).
    `centroid_ras`: mm, or for pictures `centroid_ij`: pixels. `box`: of voxels (low, high) along I, J, K, half open.
    `mean` and `deviation` (population) of the image's values inside, for each channel.
    """
    size = "boundary_pixels" if not image.spacing_known else "boundary_mm" if labels.shape[2] == 1 else "surface_mm2"
    place = "centroid_ras" if image.spacing_known else "centroid_ij"
    if extent.box is None:
        return {size: None, place: None, "box": None, "mean": None, "deviation": None}
    part = slices(extent.box)
    mask = labels[part] == value
    centre = np.add(start_of(extent.box), [index.mean() for index in np.nonzero(mask)])
    inside = image.array[(slice(None), *part)][:, mask].astype(np.float64)
    point = (image.ijk_to_ras @ [*centre, 1.0])[:3] if image.spacing_known else centre[:2]
    return {
        size: round(surface(mask, image.spacing if image.spacing_known else (1.0, 1.0, 1.0), labels.shape[2] == 1), 4),
        place: [round(float(number), 4) for number in point],
        "box": [list(pair) for pair in extent.box],
        "mean": [float(number) for number in inside.mean(axis=1)],
        "deviation": [float(number) for number in inside.std(axis=1)],
    }


def surface(mask: np.ndarray, spacing: tuple[float, ...], flat: bool) -> float:
    """Area in mm2 of the surface of a mask (I, J, K), or length in mm of its boundary where it is `flat` (K = 1)."""
    import SimpleITK as sitk

    array = np.pad(mask[..., 0] if flat else mask, 1).astype(np.uint8)
    picture = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    picture.SetSpacing(spacing[: array.ndim])
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.ComputePerimeterOn()
    shape.Execute(picture)
    return shape.GetPerimeter(1)
