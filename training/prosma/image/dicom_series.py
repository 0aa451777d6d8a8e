"""One DICOM series in a folder as an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .geometry import Image, ImageError
from .reading import FUNCTIONAL_REMEDY, itk_errors, refuse_unusable, to_image


def read_dicom_folder(folder: Path) -> Image:
    """The image of the one DICOM series in a folder. ImageError says why it cannot be used."""
    with itk_errors(folder.name) as sitk:
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        if not series:
            raise ImageError(f"{folder} holds no DICOM images.", "Give the folder with the files of one series.")
        if len(series) > 1:
            raise ImageError(
                f"{folder} holds {len(series)} DICOM series.", "Move one series to a folder of its own and give that."
            )
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
        for file in files:
            refuse_unusable(sitk, Path(file))
        _refuse_lost_slices(sitk, folder, files)
        if len(files) == 1:
            return to_image(sitk.ReadImage(files[0]))
        notices = _check_slices(sitk, files, folder.name)
        image = to_image(sitk.ReadImage(files))
    return Image(image.array, image.ijk_to_ras, notices)


def _refuse_lost_slices(sitk, folder: Path, files: Sequence[str]) -> None:
    """GDCM leaves damaged files out without a word; those that name the same series are slices that would be missing."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(files[0])
    reader.ReadImageInformation()
    series = reader.GetMetaData("0020|000e").strip(" \0").encode() if reader.HasMetaDataKey("0020|000e") else b""
    used = {Path(file).name for file in files}
    for file in sorted(folder.iterdir()):
        if file.name in used or not file.is_file() or not series:
            continue
        with file.open("rb") as stream:
            start = stream.read(1 << 16)
        if start[128:132] == b"DICM" and series in start:
            raise ImageError(
                f"{file.name} in {folder.name} belongs to the series but is damaged or cut off.",
                "Copy or export it again.",
            )


def _check_slices(sitk, files: Sequence[str], name: str) -> tuple[str, ...]:
    """Refuses series that are not one regular volume; a notice where the distances between slices differ."""
    places, normal = [], None
    for file in files:
        reader = sitk.ImageFileReader()
        reader.SetFileName(file)
        reader.ReadImageInformation()
        if not reader.HasMetaDataKey("0020|0032") or not reader.HasMetaDataKey("0020|0037"):
            return (f"The slices of {name} carry no positions: their order and distance are guesses.",)
        places.append([float(value) for value in reader.GetMetaData("0020|0032").split("\\")])
        axes = np.array([float(value) for value in reader.GetMetaData("0020|0037").split("\\")]).reshape(2, 3)
        normal = np.cross(*axes) if normal is None else normal
    steps = np.diff(np.array(places), axis=0)
    along = np.abs(steps @ normal)
    if len(np.unique(np.round(np.array(places) @ normal, 3))) < len(places):
        raise ImageError(
            f"{name} holds several images at the same place, such as time points or echoes in one series.",
            FUNCTIONAL_REMEDY,
        )
    sideways = np.linalg.norm(np.array(places[-1]) - places[0] - along.sum() * normal * np.sign((steps @ normal)[0]))
    if sideways > 0.05 * along.sum():
        raise ImageError(
            f"{name} is sheared: its slices are shifted sideways, as by a tilted CT gantry.",
            "Load it in Slicer, harden the acquisition transform onto the volume and save that.",
        )
    if along.max() - along.min() > 0.05 * along.mean():
        return (
            f"The slices of {name} are {along.min():.2f} to {along.max():.2f} mm apart; "
            f"places and volumes are computed with the mean of {along.mean():.2f} mm.",
        )
    return ()
