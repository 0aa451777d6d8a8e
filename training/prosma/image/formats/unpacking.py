"""Bytes of files that may be gzip-packed, whatever their names say, with a check that none are missing. RFC 1952."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from ..geometry import ImageError

CUT_OFF = "is cut off: a part of its voxels is missing."
DAMAGED = "is damaged: its packed voxels cannot be unpacked."
COPY_AGAIN = "Copy, download or export it again."
LARGEST_GAIN = 1032  # deflate makes at most so many bytes of one
NOT_ANOTHER_MEMBER = "Not a gzipped file"  # what the gzip module says of bytes that follow the last member


def missing_part(path: Path, other: str) -> ImageError:
    """The error for a header whose voxels are in another file that is not there."""
    why = f"The voxels of {path.name} are in another file, {other}, which is not there."
    return ImageError(why, f"Put {other} into the same folder.")


def is_gzip(path: Path) -> bool:
    """Whether a file begins as a gzip file does."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def read_start(path: Path, count: int) -> bytes:
    """The first `count` bytes of a file, unpacked; as many as there are, none where unpacking fails."""
    with path.open("rb") as file:
        if not is_gzip(path):
            return file.read(count)
        try:
            return zlib.decompressobj(wbits=31).decompress(file.read(1 << 16), count)
        except zlib.error:
            return b""


def read_bytes(path: Path, offset: int, count: int) -> np.ndarray:
    """`count` bytes (uint8) from `offset` on, unpacked. ImageError where the file is cut off or damaged, or needs too much.

    A gzip file is read to its end, so that its check sum is compared.
    """
    packed, size = is_gzip(path), path.stat().st_size
    if offset + count > (LARGEST_GAIN * size if packed else size):
        raise ImageError(f"{path.name} {CUT_OFF}", COPY_AGAIN)
    try:
        data = np.empty(count, np.uint8)
    except (MemoryError, ValueError):
        raise ImageError(
            f"{path.name} needs {count / 2**30:.0f} GB of memory, which this computer does not have.",
            "Crop it, or use a computer with more memory.",
        ) from None
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            file.seek(offset)
            if _fill(file, data) < count:
                raise ImageError(f"{path.name} {CUT_OFF}", COPY_AGAIN)
            if packed:
                _check_end(file)
    except EOFError:
        raise ImageError(f"{path.name} {CUT_OFF}", COPY_AGAIN) from None
    except (gzip.BadGzipFile, zlib.error, struct.error):
        raise ImageError(f"{path.name} {DAMAGED}", COPY_AGAIN) from None
    return data


def has_bytes(path: Path, size: int) -> bool:
    """Whether a file, unpacked, is whole and has at least `size` bytes."""
    if not is_gzip(path):
        return path.stat().st_size >= size
    count = 0
    try:
        with gzip.open(path, "rb") as file:
            while block := file.read(1 << 22):
                count += len(block)
    except (OSError, EOFError, zlib.error):
        return False
    return count >= size


def _fill(file, data: np.ndarray) -> int:
    """Read into `data` until it is full or the file ends; how many bytes came."""
    view, count = data.data, 0
    while count < len(data) and (step := file.readinto(view[count : count + (1 << 26)])):
        count += step
    return count


def _check_end(file) -> None:
    """Lets the gzip module compare the check sum of the voxels' member; what follows the last member does not count."""
    try:
        file.read(1)
    except gzip.BadGzipFile as error:
        if NOT_ANOTHER_MEMBER not in str(error):
            raise
