"""Whether an image's grid suits a model: voxel size, extent, and what resampling to the model's grid makes of it.

The same for every door: the panel asks before the click, the engine before each run. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from .geometry import Canonical, Image, plan_canonical

OTHER_UNIT = 50.0  # times the model's voxel size: no scan, but metres or microns taken for millimetres
FAR_SPACING = 3.0  # times the model's voxel size
FAR_FIELD = 1.1  # times the model's extents
LEAST_SIZE = 4  # voxels of the model along an axis, where resampling brought an image to so few
MOST_GROWTH = 64  # times as many voxels on the model's grid as the image has

# What a kind of misfit is called: why, what to do, and what to do instead where the work is limited to an ROI.
SENTENCES = {
    "tiny": (
        "The voxels measure {have} mm, the model was trained with {want} mm: metres were taken for mm, it seems.",
        "Correct the image's voxel size.",
    ),
    "huge": (
        "The voxels measure {have} mm, the model was trained with {want} mm: microns were taken for mm, it seems.",
        "Correct the image's voxel size.",
    ),
    "merged": (
        "The model works with voxels of {want} mm, of which the whole image has only {size}.",
        "Choose a model for smaller voxels, or correct the image's voxel size.",
        "Make the ROI larger.",
    ),
    "multiplied": (
        "The model works with voxels of {want} mm; of these the image has {size}, {times} times its own number.",
        "Choose a model for larger voxels, or a finer scan.",
    ),
    "coarse": (
        "The voxels measure {have} mm; the model was trained with {want} mm, so expect a poorer result.",
        "Use a scan with smaller voxels, or another model.",
    ),
    "fine": (
        "The voxels measure {have} mm; the model works with {want} mm and sees nothing finer.",
        "Use a model for smaller voxels where that matters.",
    ),
    "large": (
        "The region measures {have} mm; the model knows regions of up to {limit} mm.",
        "Place an ROI around the structure.",
        "Make the ROI smaller.",
    ),
    "small": (
        "The region measures {have} mm; the model expects at least {limit} mm around the structure.",
        "Use a scan that shows more.",
        "Make the ROI larger.",
    ),
    "unsized": (
        "The model works with pixels of {want} mm, but the size of this picture's pixels is not known.",
        "Use an image with a known pixel size.",
    ),
}
REFUSED = {"tiny", "huge", "merged", "multiplied"}  # the result would be worthless, or take without end


@dataclass(frozen=True)
class Misfit:
    """One way in which an image does not suit a model: its `kind` and the `values` for the sentences of that kind."""

    kind: str
    values: dict[str, str]
    has_roi: bool

    @property
    def is_refused(self) -> bool:
        """Whether it should not be run without being asked for."""
        return self.kind in REFUSED

    @property
    def why(self) -> str:
        """What does not fit."""
        return SENTENCES[self.kind][0].format(**self.values)

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return SENTENCES[self.kind][-1 if self.has_roi else 1]

    def __str__(self) -> str:
        return f"{self.why} {self.remedy}"


def misfits(model: dict, image: Image, has_roi: bool = False) -> list[Misfit]:
    """How `image`, which may be a part of one, does not suit the model (the content of model.json), worst first."""
    canonical, found = plan_canonical(image, model), []
    spacing = along(image.spacing, canonical)
    if model.get("spacing"):
        if image.spacing_known:
            found = _by_spacing(model["spacing"], spacing, canonical, image.shape)
        else:
            found = [("unsized", {"want": sizes(model["spacing"])})]
    if model["dimension"] == 3 and not any(kind in REFUSED for kind, _ in found):
        extents = [mm * count for mm, count in zip(spacing, canonical.oriented_shape, strict=True)]
        kinds = _by_extent(model.get("field_of_view") or {}, extents)
        found += [kind for kind in kinds if not (kind[0] == "large" and model.get("finder"))]  # the finder looks where
    return [Misfit(kind, values, has_roi) for kind, values in found]


def misfits_of_grid(model: dict, shape: Sequence[int], ijk_to_ras, has_roi: bool = False) -> list[Misfit]:
    """`misfits` of a grid of `shape` (I, J, K) without its voxels."""
    voxels = np.broadcast_to(np.uint8(0), (1, *shape))
    return misfits(model, Image(voxels, np.asarray(ijk_to_ras, dtype=np.float64)), has_roi)


def along(values: Sequence[float], canonical: Canonical) -> list[float]:
    """Values given for I, J, K in the order of the model's axes."""
    return [values[axis] for axis in canonical.axes]


def _by_spacing(wanted, spacing, canonical: Canonical, shape) -> list[tuple[str, dict]]:
    """What the voxel size makes of an image; `spacing` along the model's axes."""
    axes = range(len(wanted))
    facts = {"have": sizes(spacing), "want": sizes(wanted), "size": sizes(canonical.size)}
    coarser = max(spacing[n] / wanted[n] for n in axes)
    finer = max(wanted[n] / spacing[n] for n in axes)
    if finer >= OTHER_UNIT:
        return [("tiny", facts)]
    if coarser >= OTHER_UNIT:
        return [("huge", facts)]
    before, after = canonical.oriented_shape, canonical.size
    if any(after[n] < LEAST_SIZE and before[n] > 2 * after[n] for n in axes):
        return [("merged", facts)]
    times = prod(float(n) for n in after) / prod(float(n) for n in shape)
    if times > MOST_GROWTH:
        return [("multiplied", {**facts, "times": f"{times:.0f}"})]
    if max(coarser, finer) <= FAR_SPACING:
        return []
    return [("coarse" if coarser > FAR_SPACING else "fine", facts)]


def _by_extent(field: dict, extents) -> list[tuple[str, dict]]:
    """What the extents along the model's axes are against the model's `field_of_view`."""
    largest, smallest = field.get("max_mm"), field.get("min_mm")
    if largest and any(have > FAR_FIELD * limit for have, limit in zip(extents, largest, strict=True)):
        return [("large", {"have": sizes(extents), "limit": sizes(largest)})]
    if smallest and any(have * FAR_FIELD < limit for have, limit in zip(extents, smallest, strict=True)):
        return [("small", {"have": sizes(extents), "limit": sizes(smallest)})]
    return []


def sizes(values: Sequence[float]) -> str:
    """Numbers along the axes as text."""
    return " x ".join(f"{value:.6g}" if value >= 1000 else f"{value:.3g}" for value in values)
