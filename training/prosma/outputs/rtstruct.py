"""Label maps as DICOM structure sets (RTSTRUCT): outlines of each label on each slice. DICOM PS3.3 section A.19.

Written with pydicom: rt-utils, the usual library for it, places contours wrongly where rows and columns differ, and loses
holes and thin parts (findings/rtstruct.sh).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from .. import __version__
from ..files import replaced_when_whole
from ..image.box import slices, smallest
from ..image.dicom.files import quiet_pydicom
from .choices import RTSTRUCT, SEG
from .contours import outlines
from .dicom_header import (
    class_of,
    code_item,
    entropy_of,
    header_of,
    new_series_number,
    references,
    refuse_unknown_labels,
    short,
    uid_of,
)
from .source import Plane, Source, read_source

STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # that the standard asks for where a study is named (Detached Study Management)
TAKEN_OVER = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize", "PatientWeight"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    *("StudyDescription", "FrameOfReferenceUID", "SpecificCharacterSet"),
)


def write_rtstruct(
    path: str | PathLike,
    labels: np.ndarray,
    source: Source | str | PathLike | Sequence[str | PathLike],
    package,
    descriptions: Sequence[dict] | None = None,
    options: dict | None = None,
    before_it_moves: Callable[[Path], None] | None = None,
) -> None:
    """Write a label map as a DICOM structure set; arguments and errors as for `write_dicom_seg`."""
    source = source if isinstance(source, Source) else read_source(source)
    source.check(labels)
    described = list(package.labels if descriptions is None else descriptions)
    refuse_unknown_labels(labels, described)
    with quiet_pydicom():
        content = structure_set(labels, source, package, described, options or {})
        ending = RTSTRUCT if Path(path).name.lower().endswith(RTSTRUCT) else SEG
        with replaced_when_whole(Path(path), ending) as temporary:
            content.save_as(temporary, enforce_file_format=True)
            if before_it_moves is not None:
                before_it_moves(temporary)


def structure_set(labels: np.ndarray, source: Source, package, described: list[dict], options: dict) -> Dataset:
    """The whole object."""
    header, planes = header_of(source), source.planes()
    ds = empty_structure_set(header, source, package, entropy_of(labels, source, package, "rtstruct", options))
    ds.ReferencedFrameOfReferenceSequence = [frame_of_reference(source, header)]
    maker = short(f"{package.id} {package.version}, ProSMA {__version__}")
    numbered = list(enumerate(described, start=1))
    ds.StructureSetROISequence = [structure(n, label, header.FrameOfReferenceUID, maker) for n, label in numbered]
    ds.ROIContourSequence = [drawing(n, label, labels == label["value"], source, planes) for n, label in numbered]
    ds.RTROIObservationsSequence = [observation(n, label) for n, label in numbered]
    return ds


def empty_structure_set(header: Dataset, source: Source, package, entropy: list[str]) -> Dataset:
    """All about patient, study and equipment, without structures."""
    ds, now = Dataset(), datetime.datetime.now()
    for keyword in TAKEN_OVER:
        if keyword in header:
            ds.add(header[keyword])
    ds.PositionReferenceIndicator = header.get("PositionReferenceIndicator")
    ds.SOPClassUID, ds.SOPInstanceUID = RTStructureSetStorage, generate_uid(entropy_srcs=[*entropy, "instance"])
    ds.Modality, ds.SeriesInstanceUID = "RTSTRUCT", generate_uid(entropy_srcs=[*entropy, "series"])
    ds.SeriesNumber, ds.InstanceNumber = new_series_number(source), 1
    ds.SeriesDescription, ds.OperatorsName = short(f"ProSMA {package.name}"), ""
    ds.Manufacturer, ds.ManufacturerModelName = "ProSMA", short(package.name)
    ds.SoftwareVersions = [f"ProSMA {__version__}", short(f"{package.id} {package.version}")]
    ds.DeviceSerialNumber = package.sha256
    ds.StructureSetLabel, ds.StructureSetName = "ProSMA", short(package.name)
    ds.StructureSetDate, ds.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    ds.InstanceCreationDate, ds.InstanceCreationTime = ds.StructureSetDate, ds.StructureSetTime
    ds.ApprovalStatus = "UNAPPROVED"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def frame_of_reference(source: Source, header: Dataset) -> Dataset:
    """The coordinates that contours lie in, and the series that they were drawn on."""
    item, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = header.SeriesInstanceUID, references(source.grid.frames)
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS, header.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    item.FrameOfReferenceUID, item.RTReferencedStudySequence = header.FrameOfReferenceUID, [study]
    return item


def structure(number: int, label: dict, frame_of_reference_uid: str, maker: str) -> Dataset:
    """The name of a structure, and how it was made."""
    roi = Dataset()
    roi.ROINumber, roi.ReferencedFrameOfReferenceUID = number, frame_of_reference_uid
    roi.ROIName, roi.ROIGenerationAlgorithm, roi.ROIGenerationDescription = short(label["name"]), "AUTOMATIC", maker
    return roi


def observation(number: int, label: dict) -> Dataset:
    """What a structure is, with the model's term."""
    item = Dataset()
    item.ObservationNumber, item.ReferencedROINumber = number, number
    item.RTROIInterpretedType, item.ROIInterpreter = "", ""
    kind = (label.get("terminology") or {}).get("type")
    if kind:
        item.RTROIIdentificationCodeSequence = [code_item(kind)]
    return item


def drawing(number: int, label: dict, mask: np.ndarray, source: Source, planes: list[Plane]) -> Dataset:
    """The contours of one structure, a mask (I, J, K), slice by slice; none where it is empty."""
    drawn = Dataset()
    drawn.ROIDisplayColor, drawn.ReferencedROINumber = list(label["color"]), number
    box = smallest(mask)
    if box is None:
        return drawn
    steps = source.grid.ijk_to_lps[:3, :2]  # to the next column and to the next row
    part, start = mask[slices(box)], np.array([low for low, _ in box[:2]])
    drawn.ContourSequence = [
        contour(planes[k].position + (polygon + start) @ steps.T, planes[k])
        for k in range(*box[2])
        for polygon in outlines(part[..., k - box[2][0]])
    ]
    return drawn


def contour(points: np.ndarray, plane: Plane) -> Dataset:
    """One closed contour through points (points, 3) LPS in mm, with the image that it lies on."""
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
    item.ContourData = [f"{mm:.4f}" for mm in points.ravel()]
    if plane.frame is not None:
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = class_of(plane.frame), uid_of(plane.frame)
        if plane.frame.frames > 1:
            image.ReferencedFrameNumber = plane.frame.index + 1
        item.ContourImageSequence = [image]
    return item
