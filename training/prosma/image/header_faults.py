"""Faults of files that ITK does not notice: cut off NIfTI, GIPL and JPEG files (voxels missing), sheared NIfTI geometry.

Layouts: nifti1.h and nifti2.h (nifti.nimh.nih.gov), GIPL 2.0, ITU-T T.81 annex B, RFC 1952.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .geometry import ImageError, is_sheared

GIPL_BYTES = {1: 1, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8, 144: 4, 160: 4, 192: 8, 193: 16}
CUT_OFF = "is cut off: a part of its voxels is missing."
CUT_OFF_REMEDY = "Copy, download or export it again."
HEADER_BYTES = 544
NIFTI_LAYOUTS = {  # by the header's length: types and places of dim, bitpix, vox_offset, sform_code, srow_x
    348: ("8h", 40, "h", 72, "f", 108, "h", 254, "4f", 280),
    540: ("8q", 16, "h", 14, "q", 168, "i", 348, "4d", 400),
}


@dataclass(frozen=True)
class NiftiHeader:
    """`size`: bytes that the file should have. `sform`: its 4 x 4 matrix, None where it has none."""

    size: int
    sform: np.ndarray | None


def refuse_what_itk_overlooks(path: Path) -> None:
    """ImageError for a cut off or sheared file, as far as the formats above go."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        header = nifti_header(read_start(path))
        if header is not None and header.sform is not None and is_sheared(header.sform):
            raise ImageError(
                f"{path.name} is sheared: its axes are not at right angles, as after a tilted CT gantry.",
                "Resample it to a regular grid first, for instance with Slicer's Resample Scalar/Vector/DWI Volume.",
            )
        size = header.size if header is not None else HEADER_BYTES
    elif name.endswith((".gipl", ".gipl.gz")):
        size = gipl_size(read_start(path))
    elif name.endswith((".jpg", ".jpeg")):
        data = path.read_bytes()
        if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # no end of image after the last start of scan
            raise ImageError(f"{path.name} {CUT_OFF}", CUT_OFF_REMEDY)
        return
    else:
        return
    if not has_bytes(path, size):
        raise ImageError(f"{path.name} {CUT_OFF}", CUT_OFF_REMEDY)


def read_start(path: Path) -> bytes:
    """The first bytes of a file, unpacked; as many as there are."""
    if not is_gzip(path):
        with path.open("rb") as file:
            return file.read(HEADER_BYTES)
    with path.open("rb") as file:
        try:
            return zlib.decompressobj(wbits=31).decompress(file.read(1 << 16), HEADER_BYTES)
        except zlib.error:
            return b""


def is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def has_bytes(path: Path, size: int) -> bool:
    """Whether a file, unpacked, is whole and has at least `size` bytes.

    The last four bytes of a gzip file tell its length (of its last member, modulo 2^32). Only where that is another
    length than expected is the file unpacked to see.
    """
    if not is_gzip(path):
        return path.stat().st_size >= size
    with path.open("rb") as file:
        file.seek(-4, 2)
        if struct.unpack("<I", file.read(4))[0] == size % 2**32:
            return True
    count = 0
    try:
        with gzip.open(path, "rb") as file:
            while block := file.read(1 << 22):
                count += len(block)
    except (OSError, EOFError, zlib.error):
        return False
    return count >= size


def gipl_size(header: bytes) -> int:
    """Bytes that a GIPL file with this header should have."""
    if len(header) < 256:
        return HEADER_BYTES
    *sizes, kind = struct.unpack_from(">5H", header)
    return 256 + math.prod(max(1, n) for n in sizes) * GIPL_BYTES.get(kind, 1)


def nifti_header(header: bytes) -> NiftiHeader | None:
    """What the first bytes of a NIfTI-1 or NIfTI-2 file say; None where they are no such header."""
    for order in "<>":
        for length, layout in NIFTI_LAYOUTS.items():
            if len(header) < length or struct.unpack_from(order + "i", header)[0] != length:
                continue
            dims, dims_at, bits, bits_at, offset, offset_at, code, code_at, row, rows_at = layout
            count, *sizes = struct.unpack_from(order + dims, header, dims_at)
            voxels = math.prod(max(1, n) for n in sizes[: max(0, min(7, count))])
            (bits,) = struct.unpack_from(order + bits, header, bits_at)
            (start,) = struct.unpack_from(order + offset, header, offset_at)
            single = b"n+" in header[:8] + header[344:348]  # else voxels are in another file
            size = (int(start) if single else 0) + (voxels * bits // 8 if single else length)
            if struct.unpack_from(order + code, header, code_at)[0] <= 0:
                return NiftiHeader(size, None)
            step = struct.calcsize(row)
            rows = [struct.unpack_from(order + row, header, rows_at + n * step) for n in range(3)]
            matrix = np.array([*rows, (0, 0, 0, 1)], dtype=np.float64)
            usable = np.isfinite(matrix).all() and np.linalg.norm(matrix[:3, :3], axis=0).min() > 0
            return NiftiHeader(size, matrix if usable else None)
    return None
