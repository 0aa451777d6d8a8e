"""Label maps as DICOM segmentations (SEG), written by highdicom: DICOM PS3.3 sections A.51 and A.101.

Every slice becomes a single image for highdicom, whatever its source is; what the slices were made from is filled in after,
so that frames of multi-frame files, in any order, and several series are all named as they are.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.valuerep import DA, TM

from .. import __version__
from ..errors import EngineError
from ..files import replaced_when_whole
from ..image.axes import as_kji
from ..image.dicom.files import quiet_pydicom
from ..image.dicom.frames import Frame
from ..image.geometry import ImageError
from .choices import BINARY, SEG_TYPES
from .source import OTHER_FORMATS, Plane, Source, read_source

TISSUE = ["SCT", "85756007", "Tissue"]  # what Slicer takes where nothing is said
PLAIN_IMAGE = "1.2.840.10008.5.1.4.1.1.4"  # class of the stand-ins: one that has one place an image
STAND_IN = "2.999."  # begins the UID of a stand-in, which ends in its number; no image has such a UID
SERIES_ABOVE = 1000  # that of the source
LONGEST = 64  # characters of a text in a header
# Attributes that every object has to have, if only empty ones, and what their values have to be
REQUIRED: dict[str, Callable | None] = {
    **dict.fromkeys(("PatientID", "PatientName", "AccessionNumber", "StudyID", "ReferringPhysicianName")),
    **dict.fromkeys(("PatientBirthDate", "StudyDate"), DA),
    "StudyTime": TM,
    "PatientSex": ("", "M", "F", "O").index,
}
SHARED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns", "ImageOrientationPatient")
LEFT_OUT = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "NumberOfFrames")


def write_dicom_seg(
    path: str | PathLike,
    labels: np.ndarray,
    source: Source | str | PathLike | Sequence[str | PathLike],
    package,
    descriptions: Sequence[dict] | None = None,
    seg_type: str = BINARY,
    options: dict | None = None,
    before_it_moves: Callable[[Path], None] | None = None,
) -> None:
    """Write a label map as a DICOM segmentation, whole or not at all.

    Args:
        labels: (I, J, K), unsigned, on the grid of the series.
        source: the series, as `read_source` gives it, or its path where there is one series.
        package: the ModelPackage that made the labels.
        descriptions: labels that it may hold, as `Segmentation.described`; by default the model's own.
        seg_type: `binary` (a frame for each segment and slice) or `labelmap` (one for each slice).
        options: what the run was made with, such as {"overlap": 0.5}.
        before_it_moves: gets the whole file before it takes its place; an error of it leaves everything as it was.

    The UIDs follow from the content: the same result of the same images has the same ones whenever it is written. Raises
    ImageError where the labels do not lie on the series, EngineError where highdicom is missing, OSError.
    """
    if seg_type not in SEG_TYPES:
        raise EngineError(
            "bad_input", f"There is no DICOM segmentation of the type {seg_type!r}.", "Say binary or labelmap."
        )
    need_highdicom()
    source = source if isinstance(source, Source) else read_source(source)
    source.check(labels)
    described = list(package.labels if descriptions is None else descriptions)
    refuse_unknown_labels(labels, described)
    with quiet_pydicom(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            content = segmentation_of(labels, source, package, described, seg_type, options or {})
        except (ValueError, TypeError, AttributeError) as error:
            reason = f"The headers of the series cannot be taken over to a DICOM segmentation ({error})."
            raise ImageError(reason, OTHER_FORMATS, "bad_output") from error
        name_sources(content, source)
        with replaced_when_whole(Path(path), ".dcm") as temporary:
            content.save_as(temporary)
            if before_it_moves is not None:
                before_it_moves(temporary)


def refuse_unknown_labels(labels: np.ndarray, described: Sequence[dict]) -> None:
    """ImageError for values that no description has."""
    unknown = set(np.unique(labels).tolist()) - {0} - {label["value"] for label in described}
    if unknown:
        reason = f"The label map holds {', '.join(map(str, sorted(unknown)))}, which no label of the model has."
        raise ImageError(reason, "Give the descriptions of all its labels.")


def need_highdicom() -> None:
    """EngineError bad_output where highdicom is not there."""
    try:
        import highdicom as _needed  # noqa: F401
    except ImportError as error:
        why = "DICOM segmentations need the package highdicom, which is not installed."
        remedy = 'Install it with: python -m pip install "highdicom>=0.28". Or write .seg.nrrd.'
        raise EngineError("bad_output", why, remedy) from error


def segmentation_of(labels: np.ndarray, source: Source, package, described: list[dict], seg_type: str, options: dict):
    """The object, a pydicom data set, made from the stand-ins."""
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    planes = source.planes()
    entropy = entropy_of(labels, source, package, seg_type, options)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=short(f"ProSMA {package.id}"),
        family=codes.cid7162.ArtificialIntelligence,
        version=short(package.version),
        source="ProSMA",
        parameters={"weights_sha256": package.sha256, **{key: json.dumps(value) for key, value in options.items()}},
    )
    versions: Any = (f"ProSMA {__version__}", short(f"{package.id} {package.version}"))
    first = stand_in(source, planes, 0)
    return highdicom.seg.Segmentation(
        source_images=[first, *(stand_in(source, planes, k, first) for k in range(1, len(planes)))],
        pixel_array=numbered(labels, described),
        segmentation_type=seg_type.upper(),
        segment_descriptions=[segment(number, label, algorithm) for number, label in enumerate(described, start=1)],
        series_instance_uid=generate_uid(entropy_srcs=[*entropy, "series"]),
        series_number=SERIES_ABOVE + int(source.first.attributes.number("SeriesNumber") or 0),
        sop_instance_uid=generate_uid(entropy_srcs=[*entropy, "instance"]),
        instance_number=1,
        manufacturer="ProSMA",
        manufacturer_model_name=short(package.name),
        software_versions=versions,
        device_serial_number=package.sha256,
        content_label="PROSMA",
        content_description=short(f"{package.name}, {package.version}"),
        content_creator_name="ProSMA",
        series_description=short(f"ProSMA {package.name}"),
    )


def entropy_of(labels: np.ndarray, source: Source, package, seg_type: str, options: dict) -> list[str]:
    """Texts that the UIDs are made of: all that the object depends on, but for the time of writing."""
    images = [f"{uid_of(frame)} {frame.index}" for frame in source.frames()]
    voxels = hashlib.sha256(np.ascontiguousarray(as_kji(labels)).data).hexdigest()
    model = [package.id, package.version, package.sha256, __version__, seg_type, json.dumps(options, sort_keys=True)]
    return [*model, *images, voxels, str(labels.dtype)]


def numbered(labels: np.ndarray, described: list[dict]) -> np.ndarray:
    """(K, J, I) with segment numbers 1, 2, 3, ... in place of the described labels."""
    table = np.zeros(int(max(labels.max(initial=0), *(label["value"] for label in described))) + 1, np.uint16)
    for number, label in enumerate(described, start=1):
        table[label["value"]] = number
    return np.ascontiguousarray(as_kji(table.astype(np.uint8 if len(described) < 256 else np.uint16)[labels]))


def segment(number: int, label: dict, algorithm):
    """What the object says about one segment: name, codes, colour, algorithm."""
    import highdicom
    from highdicom.color import CIELabColor

    terms = label.get("terminology") or {}
    category, kind, modifier = terms.get("category") or TISSUE, terms.get("type") or TISSUE, terms.get("modifier")
    described = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=short(label["name"]),
        segmented_property_category=concept(category),
        segmented_property_type=concept(kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=CIELabColor.from_rgb(*label["color"]),
    )
    if modifier:
        kind_item = described.SegmentedPropertyTypeCodeSequence[0]
        kind_item.SegmentedPropertyTypeModifierCodeSequence = [concept(modifier)]
    return described


def concept(code: Sequence[str]):
    """A code of a model package [scheme, value, meaning]."""
    from highdicom.sr import CodedConcept

    scheme, value, meaning = code
    return CodedConcept(value, scheme, short(meaning))


def stand_in(source: Source, planes: list[Plane], k: int, first=None):
    """A single image at the place of slice `k`; the first one has the header of the series, the others what is checked."""
    from pydicom.dataset import Dataset

    ds = header_of(source) if first is None else Dataset()
    for keyword in SHARED if first is not None else ():
        ds.add(first[keyword])
    ds.SOPClassUID, ds.SOPInstanceUID = PLAIN_IMAGE, f"{STAND_IN}{k}"
    ds.ImagePositionPatient = [float(mm) for mm in planes[k].position]
    return ds


def header_of(source: Source):
    """The header of the first image as one of a plain image, with all that highdicom asks for."""
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

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


# --- what it was made from -------------------------------------------------------------------------------------------


def name_sources(content, source: Source) -> None:
    """The real images in place of the stand-ins."""
    planes = source.planes()
    for item in content.PerFrameFunctionalGroupsSequence:
        derivation = item.DerivationImageSequence
        if not derivation:
            continue
        (reference,) = derivation[0].SourceImageSequence
        uid = str(reference.ReferencedSOPInstanceUID)
        if not uid.startswith(STAND_IN):  # the frames of several segments share it
            continue
        frame = planes[int(uid.removeprefix(STAND_IN))].frame
        if frame is None:
            item.DerivationImageSequence = []
            continue
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = class_of(frame), uid_of(frame)
        if frame.frames > 1:
            reference.ReferencedFrameNumber = frame.index + 1
    content.SourceImageSequence = references(source.frames())
    own, *others = studies_of(source)
    content.ReferencedSeriesSequence = own.ReferencedSeriesSequence
    if others:
        content.StudiesContainingOtherReferencedInstancesSequence = others


def studies_of(source: Source) -> list:
    """An item for each study, that of the first image first, with its series and their images."""
    from pydicom.dataset import Dataset

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


def series_item(uid: str, frames: list[Frame]):
    """A series and its files."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.SeriesInstanceUID, item.ReferencedInstanceSequence = uid, references(frames)
    return item


def references(frames: Iterable[Frame]) -> list:
    """An item for each file that holds some of the images."""
    from pydicom.dataset import Dataset

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
