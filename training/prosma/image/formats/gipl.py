"""GIPL files (Guy's Image Processing Lab): ITK reads them, and makes up the voxels that a cut off one lacks. GIPL 2.0."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from pathlib import Path

from ..geometry import Image, ImageError
from .unpacking import COPY_AGAIN, CUT_OFF, Rest, read_start, size_unpacked

SUFFIXES = (".gipl", ".gipl.gz")
BYTES = {1: 1, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8, 144: 4, 160: 4, 192: 8, 193: 16}
HEADER_BYTES = 256
NO_ORIENTATION = (
    "GIPL files do not say how an image is oriented. It was assumed, as Slicer does, that the axes of {name} run to the "
    "patient's left, back and head."
)


def read_gipl(path: Path, read) -> Image:
    """The image that `read(path)` gives, with a notice. ImageError for a cut off file."""
    size, wanted = size_unpacked(path), file_size(read_start(path, HEADER_BYTES))
    if size is None or size < wanted:
        raise ImageError(f"{path.name} {CUT_OFF}", COPY_AGAIN)
    image, name = read(path), path.name
    return replace(image, notices=(*image.notices, NO_ORIENTATION.format(name=name), *Rest(size - wanted).told(name)))


def file_size(header: bytes) -> int:
    """Bytes that a GIPL file with this header should have."""
    if len(header) < HEADER_BYTES:
        return HEADER_BYTES
    *sizes, kind = struct.unpack_from(">5H", header)
    return HEADER_BYTES + math.prod(max(1, n) for n in sizes) * BYTES.get(kind, 1)
