"""Facts about a label map: where each label lies, how much of it there is, and what Slicer wants to know about it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

TERMINOLOGY_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
ANATOMIC_CONTEXT = "Anatomic codes - DICOM master list"


@dataclass(frozen=True)
class Extent:
    """Voxels of one label: their number and the smallest box ((i0, i1), (j0, j1), (k0, k1)), half open; None if none."""

    voxels: int
    box: tuple[tuple[int, int], ...] | None


def label_extents(labels: np.ndarray, count: int) -> list[Extent]:
    """The extents of labels 1 ... count in a label map (I, J, K), in one pass for each axis."""
    present = []  # for each axis: (samples along it, labels), voxels of each label
    for axis in range(3):
        planes = np.moveaxis(labels, axis, 0)
        present.append(np.stack([np.bincount(plane.ravel(order="K"), minlength=count + 1) for plane in planes]))
    totals = present[0].sum(axis=0)
    return [
        Extent(int(totals[value]), tuple(_range(table[:, value]) for table in present) if totals[value] else None)
        for value in range(1, count + 1)
    ]


def _range(counts: np.ndarray) -> tuple[int, int]:
    where = np.flatnonzero(counts)
    return int(where[0]), int(where[-1]) + 1


def union_box(extents: list[Extent]) -> tuple[tuple[int, int], ...] | None:
    """The smallest box around all labels; None where nothing was found."""
    boxes = [extent.box for extent in extents if extent.box]
    if not boxes:
        return None
    return tuple((min(box[n][0] for box in boxes), max(box[n][1] for box in boxes)) for n in range(3))


def segment_volumes(extents: list[Extent], voxel_ml: float) -> list[dict]:
    """For reports: value, voxels and millilitres of each label."""
    return [
        {"value": value, "voxels": extent.voxels, "ml": round(extent.voxels * voxel_ml, 6)}
        for value, extent in enumerate(extents, start=1)
    ]


def fingerprint(labels: np.ndarray, value: int, extent: Extent, ijk_to_ras: np.ndarray) -> str:
    """A text that tells whether a segment's voxels are still the ones written; the same as the Slicer module's.

    A digest of the runs of voxels along the rows (k, j, i, length; seen from the first one), and the place of that first
    voxel in mm; "empty" for none.
    """
    if extent.box is None:
        return "empty"
    mask = (labels[tuple(slice(*pair) for pair in extent.box)] == value).T
    steps = np.diff(mask.astype(np.int8), axis=2, prepend=0, append=0)
    begins, ends = np.stack(np.nonzero(steps > 0), axis=1), np.nonzero(steps < 0)[2]
    lengths = ends - begins[:, 2]
    runs = np.column_stack([begins - begins[0], lengths]).astype("<i4")
    digest = hashlib.blake2b(runs.tobytes(), digest_size=16)
    first = [low + int(step) for (low, _), step in zip(extent.box, reversed(begins[0]), strict=True)]
    place = (ijk_to_ras @ [*first, 1.0])[:3]
    return digest.hexdigest() + "@" + ",".join(f"{mm:.4f}" for mm in place)


def terminology_entry(terminology: dict | None) -> str:
    """Slicer's text for a label's terminology ({"category", "type", "modifier"}: [scheme, code, meaning]), or ""."""
    if not terminology:
        return ""
    codes = ["^".join(terminology.get(part) or ("", "", "")) for part in ("category", "type", "modifier")]
    return "~".join([TERMINOLOGY_CONTEXT, *codes, ANATOMIC_CONTEXT, "^^", "^^"])
