"""Preprocessing: what a run knows of its image before the network starts, made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import EngineError
from ..fast.allocator import LARGE, release_freed_memory
from ..image.box import Box, shape_of, whole
from ..image.constants import LUMA
from ..image.geometry import Canonical, Image, ImageError, finite_image, plan_canonical, usable_image
from ..image.grid_fit import misfits
from ..image.intensity import contrast_notices, foreground, normalise, rule_for
from ..image.modality import PHOTOGRAPHS
from ..package import ModelPackage
from .memory_ladder import physical_memory

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Prepared:
    """An image on a model's grid.

    `shape`: the whole image's (I, J, K); `box`: the part of it that is looked at, the region of interest. `notices`: what
    was changed. `grid`: the way from the part's grid to the model's, and back. `array`: float32 (C, X, Y, Z), normalised, of
    what lies inside the slices `inside` of the model's grid; the rest is empty. `lowest`: the least value of the part.
    `image_features`: those that its fit is judged by, where they are known already (`inference.ahead`).
    """

    shape: tuple[int, int, int]
    box: Box
    notices: tuple[str, ...]
    grid: Canonical
    array: np.ndarray
    inside: tuple[slice, ...]
    lowest: float
    image_features: np.ndarray | None = None


def prepare(image: Image, package: ModelPackage, roi=None, shortcuts: bool = True, force: bool = False) -> Prepared:
    """Crop to the region of interest, match channels, replace what is not finite, reorient, resample, normalise.

    Args:
        image: (C, I, J, K) with its geometry; its voxels stay as they are.
        roi: ((i0, i1), (j0, j1), (k0, k1)), half open; None for the whole image.
        shortcuts: crop, on the model's grid, to the box of what is not empty; not for 2D models.
        force: take an image whose grid does not suit the model, too.

    Raises ImageError for an image that the model cannot take, EngineError does_not_fit for a grid that does not suit it and
    out_of_memory for one that no memory holds.
    """
    image = usable_image(image)
    box = roi_box(roi, image.shape)
    refuse_single_slice(shape_of(box), package)
    part = match_channels(image.cropped(box), package)
    intensity, scaling = rule_for(image.array, package.model["intensity"])
    fit = check_grid(part, package, roi is not None, force)
    part = finite_image(part)
    grid = plan_canonical(part, package)
    refuse_what_no_memory_holds(grid.size, len(part.array))
    array = normalise(grid.bring_image(part.array), intensity, copy=False)
    fit += contrast_notices(array, [channel["name"] for channel in package.channels])
    inside = tuple(slice(0, n) for n in array.shape[1:])
    if shortcuts and package.dimension == 3:
        inside = foreground(array, package.model["patch_size"])
        cropped = (slice(None), *inside)
        array = np.ascontiguousarray(array[cropped])
    if array.nbytes > LARGE:
        release_freed_memory()  # blocks that the network's larger ones would not fit into
    return Prepared(image.shape, box, (*part.notices, *scaling, *fit), grid, array, inside, float(part.array.min()))


def roi_box(roi, shape: Sequence[int]) -> Box:
    """`roi` cut to the volume, or the whole volume for None; ImageError where nothing is left."""
    if roi is None:
        return whole(shape)
    try:
        box = tuple((max(0, int(low)), min(int(n), int(high))) for (low, high), n in zip(roi, shape, strict=True))
    except (TypeError, ValueError):
        raise ImageError("The ROI is not three pairs of voxel numbers.", "Give it as i0 i1 j0 j1 k0 k1.") from None
    if any(low >= high for low, high in box):
        raise ImageError("The ROI does not touch the volume.", "Move it over the volume or do without.")
    return box


def refuse_single_slice(shape: Sequence[int], package: ModelPackage) -> None:
    """ImageError for a single slice given to a model that works on volumes."""
    if package.dimension == 3 and min(shape) == 1:
        raise ImageError(
            f"The model '{package.name}' works on volumes, but this is a single slice.",
            "Choose a volume or a 2D model.",
        )


def match_channels(image: Image, package: ModelPackage) -> Image:
    """The image with as many channels as the model has; grey and colour photographs are turned into each other."""
    have, need = len(image.array), len(package.channels)
    names = ", ".join(channel["name"] for channel in package.channels)
    if have == need:
        as_colours = PHOTOGRAPHS in image.modalities and package.model["modality"] != PHOTOGRAPHS
        told = f"The image's file holds colours; they were taken as {names}."
        return replace(image, notices=(*image.notices, told)) if as_colours else image
    if (have, need) == (1, 3) and package.dimension == 2:
        array, notice = np.repeat(image.array, 3, axis=0), "The grey image was used for all three colours."
    elif (have, need) == (3, 1):
        array = np.tensordot(np.array(LUMA, np.float32), image.array.astype(np.float32), axes=1)[None]
        notice = "The colours were turned into grey."
    else:
        several = "s" if need > 1 else ""
        one = "Choose the channel to use, or save it as a file of its own."
        raise ImageError(
            f"The model '{package.name}' takes {need} channel{several} ({names}), the image has {have}.",
            "Give one image for each channel, in this order." if need > have else one,
        )
    return replace(image, array=array, notices=(*image.notices, notice))


def check_grid(part: Image, package: ModelPackage, has_roi: bool, force: bool) -> list[str]:
    """Notices about a grid that suits the model badly; EngineError for one that does not suit it, unless forced."""
    found = misfits(package.model, part, has_roi)
    refused = [misfit for misfit in found if misfit.is_refused]
    if refused and not force:
        raise EngineError("does_not_fit", refused[0].why, refused[0].remedy)
    return [str(misfit) for misfit in found]


def refuse_what_no_memory_holds(size: Sequence[int], channels: int) -> None:
    """EngineError for grids that the computer could never hold, instead of letting the system kill the process."""
    needed = FLOAT32_BYTES * 2 * channels * float(np.prod(size, dtype=np.float64))
    available = physical_memory()
    if available and needed > 0.8 * available:
        raise EngineError(
            "out_of_memory",
            f"On the model's grid the volume has {' x '.join(map(str, size))} voxels, which needs "
            f"{needed / 2**30:.0f} GB; the computer has {available / 2**30:.0f} GB.",
            "Limit the work to an ROI.",
        )
