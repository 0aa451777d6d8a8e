"""Every image in a DICOM file with its own place, pixel size and scaling: frames of multi-frame files, or the one image.

Places are DICOM's: LPS, in mm, of the centre of the first pixel. Source: DICOM PS3.3 sections C.7.6.2 (image plane),
C.7.6.16 (functional groups), C.7.6.3 (pixels), C.8.5.5 (ultrasound regions), C.8.8.3 (dose), C.8.4.15 (NM).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..geometry import ImageError
from .files import EXPORT_AGAIN
from .kinds import STORAGE

RT_DOSE = f"{STORAGE}481.2"
CENTIMETRES = 3  # in PhysicalUnitsXDirection
TWO_DIMENSIONAL = 1  # in RegionSpatialFormat
UPWARDS = np.array([0.0, 0.0, 1.0])
SLICED = ("CT", "MR", "PT")
NO_SIZE = "{name} tells no size of its pixels; they are counted as 1 mm, so mm and ml are those of pixels."
AT_DETECTOR = "The pixel size of {name} is that at the detector; in the body it is smaller."
OF_REGION = "The pixel size of {name} is that of its ultrasound region; outside of it there is none."
OF_VOLUME = "The places of {name} are those of the ultrasound volume, not of the patient."
RATIO_ONLY = "{name} tells only how high its pixels are for their width, no size; their height is counted as 1 mm."
UNSIZED = (NO_SIZE, RATIO_ONLY)


class Attributes:
    """The attributes of one image: those of its frame, else those that all frames share, else those of the file."""

    def __init__(self, file: Path, header, frame=None, shared=None) -> None:
        self.file = file
        self.header = header
        self._groups = [group for group in (frame, shared) if group is not None]

    def get(self, keyword: str, group: str = ""):
        """A value or None; `group` names the functional group that holds it in multi-frame files."""
        for functional in self._groups if group else ():
            item = first_item(functional, group, self.file)
            value = self._value(item, keyword) if item is not None else None
            if value is not None:
                return value
        return self._value(self.header, keyword)

    def numbers(self, keyword: str, group: str = "", count: int | None = 1) -> np.ndarray | None:
        """Finite numbers, `count` of them or any (None); ImageError names the tag where they are not."""
        value = self.get(keyword, group)
        if value is None:
            return None
        try:
            numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
        except (TypeError, ValueError):
            numbers = np.array([np.nan])
        if not np.isfinite(numbers).all() or count not in (None, len(numbers)):
            wanted = "numbers" if count is None else "one number" if count == 1 else f"{count} numbers"
            raise ImageError(f"{self.file.name}: {named(keyword)} is not {wanted}.", EXPORT_AGAIN)
        return numbers

    def number(self, keyword: str, group: str = "") -> float | None:
        """One finite number or None."""
        numbers = self.numbers(keyword, group)
        return None if numbers is None else float(numbers[0])

    def whole(self, keyword: str, default: int = 0) -> int:
        """A whole number that is not negative."""
        number = self.number(keyword)
        if number is not None and (number < 0 or number != int(number)):
            raise ImageError(f"{self.file.name}: {named(keyword)} is {number:g}.", EXPORT_AGAIN)
        return default if number is None else int(number)

    def words(self, keyword: str) -> list[str]:
        """The values of a text attribute, however many."""
        value = self.get(keyword)
        return [] if value is None else [value] if isinstance(value, str) else [str(word) for word in value]

    def text(self, keyword: str) -> str:
        """A short text in one line."""
        value = self.get(keyword)
        return " ".join(str("" if value is None else value).split())[:64]

    def _value(self, dataset, keyword: str):
        try:
            value = dataset.get(keyword)
        except Exception:  # pydicom's words may hold values of the file
            raise ImageError(f"{self.file.name}: {named(keyword)} cannot be read.", EXPORT_AGAIN) from None
        return None if value is None or value == "" or (hasattr(value, "__len__") and not len(value)) else value


def items_of(dataset, sequence: str, file: Path) -> list:
    """The items of a sequence; none where there is none. ImageError where it is damaged."""
    try:
        return list(dataset.get(sequence) or ())
    except Exception:  # pydicom's words may hold values of the file
        raise ImageError(f"{file.name}: {named(sequence)} cannot be read.", EXPORT_AGAIN) from None


def first_item(dataset, sequence: str, file: Path):
    """The first item of a sequence, None where there is none."""
    items = items_of(dataset, sequence, file)
    return items[0] if items else None


def named(keyword: str) -> str:
    """An attribute with its tag: RescaleSlope (0028,1053)."""
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword) or 0
    return f"{keyword} ({tag >> 16:04x},{tag & 0xFFFF:04x})"


@dataclass(frozen=True, eq=False)
class Frame:
    """One image: frame `index` of `file`.

    `position`: (3,) mm, `axes`: (2, 3) directions of a row and of a column, both None where the file tells no place.
    `pixel`: mm between columns and between rows. `thickness`: mm, None where unknown. `notices`: templates with {name}.
    """

    attributes: Attributes
    index: int
    rows: int
    columns: int
    position: np.ndarray | None
    axes: np.ndarray | None
    pixel: tuple[float, float]
    thickness: float | None
    slope: float
    intercept: float
    notices: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """The file that holds it."""
        return self.attributes.file

    @property
    def is_placed(self) -> bool:
        """Whether the file says where it lies."""
        return self.position is not None

    @property
    def origin(self) -> np.ndarray:
        """`position`, of an image that is placed."""
        assert self.position is not None
        return self.position

    @property
    def directions(self) -> np.ndarray:
        """`axes`, of an image that is placed."""
        assert self.axes is not None
        return self.axes

    @property
    def is_slice(self) -> bool:
        """Whether it is a slice of a body: its place is told, or it is a CT, MR or PET image and no screenshot of one."""
        screenshot = str(self.attributes.get("SOPClassUID")).startswith(f"{STORAGE}7")
        sliced = self.attributes.text("Modality") in SLICED and self.frames == 1 and not screenshot
        return self.is_placed or sliced

    @property
    def frames(self) -> int:
        """How many images its file holds."""
        return max(1, self.attributes.whole("NumberOfFrames", 1))

    @property
    def reference(self) -> str:
        """The frame of reference that its place belongs to: places of different ones have nothing in common."""
        return self.attributes.text("FrameOfReferenceUID") if self.is_placed else ""

    @property
    def is_localizer(self) -> bool:
        """Whether the scanner made it to plan others by."""
        return "LOCALIZER" in self.attributes.words("ImageType")


def frames_of(file: Path, header) -> list[Frame]:
    """The images of one file. ImageError names the attribute that is missing or wrong."""
    root = Attributes(file, header)
    rows, columns = root.whole("Rows"), root.whole("Columns")
    if not rows or not columns:
        raise ImageError(f"{file.name} is damaged: it has no {named('Rows' if not rows else 'Columns')}.", EXPORT_AGAIN)
    if "MOSAIC" in root.words("ImageType"):
        raise ImageError(
            f"{file.name} is a mosaic: many slices side by side in one picture.",
            "Convert the series with dcm2niix and give the NIfTI file.",
        )
    count = root.whole("NumberOfFrames", 1) or 1
    groups = items_of(header, "PerFrameFunctionalGroupsSequence", file)
    if groups and len(groups) != count:
        raise ImageError(
            f"{file.name} has {count} frames ({named('NumberOfFrames')}) but describes {len(groups)}.", EXPORT_AGAIN
        )
    shared = first_item(header, "SharedFunctionalGroupsSequence", file)
    offsets, absolute = (None, False) if groups else frame_offsets(root, count)
    one_place = bool(groups) or count == 1 or offsets is not None
    frames = []
    for index in range(count):
        attributes = Attributes(file, header, groups[index] if groups else None, shared)
        position, axes, notices = place_of(attributes) if one_place else (None, None, ())
        if position is not None and axes is not None and offsets is not None:
            position = position + offsets[index] * (UPWARDS if absolute else np.cross(axes[0], axes[1]))
        pixel, more = pixel_size(attributes)
        slope, intercept = scaling(attributes)
        thickness = attributes.number("SliceThickness", "PixelMeasuresSequence")
        thickness = thickness if thickness and thickness > 0 else attributes.number("SpacingBetweenSlices")
        thickness = abs(thickness) if thickness else None
        frames.append(
            Frame(
                attributes, index, rows, columns, position, axes, pixel, thickness, slope, intercept, (*notices, *more)
            )
        )
    return frames


def place_of(attributes: Attributes) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    """Position, axes (right angles, length 1) and notices; None where either is missing."""
    notices: tuple[str, ...] = ()
    position = attributes.numbers("ImagePositionPatient", "PlanePositionSequence", 3)
    axes = attributes.numbers("ImageOrientationPatient", "PlaneOrientationSequence", 6)
    detector = first_item(attributes.header, "DetectorInformationSequence", attributes.file)
    if detector is not None and (position is None or axes is None):  # nuclear medicine
        nuclear = Attributes(attributes.file, detector)
        position, axes = (
            nuclear.numbers("ImagePositionPatient", "", 3),
            nuclear.numbers("ImageOrientationPatient", "", 6),
        )
    if position is None and axes is None:
        position = attributes.numbers("ImagePositionVolume", "PlanePositionVolumeSequence", 3)
        axes = attributes.numbers("ImageOrientationVolume", "PlaneOrientationVolumeSequence", 6)
        notices = (OF_VOLUME,) if position is not None else ()
    if position is None or axes is None:
        return None, None, ()
    row, column = axes.reshape(2, 3)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > 0.01 or abs(row @ column) > 0.01:
        raise ImageError(
            f"{attributes.file.name}: {named('ImageOrientationPatient')} is not two directions at right angles.",
            EXPORT_AGAIN,
        )
    row = row / lengths[0]
    column = column - (row @ column) * row
    return position, np.stack([row, column / np.linalg.norm(column)]), notices


def frame_offsets(root: Attributes, count: int) -> tuple[np.ndarray | None, bool]:
    """How far the frames of dose grids and nuclear tomograms lie from the first, in mm; None for other files.

    Along the normal, or (True) along the patient where a dose grid gives coordinates in place of distances.
    """
    if str(root.get("SOPClassUID")) == RT_DOSE:
        return dose_offsets(root, count)
    if count > 1 and root.text("Modality") == "NM" and "RECON TOMO" in root.words("ImageType"):
        distance = root.number("SpacingBetweenSlices")
        slices = root.numbers("SliceVector", "", None)
        if distance and slices is not None and len(slices) == count:
            return (slices - slices[0]) * distance, False
    return None, False


def dose_offsets(root: Attributes, count: int) -> tuple[np.ndarray, bool]:
    """The same for a dose grid; ImageError where its places are not clear."""
    offsets, vector = root.numbers("GridFrameOffsetVector", "", None), named("GridFrameOffsetVector")
    if count == 1:
        return np.zeros(1), False
    if offsets is None or len(offsets) != count:
        places = "no places" if offsets is None else f"{len(offsets)} places"
        reason = f"{root.file.name}: {vector} names {places}, {named('NumberOfFrames')} is {count}."
        raise ImageError(reason, EXPORT_AGAIN)
    first = root.numbers("ImagePositionPatient", "", 3)
    if offsets[0] and (first is None or offsets[0] != first[2]):
        raise ImageError(
            f"{root.file.name}: {vector} begins neither with 0 nor with the place of the first frame, so that the places "
            "of the others are not clear.",
            EXPORT_AGAIN,
        )
    return offsets - offsets[0], bool(offsets[0])


def scaling(attributes: Attributes) -> tuple[float, float]:
    """Slope and intercept from stored values to real ones."""
    group, is_dose = "PixelValueTransformationSequence", str(attributes.get("SOPClassUID")) == RT_DOSE
    keyword = "DoseGridScaling" if is_dose else "RescaleSlope"
    slope = attributes.number(keyword, group)
    intercept = None if is_dose else attributes.number("RescaleIntercept", group)  # a dose has none (C.8.8.3)
    if slope == 0:
        raise ImageError(
            f"{attributes.file.name}: {named(keyword)} is 0, so all its values would be one.", EXPORT_AGAIN
        )
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def pixel_size(attributes: Attributes) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Mm between columns and between rows, and what is assumed."""
    notices: tuple[str, ...] = ()
    spacing = attributes.numbers("PixelSpacing", "PixelMeasuresSequence", 2)
    if spacing is None:
        spacing = ultrasound_pixel(attributes)
        notices = (OF_REGION,) if spacing is not None else ()
    if spacing is None:
        spacing = attributes.numbers("ImagerPixelSpacing", "", 2)
        notices = (AT_DETECTOR,) if spacing is not None else ()
    if spacing is None:
        spacing = attributes.numbers("NominalScannedPixelSpacing", "", 2)
    if spacing is None:
        ratio = attributes.numbers("PixelAspectRatio", "", 2)  # height to width
        if ratio is None or not (ratio > 0).all() or ratio[0] == ratio[1]:
            return (1.0, 1.0), (NO_SIZE,)
        return (float(ratio[1] / ratio[0]), 1.0), (RATIO_ONLY,)
    if not (spacing > 0).all():
        raise ImageError(f"{attributes.file.name}: {named('PixelSpacing')} is not two sizes above 0.", EXPORT_AGAIN)
    return (float(spacing[1]), float(spacing[0])), notices


def ultrasound_pixel(attributes: Attributes) -> np.ndarray | None:
    """Mm between rows and between columns where all two-dimensional regions of an ultrasound image agree; else None."""
    sizes = set()
    for region in items_of(attributes.header, "SequenceOfUltrasoundRegions", attributes.file):
        facts = Attributes(attributes.file, region)
        if facts.number("RegionSpatialFormat") != TWO_DIMENSIONAL:
            continue
        units = facts.number("PhysicalUnitsXDirection"), facts.number("PhysicalUnitsYDirection")
        down, across = facts.number("PhysicalDeltaY"), facts.number("PhysicalDeltaX")
        if units != (CENTIMETRES, CENTIMETRES) or down is None or across is None:
            return None
        sizes.add((round(abs(down) * 10, 9), round(abs(across) * 10, 9)))
    return np.array(sizes.pop()) if len(sizes) == 1 else None
