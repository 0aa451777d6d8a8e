"""Pictures (PNG, JPEG, TIFF, BMP): what their own headers say and ITK, which reads them, does not tell.

Layouts: PNG 1.2 and APNG 1.0, ITU-T T.81 annex B, Exif 2.3, TIFF 6.0, BigTIFF. A picture has pixels and no size in mm: the
spacing that ITK takes from its print resolution only serves to lie where Slicer shows it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import struct
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..geometry import Image, ImageError
from .unpacking import COPY_AGAIN, CUT_OFF

LOSSY = (".jpg", ".jpeg")
PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".jp2")
AS_PNG = "Save it as PNG, in colour or grey, with any program for pictures."
SIGNS = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
    b"BM": ".bmp",
    b"\0\0\0\x0cjP  ": ".jp2",
    b"\xff\x4f\xff\x51": ".jp2",
}  # how files of each kind begin
SAME_KIND = {".jpg": (".jpg", ".jpeg"), ".tif": (".tif", ".tiff")}
MOST_PAGES = 10_000
BMP_HEADER = 54
UPRIGHT = 1  # the orientation that needs no turn
SIZES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8}  # bytes of TIFF's whole numbers, by type
FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}
MOST_GAIN = 1 << 16  # bytes of a picture for one of its file; of the codings of TIFF, LZW makes some 4,000 at most
WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, EXTRA, KIND = 256, 257, 258, 262, 274, 338, 254
SAMPLES, PLANES, SAMPLE_FORMAT = 277, 284, 339
APART, UNSIGNED, FLOAT = 2, 1, 3
ONE_VALUE = (WIDTH, HEIGHT, PHOTOMETRIC, ORIENTATION)
WHITE_IS_ZERO, LAB = 0, (8, 9, 10)
TURNED = (
    "The Exif data of {name} say that it is to be shown turned; it was segmented as it is stored, as Slicer shows it."
)
ANIMATED = "{name} is an animation; only its first frame was used."
DAMAGED = "{name} is damaged, so parts of it may be wrong; the library that reads it said: {said}"
DAMAGE = re.compile(
    r"Corrupt JPEG|Premature end|Inconsistent progression|Invalid SOS|Decode: Warning|tag ignored|Not enough data"
)
_one_at_a_time = threading.Lock()
PAGES = "{name} has {count} pages; they were taken as the slices of a stack."


def is_lossy(path: Path) -> bool:
    """Whether a file's kind, by its name, smears the 0 and 255 of a mask, which is then cut at the middle."""
    return path.name.lower().endswith(LOSSY)


@contextlib.contextmanager
def said_by_libraries() -> Iterator[list[str]]:
    """The lines that libraries in C write to stdout and stderr meanwhile, their only word about damage that they read over.

    They go to stderr afterwards: on stdout a program may expect other things.
    """
    lines: list[str] = []
    with _one_at_a_time, tempfile.TemporaryFile() as file, contextlib.ExitStack() as stack:
        for stream in (1, 2):
            with contextlib.suppress(OSError):  # a program without it
                stack.callback(_put_back, os.dup(stream), stream)
                os.dup2(file.fileno(), stream)
        try:
            yield lines
        finally:
            stack.close()
            file.seek(0)
            content = file.read()
            with contextlib.suppress(OSError):
                os.write(2, content)
            lines += content.decode(errors="replace").splitlines()


def _put_back(kept: int, stream: int) -> None:
    os.dup2(kept, stream)
    os.close(kept)


@dataclass(frozen=True)
class Facts:
    """`orientation` as in Exif, `frames` of an animation, `transparent`: whether there is an alpha channel."""

    orientation: int = UPRIGHT
    frames: int = 1
    transparent: bool = False


def read_picture(path: Path, read) -> Image:
    """The picture that `read(path)` gives, with what it lacks; ImageError where that would be wrong."""
    _refuse_other_kinds(path)
    facts, notices = picture_facts(path)
    with said_by_libraries() as said:
        image = read(path)
    array = image.array
    damage = next((line.strip() for line in said if DAMAGE.search(line)), "")
    notices += [DAMAGED.format(name=path.name, said=damage)] if damage else []
    if len(array) in (2, 4):
        array = array[:-1]
        notices += [f"The transparency of {path.name} was ignored."] if facts.transparent else []
    if image.shape[2] > 1:
        notices.append(PAGES.format(name=path.name, count=image.shape[2]))
    return replace(image, array=array, notices=(*image.notices, *notices), spacing_known=False)


