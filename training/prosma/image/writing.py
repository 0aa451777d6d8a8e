"""Label maps to files: `.seg.nrrd` as Slicer writes its segmentations, `.nrrd`, `.nii.gz` and `.mha`. All or nothing.

A file is written under another name beside its place and moved there when it is whole, so that a full disk or a killed
process never leaves a part of one under the name asked for.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..files import replaced_when_whole
from .axes import as_kji
from .constants import LABEL_SUFFIXES
from .formats.nifti_writing import write_nifti
from .geometry import LPS_TO_RAS, Image, ImageError
from .itk_paths import itk_path
from .labels import Extent, LabelFacts, extents_of, terminology_entry
from .tags import EMPTY, FINGERPRINT, LABEL

NRRD_TYPES = {"uint8": "unsigned char", "uint16": "unsigned short"}


def label_suffix(path: str | os.PathLike) -> str:
    """Which of LABEL_SUFFIXES a file name ends with; ImageError for none of them."""
    name = os.fspath(path).lower()
    for suffix in LABEL_SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise ImageError(
        f"{Path(path).name} does not end like a label map that can be written.",
        f"Choose one of {', '.join(LABEL_SUFFIXES)}.",
        "bad_output",
    )


def write_labels(
    path: str | os.PathLike,
    labels: np.ndarray,
    image: Image,
    descriptions: Sequence[dict],
    tags: dict[str, str] | None = None,
    before_it_moves: Callable[[Path], None] | None = None,
    facts: LabelFacts | None = None,
) -> None:
    """Write a label map (I, J, K), uint8 or uint16, on the grid of `image`.

    `descriptions` are the model's `labels` and `tags` go to each segment of a `.seg.nrrd`. `facts`: those of `labels`, if
    they are known. An existing file is replaced in one step; `before_it_moves` gets the whole file before that, and an
    error of it keeps the old one. ImageError for an unknown ending, OSError where it cannot be written; then nothing has
    changed.

    >>> image = Image(np.zeros((1, 4, 5, 6)), np.diag([0.5, 0.5, 2.0, 1.0]))
    >>> labels = np.zeros((4, 5, 6), np.uint8)
    >>> labels[1:3, 2, 3] = 1
    >>> write_labels("liver.seg.nrrd", labels, image, [{"value": 1, "name": "liver", "color": [221, 130, 101]}])
    >>> from prosma.image.reading import read_labels
    >>> int(read_labels("liver.seg.nrrd").array.sum())
    2
    """
    path, suffix = Path(path), label_suffix(path)
    with replaced_when_whole(path, suffix) as temporary:
        if suffix in (".nii.gz", ".nii"):
            write_nifti(temporary, labels, image)
        elif suffix == ".mha":
            _write_with_itk(temporary, labels, image)
        else:
            fields = {}
            if suffix == ".seg.nrrd":
                facts = facts or LabelFacts.of(labels, image.ijk_to_ras, descriptions)
                fields = segment_fields(facts, image, descriptions, tags or {})
            temporary.write_bytes(nrrd_bytes(labels, image, fields))
        if before_it_moves is not None:
            before_it_moves(temporary)


def nrrd_bytes(labels: np.ndarray, image: Image, fields: dict[str, str]) -> bytes:
    """A NRRD file (nrrd.sourceforge.net, version 4, gzip) with key/value `fields`; geometry to the last digit.

    `labels` is (I, J, K), or (components, I, J, K), uint8 or uint16.
    """
    lead = ("none", "list") if labels.ndim == 4 else ()  # the first axis, which the file has as the fastest
    matrix = LPS_TO_RAS @ image.ijk_to_ras
    directions = " ".join(_vector(matrix[:3, n]) for n in range(3))
    header = [
        "NRRD0004",
        f"type: {NRRD_TYPES[labels.dtype.name]}",
        f"dimension: {labels.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, labels.shape))}",
        f"space directions: {' '.join([*lead[:1], directions])}",
        f"kinds: {' '.join([*lead[1:], 'domain domain domain'])}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(matrix[:3, 3])}",
        *(f"{key}:={_escaped(value)}" for key, value in fields.items()),
    ]
    fastest_last = np.moveaxis(as_kji(labels), 0, -1) if lead else as_kji(labels)
    voxels = np.ascontiguousarray(fastest_last, dtype=labels.dtype.newbyteorder("<"))
    return "\n".join(header).encode() + b"\n\n" + gzip.compress(voxels.data, compresslevel=2, mtime=0)


def segment_fields(facts: LabelFacts, image: Image, descriptions: Sequence[dict], tags: dict[str, str]) -> dict:
    """What Slicer keeps about each segment of a `.seg.nrrd`, as its segmentation storage node writes it."""
    fields: dict[str, str] = {}
    extents = extents_of(facts.extents, descriptions)
    for number, (label, extent) in enumerate(zip(descriptions, extents, strict=True)):
        value = label["value"]
        segment_tags = {
            "Segmentation.Status": "inprogress",
            "TerminologyEntry": terminology_entry(label.get("terminology")),
            **tags,
            **label.get("tags", {}),
            LABEL: str(value),
            FINGERPRINT: facts.fingerprints.get(value, EMPTY),
        }
        fields |= {
            f"Segment{number}_{key}": text
            for key, text in {
                "Color": " ".join(f"{channel / 255:.6g}" for channel in label["color"]),
                "ColorAutoGenerated": "0",
                "Extent": _inclusive(extent),
                "ID": f"Segment_{value}",
                "LabelValue": str(value),
                "Layer": "0",
                "Name": label["name"],
                "NameAutoGenerated": "0",
                "Tags": "".join(f"{key}:{text.replace('|', '/')}|" for key, text in segment_tags.items() if text),
            }.items()
        }
    return fields | {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ConversionParameters": f"Reference image geometry|{_geometry_text(image)}|&",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }


def _geometry_text(image: Image) -> str:
    """The grid as Slicer serialises it: the matrix row by row, then first and last voxel of each axis."""
    extent = [number for size in image.shape for number in (0, size - 1)]
    return "".join(f"{number};" for number in [*(repr(float(m) + 0.0) for m in image.ijk_to_ras.ravel()), *extent])


def _inclusive(extent: Extent) -> str:
    return " ".join(f"{low} {high - 1}" for low, high in extent.box or ((0, 0),) * 3)


def _vector(values) -> str:
    return "(" + ",".join(repr(float(value) + 0.0) for value in values) + ")"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _write_with_itk(path: Path, labels: np.ndarray, image: Image) -> None:
    import SimpleITK as sitk

    picture = sitk.GetImageFromArray(np.ascontiguousarray(as_kji(labels)))
    matrix = LPS_TO_RAS @ image.ijk_to_ras
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    picture.SetSpacing(spacing.tolist())
    picture.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    picture.SetOrigin(matrix[:3, 3].tolist())
    try:
        sitk.WriteImage(picture, itk_path(path), useCompression=True)
        written = sitk.ReadImage(str(path))  # kept by name: its view does not keep it alive
        whole = np.array_equal(sitk.GetArrayViewFromImage(written), as_kji(labels))
    except RuntimeError as error:
        raise OSError(f"it could not be written ({str(error).strip().splitlines()[-1]})") from error
    if not whole:  # ITK does not notice a full disk in every format
        raise OSError("it could not be written whole; the disk may be full")
