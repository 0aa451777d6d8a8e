"""Facts about a label map: where each label lies, how much of it there is, and what Slicer wants to know about it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .axes import as_kji
from .box import Box, span

BYTES_PER_SLAB = 1 << 22
TOLERANCE_MM = 0.02  # between two places that count as the same: file formats round the geometry
# Lists of terms in Slicer, in which its selector looks terms up: of the two that Slicer brings the longer one, and ours
# (ProSMASegmentation/Resources/Terminologies) for (type, modifier) that the other lacks.
TERMINOLOGY_CONTEXT = "Segmentation category and type - DICOM master list"
OWN_CONTEXT = "Segmentation category and type - ProSMA"
OWN_TERMS = {("5366008", "255549009"), ("5366008", "255551008"), ("134358001", ""), ("41329004", "")}
ANATOMIC_CONTEXT = "Anatomic codes - DICOM master list"


@dataclass(frozen=True)
class Extent:
    """Voxels of one label: their number and the smallest box ((i0, i1), (j0, j1), (k0, k1)), half open; None if none."""

    voxels: int
    box: Box | None


def label_extents(labels: np.ndarray, count: int) -> list[Extent]:
    """The extents of labels 1 ... count in a label map (I, J, K), in one pass for each axis."""
    present = []  # for each axis: (samples along it, labels), voxels of each label
    for axis in range(3):
        planes = np.moveaxis(labels, axis, 0)
        present.append(np.stack([np.bincount(plane.ravel(order="K"), minlength=count + 1) for plane in planes]))
    totals = present[0].sum(axis=0)
    return [
        Extent(int(totals[value]), _box_of(present, value) if totals[value] else None) for value in range(1, count + 1)
    ]


def _box_of(present: list[np.ndarray], value: int) -> Box:
    """The smallest box of a label that is there."""
    return tuple(found for table in present if (found := span(table[:, value] > 0)))


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


class Fingerprints:
    """Texts that tell whether the voxels of segments are still the ones that were written, computed slab by slab.

    A text does not depend on how the voxels are stored (extent, label value, layer), so it survives saving and loading. It
    is a digest of the runs of voxels along the rows (k, j, i of its begin, seen from the first one, and length), and the
    place of the first voxel in mm.
    """

    def __init__(self) -> None:
        self._first: dict[int, np.ndarray] = {}  # k, j, i of each label's first voxel
        self._digests: dict = {}
        self._slices = 0

    def add(self, slab: np.ndarray) -> None:
        """The next slices of a label map, (K, J, I)."""
        for value, runs in _runs_by_value(slab, self._slices):
            first = self._first.setdefault(value, runs[0, :3].copy())
            runs[:, :3] -= first
            self._digests.setdefault(value, hashlib.blake2b(digest_size=16)).update(runs.tobytes())
        self._slices += len(slab)

    def texts(self, ijk_to_ras: np.ndarray, start=(0, 0, 0)) -> dict[int, str]:
        """{label: its text}, for the labels above 0 that occurred. `start`: i, j, k of the label map's first voxel."""
        texts = {}
        for value, digest in self._digests.items():
            index = [int(n) + shift for n, shift in zip(self._first[value][::-1], start, strict=True)]
            place = (np.asarray(ijk_to_ras) @ [*index, 1.0])[:3]
            texts[value] = f"{digest.hexdigest()}@{','.join(f'{mm:.4f}' for mm in place)}"
        return texts


def fingerprints(labels: np.ndarray, ijk_to_ras: np.ndarray) -> dict[int, str]:
    """The fingerprints of all labels in a label map (I, J, K) at once."""
    found, array = Fingerprints(), as_kji(labels)
    step = max(1, BYTES_PER_SLAB // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        found.add(array[start : start + step])
    return found.texts(ijk_to_ras)


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same voxels at the same place."""
    (digest, _, place), (other_digest, _, other_place) = one.partition("@"), other.partition("@")
    if digest != other_digest or bool(place) != bool(other_place):
        return False
    pairs = zip(place.split(","), other_place.split(","), strict=True) if place else ()
    return all(abs(float(a) - float(b)) <= TOLERANCE_MM for a, b in pairs)


def _runs_by_value(slab: np.ndarray, start: int):
    """Pairs (label, its runs: k, j, i, length) in a slab (K, J, I) whose first slice is number `start`."""
    begins = np.ones(slab.shape, bool)
    np.not_equal(slab[..., 1:], slab[..., :-1], out=begins[..., 1:])
    flat = np.flatnonzero(begins)
    lengths = np.diff(flat, append=slab.size)
    values = slab.reshape(-1)[flat]
    inside = values > 0
    flat, lengths, values = flat[inside], lengths[inside], values[inside]
    k, j, i = np.unravel_index(flat, slab.shape)
    runs = np.stack([k + start, j, i, lengths], axis=1).astype("<i4")
    order = np.argsort(values, kind="stable")
    found, begin = np.unique(values[order], return_index=True)
    for value, part in zip(found, np.split(runs[order], begin[1:]), strict=False):
        yield int(value), part


def terminology_entry(terminology: dict | None) -> str:
    """Slicer's text for a label's terminology ({"category", "type", "modifier"}: [scheme, code, meaning]), or ""."""
    if not terminology:
        return ""
    codes = [terminology.get(part) or ("", "", "") for part in ("category", "type", "modifier")]
    context = OWN_CONTEXT if (codes[1][1], codes[2][1]) in OWN_TERMS else TERMINOLOGY_CONTEXT
    return "~".join([context, *map("^".join, codes), ANATOMIC_CONTEXT, "^^", "^^"])
