"""FreeSurfer's `.mgh` and `.mgz`: images by their own header. Needs numpy alone.

Layout: "MGH/MGZ Volume Format", surfer.nmr.mgh.harvard.edu; all numbers are big-endian.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from ..geometry import FUNCTIONAL_REMEDY, Image, ImageError
from .unpacking import COPY_AGAIN, Rest, read_bytes, read_start

SUFFIXES = (".mgh", ".mgz")
TYPES = {0: "u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
HEADER = struct.Struct(">7ih15f")  # version, sizes, frames, type, dof, "has orientation", spacing, directions, centre
FIRST_VOXEL = 284
PARAMETERS = (16, 20)  # bytes behind the voxels: repetition time, flip angle, echo and inversion time, field of view
LAST_TAG = 99  # tags, such as 3 for a command line and 31 for a transform, follow them
DIRECTIONS = (
    -1.0,
    0.0,
    0.0,
    0.0,
    0.0,
    -1.0,
    0.0,
    1.0,
    0.0,
)  # coronal slices: what FreeSurfer takes where none are given
NO_ORIENTATION = (
    "The header of {name} does not say how the image is oriented. It was assumed, as FreeSurfer does, that its slices are "
    "coronal with voxels of 1 mm."
)


def read_mgh(path: Path, _read=None) -> Image:
    """The image in a FreeSurfer file. ImageError for what is none or cannot be used."""
    start, name = read_start(path, HEADER.size), path.name
    if len(start) < HEADER.size or struct.unpack_from(">i", start)[0] != 1:
        raise ImageError(f"{name} is damaged, cut off or no FreeSurfer volume: it has no such header.", COPY_AGAIN)
    _, *sizes, frames, kind, _, oriented = (fields := HEADER.unpack(start))[:8]
    if min(sizes) < 1 or kind not in TYPES:
        raise ImageError(
            f"The header of {name} is damaged: it names {' x '.join(map(str, sizes))} voxels of type {kind}.",
            COPY_AGAIN,
        )
    if frames > 1:
        raise ImageError(
            f"{name} has 4 dimensions ({' x '.join(map(str, [*sizes, frames]))}), such as a time series; "
            "only 2D and 3D volumes can be segmented.",
            FUNCTIONAL_REMEDY,
        )
    spacing, directions, centre = fields[8:11], fields[11:20], fields[20:23]
    notices: tuple[str, ...] = ()
    if oriented != 1:
        spacing, directions, centre = (1.0, 1.0, 1.0), DIRECTIONS, (0.0, 0.0, 0.0)
        notices = (NO_ORIENTATION.format(name=name),)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(directions).reshape(3, 3).T * spacing
    matrix[:3, 3] = np.array(centre) - matrix[:3, :3] @ (np.array(sizes) / 2)
    dtype = np.dtype(TYPES[kind])
    data, rest = read_bytes(path, FIRST_VOXEL, math.prod(sizes) * dtype.itemsize)
    notices += () if is_footer(rest) else rest.told(name)
    array = data.view(dtype).reshape(1, *sizes, order="F").astype(dtype.newbyteorder("="), copy=False)
    return Image(array, matrix, notices)


def is_footer(rest: Rest) -> bool:
    """Whether what follows the voxels is what FreeSurfer writes there: numbers of the scan, then tags."""
    if rest.length <= PARAMETERS[-1]:
        return True
    tags = [struct.unpack_from(">i", rest.start, place)[0] for place in PARAMETERS if len(rest.start) >= place + 4]
    return any(1 <= tag <= LAST_TAG for tag in tags)
