"""DICOM files, series and folders as one volume: every image at its own place, with its own scaling, or a refusal.

The base is pydicom, for headers and places; see docs/formats.md for what is read, refused and assumed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..geometry import LPS_TO_RAS, Image, ImageError
from .files import Collected, collect, quiet_pydicom
from .frames import UNSIZED, Attributes, Frame, frames_of
from .grid import Grid, grid_of
from .kinds import no_image, remedy_for
from .values import voxels_of
from .volumes import Volume, choose, volumes_of

STRANGER = "no DICOM file"
NAMED = 3  # files that a notice names


@dataclass(frozen=True)
class DicomVolume:
    """One entry of `list_dicom`: `number` from 1, `uid` of its series, and a title for a person."""

    number: int
    uid: str
    description: str
    title: str
    images: int
    is_localizer: bool


def list_dicom(path: Path) -> list[DicomVolume]:
    """The volumes in a DICOM file or folder, in the order of their numbers for `series`. ImageError if there is none."""
    with quiet_pydicom():
        volumes, _, _ = _volumes_at(path)
        return [
            DicomVolume(
                number, volume.uid, volume.description, volume.title, len(volume.frames), volume.frames[0].is_localizer
            )
            for number, volume in enumerate(volumes, start=1)
        ]


def read_dicom(path: Path, series: str | int | None = None) -> Image:
    """The volume in a DICOM file or in a folder and its subfolders.

    `series` chooses among several: a number from `list_dicom`, a SeriesInstanceUID, or a description. Array (C, I, J, K),
    K along the normal of the slices. ImageError names the file and the attribute that cannot be used.
    """
    with quiet_pydicom():
        volume, grid, found, others = _grid_at(path, series)
        name = path.resolve().name
        array, notices = voxels_of(grid, name)
    told = dict.fromkeys(notice.format(name=name) for frame in grid.frames for notice in frame.notices)
    unused = _unused(path, volume, found, others)
    modality = volume.frames[0].attributes.text("Modality")
    sized = not any(notice in UNSIZED for frame in grid.frames for notice in frame.notices)
    return Image(
        array,
        LPS_TO_RAS @ grid.ijk_to_lps,
        (*grid.notices, *told, *notices, *unused),
        spacing_known=sized,
        reference=volume.frames[0].reference,
        modalities=(modality,) if modality else (),
    )


def read_grid(path: Path, series: str | int | None = None) -> Grid:
    """The images that `read_dicom` makes a volume of, with their headers and the volume's grid, without the voxels.

    For results that are to refer to them. ImageError as of `read_dicom`.
    """
    with quiet_pydicom():
        return _grid_at(path, series)[1]


def _grid_at(path: Path, series: str | int | None) -> tuple[Volume, Grid, Collected, list[tuple[Path, str]]]:
    """The volume that `series` chooses, its grid, and what `_volumes_at` tells of the files."""
    volumes, found, others = _volumes_at(path)
    name = path.resolve().name
    volume = choose(volumes, series, name)
    _refuse_damaged(found, volume)
    return volume, grid_of(volume.frames, name), found, others


def _volumes_at(path: Path) -> tuple[list[Volume], Collected, list[tuple[Path, str]]]:
    """The volumes at a path, its files, and those of them that are DICOM but no images, with what they are."""
    found = collect(path)
    frames: list[Frame] = []
    others = []
    for file, header in found.headers:
        attributes, meta = Attributes(file, header), Attributes(file, getattr(header, "file_meta", {}))
        try:
            what = no_image(attributes, meta)
            if what:
                others.append((file, what))
            else:
                frames += frames_of(file, header)
        except ImageError as error:
            found.damaged.append((file, error, _series_of(attributes)))
    if not frames:
        raise _nothing_to_read(path, found, others)
    return volumes_of(frames), found, others


def _series_of(attributes: Attributes) -> str:
    """The UID of a damaged file's series, as far as it can be read."""
    try:
        return attributes.text("SeriesInstanceUID")
    except ImageError:
        return ""


def _refuse_damaged(found: Collected, volume: Volume) -> None:
    """ImageError for a damaged file that may be a slice of the volume: by its series, or by what is left of its UID."""
    for _, error, uid in found.damaged:
        if uid == volume.uid:
            raise error
        if volume.uid.startswith(uid):
            remedy = f"{error.remedy} Or take it out of the folder, if it is no part of the series."
            raise ImageError(error.message, remedy)


def _nothing_to_read(path: Path, found: Collected, others: list[tuple[Path, str]]) -> ImageError:
    """Why a path holds no image."""
    name = path.resolve().name
    if others and path.is_file():
        return ImageError(f"{name} is {others[0][1]}, not an image.", remedy_for(others[0][1]))
    if found.damaged:
        return found.damaged[0][1]
    if others:
        counts = Counter(what for _, what in others)
        kinds = ", ".join(f"{what} ({count} files)" if count > 1 else what for what, count in counts.items())
        return ImageError(f"{name} holds no DICOM images, only {kinds}.", remedy_for(others[0][1]))
    return ImageError(f"{name} holds no DICOM images.", "Give the folder with the files of one series.")


def _unused(path: Path, volume: Volume, found: Collected, others: list[tuple[Path, str]]) -> tuple[str, ...]:
    """A notice about the files of a folder, or the images of a file, that are no part of the volume."""
    used = {frame.file for frame in volume.frames}
    reasons: dict[Path, str] = dict.fromkeys(found.strangers, STRANGER)
    reasons |= {file: "that cannot be used" for file, *_ in found.damaged} | dict(others)
    reasons |= {frame.file: why for frame, why in reversed(volume.aside) if frame.file not in used}
    notices = []
    within = Counter(why for frame, why in volume.aside if frame.file in used)
    if within:
        kinds = ", ".join(f"{count} {why}" for why, count in within.items())
        notices.append(f"Images of {path.resolve().name} that were not used: {kinds}.")
    if reasons:
        groups = []
        for why, count in Counter(reasons.values()).items():
            names = sorted(file.name for file, reason in reasons.items() if reason == why)
            shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
            groups.append(f"{count} {why} ({shown})")
        total = len(reasons) + len(used)
        notices.append(f"{len(reasons)} of {total} files in {path.resolve().name} were not used: {'; '.join(groups)}.")
    elif path.is_file() and len(volume.frames) == 1 and volume.frames[0].is_slice and volume.frames[0].frames == 1:
        notices.append(f"{path.name} is one slice; give its folder to segment the whole series.")
    return tuple(notices)
