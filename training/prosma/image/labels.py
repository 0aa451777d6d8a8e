"""Facts about a label map: where each label lies, how much of it there is, and what Slicer wants to know about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .axes import as_kji
from .box import Box, union
from .edited_segments import Fingerprints
from .label_runs import runs_by_value, slabs_of

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


@dataclass(frozen=True)
class LabelFacts:
    """Of a label map: the `extents` of labels 1, 2, 3, ..., and the `fingerprints` of those that occur."""

    extents: list[Extent]
    fingerprints: dict[int, str]

    @classmethod
    def of(cls, labels: np.ndarray, ijk_to_ras: np.ndarray, described: Sequence[dict]) -> LabelFacts:
        """Both at one look, of a label map (I, J, K) that may hold the described labels."""
        written = Fingerprints()
        extents = label_extents(labels, max(label["value"] for label in described), written)
        return cls(extents, written.texts(ijk_to_ras))


def label_extents(labels: np.ndarray, count: int, written: Fingerprints | None = None) -> list[Extent]:
    """The extents of labels 1 ... count in a label map (I, J, K), whose runs `written` gets, too."""
    voxels, first = [0] * count, 0
    boxes: list[Box | None] = [None] * count
    for slab in slabs_of(as_kji(labels)):
        for value, runs in runs_by_value(slab, first):
            if value <= count:
                *begins, lengths = runs.T[[2, 1, 0, 3]]
                ends = [begins[0] + lengths, begins[1] + 1, begins[2] + 1]
                box = tuple((int(begin.min()), int(end.max())) for begin, end in zip(begins, ends, strict=True))
                voxels[value - 1] += int(lengths.sum())
                boxes[value - 1] = union(filter(None, (boxes[value - 1], box)))
            if written is not None:
                written.add_runs(value, runs)
        first += len(slab)
    return list(map(Extent, voxels, boxes))


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
