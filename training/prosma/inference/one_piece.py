"""Structures that are in one piece: of each, what lies apart from its largest connected part is left out, and told.

The entry `one_piece` of a model says for which labels, and for which of them together, this is worth it; chosen on
validation cases, as nnU-Net does (Isensee et al., Nature Methods 18, 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..image.box import slices, union
from ..image.labels import label_extents


def keep_one_piece(
    labels: np.ndarray, groups: Sequence[Sequence[int]], described: Sequence[dict], voxel_ml: float | None
) -> list[str]:
    """Take out of a label map (I, J, K) what lies apart; a notice where that was anything.

    `groups`: values of labels of which all voxels together are one piece. `described`: the labels by their values.
    `voxel_ml`: None for pictures without a size.
    """
    count = max(label["value"] for label in described)
    boxes = [extent.box for extent in label_extents(labels, count)]
    lost = np.zeros(count + 1, np.int64)
    for group in groups:
        box = union(found for value in group if (found := boxes[value - 1]))
        if box is None:
            continue
        part = labels[slices(box)]
        mask = np.isin(part, group)
        apart = mask & ~largest_part(mask)
        lost += np.bincount(part[apart], minlength=count + 1)
        part[apart] = 0
    told = [
        f"{label['name']} {size(int(lost[label['value']]), voxel_ml)}" for label in described if lost[label["value"]]
    ]
    if not told:
        return []
    return [f"Left out, because it lay apart from the largest part of its structure: {', '.join(told)}."]


def size(voxels: int, voxel_ml: float | None) -> str:
    """A number of voxels in words: pixels, or two digits of the volume."""
    if voxel_ml is None:
        return f"{voxels} pixels"
    return f"{float(f'{voxels * voxel_ml:.2g}'):g} ml"


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected component of a mask (I, J, K), neighbours by faces, edges and corners."""
    return part_around(mask, mask)


def part_around(core: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The connected component of a mask (I, J, K) that holds most of a smaller one; corners touch too."""
    if not (mask & core).any():
        return mask & core
    import SimpleITK as sitk

    components = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    numbered = sitk.GetArrayViewFromImage(components)
    return numbered == np.bincount(numbered[mask & core]).argmax()
