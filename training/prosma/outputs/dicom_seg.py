"""Label maps as DICOM segmentations (SEG), written by highdicom: DICOM PS3.3 sections A.51 and A.101.

Every slice becomes a single image for highdicom, whatever its source is; what the slices were made from is filled in after,
so that frames of multi-frame files, in any order, and several series are all named as they are.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import EngineError
from ..files import replaced_when_whole
from ..image.axes import as_kji
from ..image.dicom.files import quiet_pydicom
from ..image.geometry import ImageError
from .choices import BINARY, SEG, SEG_TYPES
from .dicom_header import (
    class_of,
    code_item,
    entropy_of,
    header_of,
    new_series_number,
    references,
    refuse_unknown_labels,
    short,
    studies_of,
    uid_of,
)
from .source import OTHER_FORMATS, Plane, Source, read_source

TISSUE = ["SCT", "85756007", "Tissue"]  # what Slicer takes where nothing is said
PLAIN_IMAGE = "1.2.840.10008.5.1.4.1.1.4"  # class of the stand-ins: one that has one place an image
STAND_IN = "2.999."  # begins the UID of a stand-in, which ends in its number; no image has such a UID
SHARED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns", "ImageOrientationPatient")


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
        with replaced_when_whole(Path(path), SEG) as temporary:
            content.save_as(temporary)
            if before_it_moves is not None:
                before_it_moves(temporary)


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
    content = highdicom.seg.Segmentation(
        source_images=[first, *(stand_in(source, planes, k, first) for k in range(1, len(planes)))],
        pixel_array=numbered(labels, described),
        segmentation_type=seg_type.upper(),
        segment_descriptions=[segment(number, label, algorithm) for number, label in enumerate(described, start=1)],
        series_instance_uid=generate_uid(entropy_srcs=[*entropy, "series"]),
        series_number=new_series_number(source),
        sop_instance_uid=generate_uid(entropy_srcs=[*entropy, "instance"]),
        instance_number=1,
        manufacturer="ProSMA",
        manufacturer_model_name=short(package.name),
        software_versions=versions,
        device_serial_number=package.sha256,
        content_label="PROSMA",
        content_description=short(f"{package.name}, {package.version}"),
        content_creator_name="ProSMA^",
        series_description=short(f"ProSMA {package.name}"),
    )
    dimensions = generate_uid(entropy_srcs=[*entropy, "dimensions"])  # highdicom takes a random one
    for item in (*content.DimensionOrganizationSequence, *content.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    return content


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
        kind_item.SegmentedPropertyTypeModifierCodeSequence = [code_item(modifier)]
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
