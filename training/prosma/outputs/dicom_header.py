"""What DICOM objects that are made of a result have in common: the header of the series, UIDs, references to its images."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pydicom.valuerep import DA, TM

from .. import __version__
from ..image.axes import as_kji
from ..image.dicom.frames import Frame
from ..image.geometry import ImageError
from .source import Source

SERIES_ABOVE = 1000  # that of the source
LONGEST = 64  # characters of a text in a header
# Attributes that every object has to have, if only empty ones, and what their values have to be
REQUIRED: dict[str, Callable | None] = {
    **dict.fromkeys(("PatientID", "PatientName", "AccessionNumber", "StudyID", "ReferringPhysicianName")),
    **dict.fromkeys(("PatientBirthDate", "StudyDate"), DA),
    "StudyTime": TM,
    "PatientSex": ("", "M", "F", "O").index,
}
LEFT_OUT = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "NumberOfFrames")


def header_of(source: Source) -> Dataset:
    """The header of the first image as one of a plain image, with all that highdicom asks for."""
    first = source.first
    ds = Dataset()
    for element in first.attributes.header:
        if element.keyword not in LEFT_OUT:
            ds.add(copy.deepcopy(element))
    for keyword, kind in REQUIRED.items():
        if not is_valid(ds.get(keyword), kind):
            setattr(ds, keyword, None)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if not ds.get(keyword):
            setattr(ds, keyword, generate_uid(entropy_srcs=[keyword, uid_of(first)]))
    if not first.reference:  # the places of a series without one are its own
        ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["FrameOfReferenceUID", ds.SeriesInstanceUID])
    ds.Rows, ds.Columns = first.rows, first.columns
    ds.ImageOrientationPatient = [float(part) for part in source.axes.ravel()]
    ds.PixelSpacing = [float(first.pixel[1]), float(first.pixel[0])]
    ds.SliceThickness, ds.SpacingBetweenSlices = first.thickness or source.step, source.step
    return ds


def is_valid(value, kind: Callable | None) -> bool:
    """Whether a value of a header can be taken over: some programs write dates that are none."""
    try:
        return value is not None and (kind is None or kind(value) is not None)
    except ValueError:
        return False


def code_item(code: Sequence[str]) -> Dataset:
    """An item with a code of a model package [scheme, value, meaning]."""
    item = Dataset()
    item.CodingSchemeDesignator, item.CodeValue, item.CodeMeaning = code[0], code[1], short(code[2])
    return item


def refuse_unknown_labels(labels: np.ndarray, described: Sequence[dict]) -> None:
    """ImageError for values that no description has."""
    unknown = set(np.unique(labels).tolist()) - {0} - {label["value"] for label in described}
    if unknown:
        reason = f"The label map holds {', '.join(map(str, sorted(unknown)))}, which no label of the model has."
        raise ImageError(reason, "Give the descriptions of all its labels.")


def new_series_number(source: Source) -> int:
    """The number of a series of results."""
    return SERIES_ABOVE + int(source.first.attributes.number("SeriesNumber") or 0)


def entropy_of(labels: np.ndarray, source: Source, package, kind: str, options: dict) -> list[str]:
    """Texts that the UIDs are made of: all that the object depends on, but for the time of writing."""
    images = [f"{uid_of(frame)} {frame.index}" for frame in source.frames()]
    voxels = hashlib.sha256(np.ascontiguousarray(as_kji(labels)).data).hexdigest()
    model = [package.id, package.version, package.sha256, __version__, kind, json.dumps(options, sort_keys=True)]
    return [*model, *images, voxels, str(labels.dtype)]


def studies_of(source: Source) -> list[Dataset]:
    """An item for each study, that of the first image first, with its series and their images."""
    frames: dict[str, dict[str, list[Frame]]] = {}
    for frame in source.frames():
        study = frames.setdefault(frame.attributes.text("StudyInstanceUID"), {})
        study.setdefault(frame.attributes.text("SeriesInstanceUID"), []).append(frame)
    items = []
    for uid, series in frames.items():
        item = Dataset()
        item.StudyInstanceUID = uid
        item.ReferencedSeriesSequence = [series_item(*members) for members in series.items()]
        items.append(item)
    return items


def series_item(uid: str, frames: list[Frame]) -> Dataset:
    """A series and its files."""
    item = Dataset()
    item.SeriesInstanceUID, item.ReferencedInstanceSequence = uid, references(frames)
    return item


def references(frames: Iterable[Frame]) -> list[Dataset]:
    """An item for each file that holds some of the images."""
    items = []
    for uid, frame in {uid_of(frame): frame for frame in frames}.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_of(frame), uid
        items.append(item)
    return items


def uid_of(frame: Frame) -> str:
    """The SOPInstanceUID of the file that holds an image."""
    return frame.attributes.text("SOPInstanceUID")


def class_of(frame: Frame) -> str:
    """Its SOPClassUID."""
    return frame.attributes.text("SOPClassUID")


def short(text: str) -> str:
    """A text as it fits into a header."""
    return text.replace("\\", "/")[:LONGEST].strip()
