"""Faults of files that ITK does not notice: cut off GIPL and JPEG files, whose missing voxels it makes up.

Layouts: GIPL 2.0, ITU-T T.81 annex B.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

from .geometry import ImageError
from .unpacking import COPY_AGAIN, CUT_OFF, has_bytes, read_start

GIPL_BYTES = {1: 1, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8, 144: 4, 160: 4, 192: 8, 193: 16}
GIPL_HEADER = 256


def refuse_what_itk_overlooks(path: Path) -> None:
    """ImageError for a cut off file, as far as the formats above go."""
    gipl = path.name.lower().endswith((".gipl", ".gipl.gz"))
    if gipl and not has_bytes(path, gipl_size(read_start(path, GIPL_HEADER))):
        raise ImageError(f"{path.name} {CUT_OFF}", COPY_AGAIN)


def gipl_size(header: bytes) -> int:
    """Bytes that a GIPL file with this header should have."""
    if len(header) < GIPL_HEADER:
        return GIPL_HEADER
    *sizes, kind = struct.unpack_from(">5H", header)
    return GIPL_HEADER + math.prod(max(1, n) for n in sizes) * GIPL_BYTES.get(kind, 1)
