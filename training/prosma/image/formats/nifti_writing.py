"""Label maps to NIfTI files, placed alike for every program that reads them. Needs numpy alone."""

from __future__ import annotations

import contextlib
import gzip
import struct
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

import numpy as np

from ..axes import as_kji
from ..geometry import Image, ImageError
from .nifti_header import FIELDS, FIRST_VOXEL, NiftiGeometry, fault_of, place_voxels

LARGEST_SIZE = 32767  # of an axis in NIfTI-1
MILLIMETRES, SCANNER = 2, 1  # xyzt_units, and the code of a matrix that leads to the scanner's coordinates
TYPES = {"uint8": (2, "u1"), "uint16": (512, "<u2")}


def write_nifti(path: Path, labels: np.ndarray, image: Image) -> None:
    """A label map (I, J, K), uint8 or uint16, as NIfTI-1, packed where the name ends in .gz.

    The header places it as the image's own NIfTI header does, if it has one, so that any program shows the two together,
    whichever of sform, qform and pixdim it takes; else sform and qform are both the image's matrix. ImageError for an axis
    too long for the format, OSError where it cannot be written.
    """
    if max(labels.shape) > LARGEST_SIZE:
        raise ImageError(
            f"A NIfTI file has at most {LARGEST_SIZE} voxels along an axis, the result has {max(labels.shape)}.",
            "Choose .nrrd or .mha.",
        )
    datatype, kind = TYPES[labels.dtype.name]
    voxels = np.ascontiguousarray(as_kji(labels), dtype=kind)
    header = label_header(labels.shape, datatype, voxels.itemsize, label_geometry(image))
    with contextlib.ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(path.open("wb"))
        if path.name.lower().endswith(".gz"):
            packed = gzip.GzipFile("", "wb", compresslevel=2, fileobj=file, mtime=0)
            file = cast("IO[bytes]", stack.enter_context(packed))
        file.write(header)
        file.write(voxels.data)


def label_header(shape, datatype: int, item_bytes: int, geometry: NiftiGeometry) -> bytes:
    """The header of a single-file NIfTI-1 label map, up to its first voxel."""
    header = bytearray(FIRST_VOXEL[1])
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<h", header, 72, 8 * item_bytes)
    header[344:348] = b"n+1\0"
    values = {
        "sizes": (3, *shape, 1, 1, 1, 1),
        "datatype": (datatype,),
        "pixdim": (*geometry.pixdim, 0, 0, 0, 0),
        "offset": (FIRST_VOXEL[1],),
        "slope": (1,),
        "intercept": (0,),
        "units": (geometry.units,),
        "qform_code": (geometry.qform_code,),
        "sform_code": (geometry.sform_code,),
        "quaternion": geometry.quaternion,
        "qoffset": geometry.qoffset,
        "rows": tuple(geometry.rows.ravel()),
    }
    for key, (kind, place, _, _) in FIELDS.items():
        struct.pack_into("<" + kind, header, place, *values[key])
    return bytes(header)


def label_geometry(image: Image) -> NiftiGeometry:
    """The image's own entries, where a form that is not there or cannot be used becomes the other; else new ones."""
    given = image.nifti
    if given is None or not np.array_equal(place_voxels(given, image.shape, "")[0], image.ijk_to_ras):
        return geometry_of(image.ijk_to_ras)
    has_sform = given.sform_code > 0 and not fault_of(given.sform)
    has_qform = given.qform_code > 0 and not fault_of(given.qform)
    if has_sform and not has_qform:
        made = geometry_of(given.sform)
        return replace(given, qform_code=given.sform_code, quaternion=made.quaternion, qoffset=made.qoffset)
    if has_qform and not given.sform_code > 0:
        return replace(given, sform_code=given.qform_code, rows=given.qform[:3])
    return given


def geometry_of(matrix: np.ndarray) -> NiftiGeometry:
    """Entries of a header whose sform and qform are both `matrix` (4 x 4, mm); the qform without its shear, if any."""
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    left, _, right = np.linalg.svd(matrix[:3, :3] / spacing)
    rotation = left @ right
    sign = -1.0 if np.linalg.det(rotation) < 0 else 1.0
    rotation[:, 2] *= sign
    quaternion, place = quaternion_of(rotation), tuple(float(mm) for mm in matrix[:3, 3])
    return NiftiGeometry((sign, *spacing), SCANNER, SCANNER, quaternion, place, matrix[:3].copy(), MILLIMETRES)


def quaternion_of(rotation: np.ndarray) -> tuple[float, float, float]:
    """(b, c, d) of the unit quaternion of a rotation (3 x 3); a is not negative. After I. Y. Bar-Itzhack, 2000."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    symmetric = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, zy - yz],
            [yx + xy, yy - xx - zz, zy + yz, xz - zx],
            [zx + xz, zy + yz, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    b, c, d, a = np.linalg.eigh(symmetric)[1][:, -1]
    sign = -1.0 if a < 0 else 1.0
    return float(sign * b), float(sign * c), float(sign * d)
