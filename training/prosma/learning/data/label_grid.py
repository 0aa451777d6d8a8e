"""Labels brought onto their image's grid by their place in the patient, not by their order in the file.

Labels are often stored in another orientation than the image, or only in the box around what they mark. That is valid and
is resampled (nearest neighbour). Labels that lie elsewhere than the image belong to another image, or their header is
wrong: nobody can tell which, so they are refused.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from ...image.geometry import Image, closest_orientation, same_grid

CORNER_TOLERANCE = 1.0  # voxels of the image by which the corners of two grids of the same extent may differ
COPY_GEOMETRY = (
    "If the voxels do belong to the image one by one, give the labels the image's geometry, for instance with "
    "SimpleITK's CopyInformation; else find the labels of this image."
)


class LabelsElsewhere(ValueError):
    """Labels that do not lie where the image lies; the message is two sentences without the case's name."""


def labels_on_grid(labels: Image, image: Image) -> tuple[np.ndarray, str]:
    """Labels (I, J, K) on the grid of `image`, and a notice, empty where the grids were the same.

    Raises LabelsElsewhere where the labels' extent or their marked voxels do not lie inside the image.
    """
    if same_grid(labels, image):
        return labels.array[0], ""
    same_extent = corner_distance(labels, image) <= CORNER_TOLERANCE
    if labels.shape == image.shape and not same_extent:
        raise LabelsElsewhere(
            f"the labels have as many voxels as the image, but their header puts them elsewhere: corners are up to "
            f"{corner_distance(labels, image) * min(image.spacing):.1f} mm apart. {COPY_GEOMETRY}"
        )
    if not same_extent:
        refuse_marks_outside(labels, image)
    by_place = "they were resampled to it by their place (nearest neighbour)."
    return resampled_labels(labels, image), f"The labels {difference(labels, image)}; {by_place}"


def difference(labels: Image, image: Image) -> str:
    """How two grids differ, in words that follow "The labels"."""
    stored, wanted = (orientation_of(each.ijk_to_ras) for each in (labels, image))
    if stored != wanted:
        return f"are stored in another orientation ({stored}) than the image ({wanted})"
    sizes = [" x ".join(map(str, each.shape)) for each in (labels, image)]
    if sizes[0] != sizes[1]:
        return f"lie on another grid ({sizes[0]} voxels) than the image ({sizes[1]})"
    apart = corner_distance(labels, image) * min(image.spacing)
    return f"lie a little beside the image's grid (corners up to {apart:.2g} mm)"


def orientation_of(matrix: np.ndarray) -> str:
    """The patient directions that I, J and K run to, such as "RAS"."""
    axes, flips = closest_orientation(matrix, "RAS")
    letters = dict(zip(axes, ("LPI"[n] if flip else "RAS"[n] for n, flip in enumerate(flips)), strict=True))
    return letters[0] + letters[1] + letters[2]


def corners(image: Image) -> np.ndarray:
    """The 8 outer corners of the image's extent in RAS mm, (8, 3), in an order that no storage order changes."""
    ends = np.array(list(product(*((-0.5, size - 0.5) for size in image.shape))))
    return ends @ image.ijk_to_ras[:3, :3].T + image.ijk_to_ras[:3, 3]


def corner_distance(first: Image, second: Image) -> float:
    """Largest distance from a corner of one extent to the nearest of the other, in the smallest voxel side of `second`."""
    distances = np.linalg.norm(corners(first)[:, None] - corners(second)[None], axis=2)
    return float(max(distances.min(0).max(), distances.min(1).max()) / min(second.spacing))


def refuse_marks_outside(labels: Image, image: Image) -> None:
    """Raise LabelsElsewhere if a marked voxel's centre lies outside the image."""
    marked = np.argwhere(labels.array[0] != 0)
    if not len(marked):
        raise LabelsElsewhere(f"the labels are empty and their grid is not that of the image. {COPY_GEOMETRY}")
    step = np.linalg.inv(image.ijk_to_ras) @ labels.ijk_to_ras
    place = marked @ step[:3, :3].T + step[:3, 3]
    outside = ((place < -0.5 - 1e-3) | (place > np.array(image.shape) - 0.5 + 1e-3)).any(axis=1)
    if outside.any():
        raise LabelsElsewhere(
            f"{outside.sum()} of {len(marked)} marked voxels of the labels lie outside the image. {COPY_GEOMETRY}"
        )


def resampled_labels(labels: Image, image: Image) -> np.ndarray:
    """The label at each voxel centre of `image`, nearest neighbour; 0 outside the labels' extent. (I, J, K)."""
    step = np.round(np.linalg.inv(labels.ijk_to_ras) @ image.ijk_to_ras, 6)
    result = np.zeros(image.shape, labels.array.dtype)
    last = np.array(labels.shape)[:, None] - 1
    grid = np.indices(image.shape[1:]).reshape(2, -1)
    for row in range(image.shape[0]):
        place = np.rint(step[:3, :1] * row + step[:3, 1:3] @ grid + step[:3, 3:]).astype(np.int64)
        inside = ((place >= 0) & (place <= last)).all(axis=0)
        i, j, k = np.clip(place, 0, last)
        result[row] = np.where(inside, labels.array[0, i, j, k], 0).reshape(image.shape[1:])
    return result
