"""The DICOM images that a result was made from, as DICOM objects that are made of the result have to name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from ..image.dicom.frames import Frame
from ..image.dicom.grid import Grid
from ..image.dicom.reading import read_grid
from ..image.geometry import LPS_TO_RAS, ImageError
from ..image.reading import is_dicom_path, paired

SAME_PLACE_MM = 1e-3
OTHER_FORMATS = "Write the result as .seg.nrrd or .nii.gz."


@dataclass(frozen=True)
class Plane:
    """One slice of the label map: LPS place in mm of the centre of its first pixel, and the image that lies there, if any."""

    position: np.ndarray
    frame: Frame | None


@dataclass(frozen=True)
class Source:
    """The images of a volume in their order along K, on their `grid`; `others`: those of further channels."""

    grid: Grid
    others: tuple[Frame, ...] = ()

    @property
    def first(self) -> Frame:
        """The first image, whose header speaks for patient, study and series."""
        return self.grid.frames[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the label map along I, J, K."""
        return self.first.columns, self.first.rows, self.grid.slices

    @property
    def axes(self) -> np.ndarray:
        """Directions of a row and of a column (2, 3), LPS."""
        columns = self.grid.ijk_to_lps[:3, :2]
        return (columns / np.linalg.norm(columns, axis=0)).T

    @property
    def step(self) -> float:
        """Mm between slices."""
        return float(np.linalg.norm(self.grid.ijk_to_lps[:3, 2]))

    @property
    def ijk_to_ras(self) -> np.ndarray:
        """The matrix that the image has, 4 x 4 in mm."""
        return LPS_TO_RAS @ self.grid.ijk_to_lps

    def planes(self) -> list[Plane]:
        """One for each slice. Where slices were resampled, only those at the place of an image have one."""
        matrix = self.grid.ijk_to_lps
        if self.grid.places is None:
            return [Plane(frame.origin, frame) for frame in self.grid.frames]
        planes = []
        for k in range(self.grid.slices):
            position = matrix[:3, 3] + k * matrix[:3, 2]
            near = [f for f in self.grid.frames if np.linalg.norm(f.origin - position) < SAME_PLACE_MM]
            planes.append(Plane(position, near[0] if near else None))
        return planes

    def frames(self) -> Iterator[Frame]:
        """All images, those of further channels last."""
        yield from self.grid.frames
        yield from self.others

    def check(self, labels: np.ndarray) -> None:
        """ImageError where a label map does not lie on the series' grid."""
        if labels.shape != self.shape:
            sizes = [" x ".join(map(str, shape)) for shape in (labels.shape, self.shape)]
            raise ImageError(
                f"The label map has {sizes[0]} voxels, its series {sizes[1]}.",
                "Segment the series again.",
                "bad_output",
            )


def read_source(
    paths: str | PathLike | Sequence[str | PathLike], series: str | int | Sequence[str | int] | None = None
) -> Source:
    """The source of an image that `read_image` reads with the same arguments.

    ImageError where its first channel is no DICOM series, or one that tells no places.
    """
    pairs = paired(paths, series)
    first = pairs[0][0]
    refuse_other_images(first)
    grids = [read_grid(path, which) for path, which in pairs if is_dicom_path(path)]
    if not grids[0].frames[0].is_placed:
        reason = f"The images of {first.name} tell no places, which a DICOM result needs."
        raise ImageError(reason, OTHER_FORMATS, "bad_output")
    return Source(grids[0], tuple(frame for grid in grids[1:] for frame in grid.frames))


def refuse_other_images(path: Path) -> None:
    """ImageError where a path is no DICOM series."""
    if not is_dicom_path(path):
        reason = f"A DICOM result refers to the DICOM series that it was made from, and {path.name} is none."
        raise ImageError(reason, OTHER_FORMATS, "bad_output")