def _refuse_other_kinds(path: Path) -> None:
    """ImageError for a picture whose content is not what its ending says: ITK ends the process over some."""
    with path.open("rb") as file:
        start = file.read(12)
    suffix = next((suffix for sign, suffix in SIGNS.items() if start.startswith(sign)), "")
    if not suffix:
        raise ImageError(f"{path.name} is damaged or no picture: it has no such header.", COPY_AGAIN)
    ending = path.suffix if suffix == ".jp2" else path.suffix.lower()  # ITK knows that one in small letters only
    if ending not in SAME_KIND.get(suffix, (suffix,)):
        raise ImageError(
            f"{path.name} is a picture of another kind than its ending says.", f"Give it the ending {suffix}."
        )


def picture_facts(path: Path) -> tuple[Facts, list[str]]:
    """What a picture's header says, and notices about it; ImageError for what ITK would get wrong."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        facts = _facts(data, path.name)
    notices = [TURNED.format(name=path.name)] if facts.orientation != UPRIGHT else []
    notices += [ANIMATED.format(name=path.name)] if facts.frames > 1 else []
    return facts, notices


def _facts(data: mmap.mmap, name: str) -> Facts:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png(data, name)
    if data[:2] == b"\xff\xd8":
        return _jpeg(data, name)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(data, name)
    return _bmp(data, name) if data[:2] == b"BM" else Facts()


def _png(data: bytes | mmap.mmap, name: str) -> Facts:
    chunks = dict.fromkeys(kind for kind, _ in _chunks(data))
    if data[25:26] == b"\x04":
        raise ImageError(f"{name} is a grey picture with transparency, which cannot be read.", AS_PNG)
    frames = next((int.from_bytes(content[:4], "big") for kind, content in _chunks(data) if kind == b"acTL"), 1)
    exif = next((content for kind, content in _chunks(data) if kind == b"eXIf"), b"")
    return Facts(_exif_orientation(exif), frames, data[25:26] == b"\x06" or b"tRNS" in chunks)


def _chunks(data: bytes | mmap.mmap) -> Iterator[tuple[bytes, bytes]]:
    """Kind and first 64 kB of each whole chunk of a PNG file."""
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if place + 12 + length > len(data):
            return
        yield kind, data[place + 8 : place + 8 + min(length, 1 << 16)]
        place += 12 + length


def _jpeg(data: bytes | mmap.mmap, name: str) -> Facts:
    """A JPEG file has an end of image after its last start of scan; ITK makes up what is missing."""
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise ImageError(f"{name} {CUT_OFF}", COPY_AGAIN)
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, place + 2)
        if data[place + 1] == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            return Facts(_exif_orientation(data[place + 10 : place + 2 + length]))
        place += 2 + max(2, length)
    return Facts()


def _exif_orientation(data: bytes | mmap.mmap) -> int:
    """The orientation in Exif data, which are laid out as a TIFF file."""
    page = next(_pages(data, "Exif"), {})
    return page.get(ORIENTATION, UPRIGHT) if 1 <= page.get(ORIENTATION, UPRIGHT) <= 8 else UPRIGHT


def _bmp(data: bytes | mmap.mmap, name: str) -> Facts:
    """ITK makes up what a cut off BMP file lacks."""
    if len(data) < BMP_HEADER:
        raise ImageError(f"{name} {CUT_OFF}", COPY_AGAIN)
    length, _, first, _, width, height, _, bits, packed = struct.unpack_from("<4I2i2HI", data, 2)
    row = (abs(width) * bits + 31) // 32 * 4
    if len(data) < (length if packed else first + row * abs(height)):
        raise ImageError(f"{name} {CUT_OFF}", COPY_AGAIN)
    if bits not in (8, 24, 32):
        raise ImageError(f"{name} is a BMP picture of {bits} bits, which cannot be read.", AS_PNG)
    return Facts(transparent=bits == 32)


def _tiff(data: bytes | mmap.mmap, name: str) -> Facts:
    pages = [page for page in _pages(data, name) if not page.get(KIND, 0) & 1]  # without small previews
    if not pages:
        return Facts()
    first = pages[0]
    if len({(page.get(WIDTH), page.get(HEIGHT)) for page in pages}) > 1:
        raise ImageError(f"{name} has {len(pages)} pages of different sizes.", "Save the page to segment as a picture.")
    if PHOTOMETRIC not in first:
        raise ImageError(f"{name} does not say what its values mean (no PhotometricInterpretation).", AS_PNG)
    if first[PHOTOMETRIC] == WHITE_IS_ZERO and first.get(BITS, 1) > 1:
        raise ImageError(
            f"{name} is stored as a negative (TIFF with white as 0), which would be read inverted.", AS_PNG
        )
    if first[PHOTOMETRIC] in LAB:
        raise ImageError(f"{name} has its colours in CIELab, which cannot be read.", AS_PNG)
    if first.get(ORIENTATION, UPRIGHT) > 4:
        raise ImageError(f"{name} is stored lying on its side (TIFF orientation {first[ORIENTATION]}).", AS_PNG)
    if first.get(BITS, 1) > 32:
        raise ImageError(f"{name} has voxels of {first[BITS]} bits, which cannot be read.", "Save it with 32 bits.")
    _refuse_samples(first, name)
    bits = first.get(BITS, 1) * first.get(SAMPLES, 1)
    if bits > 1 and first.get(WIDTH, 0) * first.get(HEIGHT, 0) * bits > 8 * MOST_GAIN * len(data):
        raise ImageError(f"{name} {CUT_OFF}", COPY_AGAIN)  # ITK would ask for the memory first, which takes its time
    return Facts(transparent=EXTRA in first)


def _refuse_samples(page: dict[int, int], name: str) -> None:
    """ImageError for values that ITK takes for others: see the sample layouts in TIFF 6.0, pages 26, 31, 38 and 80."""
    samples, bits, kind = page.get(SAMPLES, 1), page.get(BITS, 1), page.get(SAMPLE_FORMAT, UNSIGNED)
    if samples not in (1, 3, 4):
        raise ImageError(f"{name} has {samples} values in each pixel, such as grey and transparency.", AS_PNG)
    if kind == FLOAT and bits < 32:
        raise ImageError(
            f"{name} has numbers of {bits} bits with fractions, which cannot be read.", "Save it with 32 bits."
        )
    if samples > 1 and page.get(PLANES, 1) == APART and (samples, bits, kind) != (3, 8, UNSIGNED):
        raise ImageError(f"{name} has its colours one after the other in a way that would be read wrongly.", AS_PNG)


def _pages(data: bytes | mmap.mmap, name: str) -> Iterator[dict[int, int]]:
    """The directories of a TIFF file: the first whole number of each tag. Damaged parts end it; ITK will say so.

    Raises ImageError where one leads back to an earlier one.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    link, count, entry, inline = ("Q", "Q", 20, 12) if big else ("I", "H", 12, 8)
    (place,) = struct.unpack_from(order + link, data, 8 if big else 4)
    seen: set[int] = set()
    while place and len(seen) < MOST_PAGES:
        if place in seen:
            circle = f"{name} is damaged: its pages follow one another in a circle."  # libtiff would follow it for ever
            raise ImageError(circle, COPY_AGAIN)
        seen.add(place)
        first = place + struct.calcsize(count)
        if first > len(data):
            return
        (entries,) = struct.unpack_from(order + count, data, place)
        end = first + entries * entry
        if end + struct.calcsize(link) > len(data):
            return
        yield _tags(data, order, range(first, end, entry), inline, big)
        (place,) = struct.unpack_from(order + link, data, end)


def _tags(data: bytes | mmap.mmap, order: str, entries: range, inline: int, big: bool) -> dict[int, int]:
    """The first whole number of each tag of a directory."""
    tags = {}
    for entry in entries:
        tag, kind = struct.unpack_from(order + "2H", data, entry)
        (count,) = struct.unpack_from(order + ("Q" if big else "I"), data, entry + 4)
        size = SIZES.get(kind)
        if size is None or (tag in ONE_VALUE and count != 1):  # libtiff does not count these either
            continue
        place = entry + inline
        if size * count > (8 if big else 4):  # the values lie elsewhere
            (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
        if place + size <= len(data):
            (tags[tag],) = struct.unpack_from(order + FORMATS[size], data, place)
    return tags
