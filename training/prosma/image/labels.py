"""Facts about a label map: where each label lies, how much of it there is, and what Slicer wants to know about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .box import Box, slices, smallest, span, start_of

# Lists of terms in Slicer, in which its selector looks terms up: of the two that Slicer brings the longer one, and ours
# (ProSMASegmentation/Resources/Terminologies) for (type, modifier) that the other lacks.
TERMINOLOGY_CONTEXT = "Segmentation category and type - DICOM master list"
OWN_CONTEXT = "Segmentation category and type - ProSMA"
OWN_TERMS = {("5366008", "255549009"), ("5366008", "255551008"), ("134358001", ""), ("41329004", "")}
ANATOMIC_CONTEXT = "Anatomic codes - DICOM master list"
COUNTED_AT_ONCE = 1 << 18  # voxels: the fewer calls the better, but eight bytes each lie between


@dataclass(frozen=True)
class Extent:
    """Voxels of one label: their number and the smallest box ((i0, i1), (j0, j1), (k0, k1)), half open; None if none."""

    voxels: int
    box: Box | None


def label_extents(labels: np.ndarray, count: int) -> list[Extent]:
    """The extents of labels 1 ... count in a label map (I, J, K), in one pass for each axis."""
    box = smallest(labels > 0)
    if box is None:
        return [Extent(0, None)] * count
    part, corner = labels[slices(box)], start_of(box)
    columns = max(count, int(part.max())) + 1
    present = [_along(np.moveaxis(part, axis, 0), columns) for axis in range(3)]
    totals = present[0].sum(axis=0)
    return [
        Extent(int(totals[value]), _box_of(present, corner, value) if totals[value] else None)
        for value in range(1, count + 1)
    ]


def _along(planes: np.ndarray, columns: int) -> np.ndarray:
    """How often each value 0 ... columns - 1 occurs in each plane, (planes, columns); some planes at once."""
    at_once = max(1, COUNTED_AT_ONCE // planes[0].size)
    tables = []
    for first in range(0, len(planes), at_once):
        some = planes[first : first + at_once]
        cells = some + columns * np.arange(len(some)).reshape(-1, 1, 1)
        table = np.bincount(cells.ravel(order="K"), minlength=columns * len(some))
        tables.append(table.reshape(len(some), columns))
    return np.concatenate(tables)


def _box_of(present: list[np.ndarray], corner: Sequence[int], value: int) -> Box:
    """The smallest box of a label that is there; what is `present` was counted from a `corner`."""
    along = [found for table in present if (found := span(table[:, value] > 0))]
    return tuple((low + start, high + start) for (low, high), start in zip(along, corner, strict=True))


def extents_of(extents: Sequence[Extent], described: Sequence[dict]) -> list[Extent]:
    """Those of the described labels among the extents of labels 1, 2, 3, ..."""
    return [extents[label["value"] - 1] for label in described]


def segment_volumes(
    extents: list[Extent], voxel_ml: float | None, described: Sequence[dict] | None = None
) -> list[dict]:
    """For reports: value, voxels and millilitres of each label, or of those in `described` alone."""
    wanted = range(1, len(extents) + 1) if described is None else [label["value"] for label in described]
    return [
        {
            "value": value,
            "voxels": extent.voxels,
            "ml": None if voxel_ml is None else round(extent.voxels * voxel_ml, 6),
        }
        for value, extent in ((value, extents[value - 1]) for value in wanted)
    ]


def terminology_entry(terminology: dict | None) -> str:
    """Slicer's text for a label's terminology ({"category", "type", "modifier"}: [scheme, code, meaning]), or ""."""
    if not terminology:
        return ""
    codes = [terminology.get(part) or ("", "", "") for part in ("category", "type", "modifier")]
    context = OWN_CONTEXT if (codes[1][1], codes[2][1]) in OWN_TERMS else TERMINOLOGY_CONTEXT
    return "~".join([context, *map("^".join, codes), ANATOMIC_CONTEXT, "^^", "^^"])
