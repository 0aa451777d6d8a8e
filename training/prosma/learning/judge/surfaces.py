"""How far apart the surfaces of two segmentations are, with scipy's exact Euclidean distance transform."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def surface_metrics(
    predicted: np.ndarray, reference: np.ndarray, spacing: Sequence[float], tolerance: float
) -> dict[str, float | None]:
    """``hd95`` and ``nsd`` of two boolean arrays (I, J, K); distances in the unit of ``spacing`` (I, J, K).

    The surface of a mask is its voxels that have a face neighbour outside it or lie at the image's edge; distances run
    between voxel centres. ``hd95``: the greater one of the two directed 95th percentiles of the distances from one
    surface to the other; None unless both masks have voxels. ``nsd``, the normalised surface Dice (Nikolov et al.,
    arXiv 1809.04430, here counting voxels): the share of both surfaces that lies within ``tolerance`` of the other; 0
    where just one mask is empty, None where both are. Single slices are compared as 2D images.
    """
    if not (predicted.any() or reference.any()):
        return {"hd95": None, "nsd": None}
    if not (predicted.any() and reference.any()):
        return {"hd95": None, "nsd": 0.0}
    thick = [axis for axis, size in enumerate(predicted.shape) if size > 1] or [0]
    spacing = [spacing[axis] for axis in thick]
    thin = tuple(axis for axis in range(predicted.ndim) if axis not in thick)
    box = ndimage.find_objects((predicted | reference).astype(np.uint8))[0]
    surfaces = [surface(mask[box].squeeze(thin)) for mask in (predicted, reference)]
    to_predicted, to_reference = (ndimage.distance_transform_edt(~mask, sampling=spacing) for mask in surfaces)
    distances = [to_reference[surfaces[0]], to_predicted[surfaces[1]]]
    near = sum(np.count_nonzero(values <= tolerance * (1 + 1e-6)) for values in distances)
    return {
        "hd95": float(max(np.percentile(values, 95) for values in distances)),
        "nsd": float(near / sum(values.size for values in distances)),
    }


def surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of a boolean mask with a face neighbour outside it; beyond the array is outside."""
    return mask & ~ndimage.binary_erosion(mask)
