"""Bytes of files that may be gzip-packed, whatever their names say: none are missing, those left over are told. RFC 1952."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..geometry import ImageError

CUT_OFF = "is cut off: a part of its voxels is missing."
DAMAGED = "is damaged: its packed voxels cannot be unpacked."
COPY_AGAIN = "Copy, download or export it again."
LARGEST_GAIN = 1032  # deflate makes at most so many bytes of one
NOT_ANOTHER_MEMBER = "Not a gzipped file"  # what the gzip module says of bytes that follow the last member
BLOCK = 1 << 22
KEPT = 64  # bytes of what follows the voxels
TOO_LONG = (
    "{name} holds {count} behind its voxels, which were not used; if the image is not whole, its header is damaged."
)


class Rest(NamedTuple):
    """What follows the voxels in a file: how many bytes, and the first KEPT of them."""

    length: int
    start: bytes = b""

    def told(self, name: str) -> tuple[str, ...]:
        """A notice, or none where nothing follows."""
        count = f"{self.length} byte{'s' if self.length > 1 else ''}"
        return (TOO_LONG.format(name=name, count=count),) if self.length else ()


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


def read_bytes(path: Path, offset: int, count: int) -> tuple[np.ndarray, Rest]:
    """`count` bytes (uint8) from `offset` on, unpacked, and what follows them.

    ImageError where the file is cut off or damaged, or needs too much. A gzip file is read to its end, so that its check
    sum is compared.
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
            rest = _rest_of(file) if packed else Rest(size - offset - count, file.read(KEPT))
    except EOFError:
        raise ImageError(f"{path.name} {CUT_OFF}", COPY_AGAIN) from None
    except (gzip.BadGzipFile, zlib.error, struct.error):
        raise ImageError(f"{path.name} {DAMAGED}", COPY_AGAIN) from None
    return data, rest


def size_unpacked(path: Path, offset: int = 0) -> int | None:
    """Bytes from `offset` on, unpacked where they are a gzip file; None where that is cut off or damaged."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(2) != b"\x1f\x8b":
            return path.stat().st_size - offset
        file.seek(offset)
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _rest_of(unpacked).length
        except (OSError, EOFError, zlib.error):
            return None


def _fill(file, data: np.ndarray) -> int:
    """Read into `data` until it is full or the file ends; how many bytes came."""
    view, count = data.data, 0
    while count < len(data) and (step := file.readinto(view[count : count + (1 << 26)])):
        count += step
    return count


def _rest_of(file) -> Rest:
    """What is left to unpack; read to the end, where the gzip module compares the check sum.

    What follows the last gzip member is no part of the file.
    """
    start, count = b"", 0
    try:
        while block := file.read(BLOCK):
            start = (start + block[:KEPT])[:KEPT]
            count += len(block)
    except gzip.BadGzipFile as error:
        if NOT_ANOTHER_MEMBER not in str(error):
            raise
    return Rest(count, start)
