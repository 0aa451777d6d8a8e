"""MetaImage files (`.mha`, `.mhd` with `.raw` or `.zraw`): the usual kinds, read here. Needs numpy alone.

ITK hands out wrong voxels where packed ones are damaged, and ends the process over some damaged headers. Kinds that hardly
anybody has (several data files, voxels as text) are left to ITK. Layout: MetaIO's documentation (itk.org).
"""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path

import numpy as np

from ..geometry import FUNCTIONAL_REMEDY, LPS_TO_RAS, Image, ImageError, is_sheared
from .lengths import mm_per_unit
from .unpacking import COPY_AGAIN, CUT_OFF, DAMAGED, Rest, missing_part, read_bytes

SUFFIXES = (".mha", ".mhd")
LONGEST_HEADER = 1 << 16
LONGEST_NAME = 255  # of a file
NUMBERED = re.compile(r"[^%]*%0?\d?d[^%]*")  # names of several files; ITK prints by it, whatever else stands there
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
NO_ORIENTATION = (
    "The header of {name} does not say how the image is oriented. It was assumed, as Slicer does, that its axes run to the "
    "patient's left, back and head."
)
NO_SPACING = "The header of {name} gives no voxel size; 1 mm was assumed, as Slicer does."
UNUSED_SCALE = "The header of {name} tells how to scale its values; as in Slicer, they were taken as they are stored."
REPAIR = "Export it again, or correct its header, which is text."


def read_metaimage(path: Path, read) -> Image:
    """The image in a MetaImage file, of rare kinds by `read(path)`. ImageError for what cannot be used."""
    fields, first = read_fields(path)
    name, file = path.name, fields.get("ElementDataFile", "")
    odd = len(file) > LONGEST_NAME or "\0" in file or ("%" in file and not NUMBERED.fullmatch(file))
    if not file or odd or fields.get("ObjectType", "Image") != "Image":
        raise ImageError(f"{name} is damaged, cut off or no MetaImage: it has no such header.", COPY_AGAIN)
    local = file.upper() == "LOCAL"
    is_text = fields.get("BinaryData", "True").lower() == "false"
    if file.upper().startswith("LIST") or "%" in file or is_text or (local and "HeaderSize" in fields):
        return read(path)
    sizes = _sizes(fields, name)
    data = path if local else _beside(path, file)
    array, rest = _voxels(fields, data, first if local else _skip(fields, name), sizes, name)
    matrix, notices = _geometry(fields, sizes, name)
    notices += rest.told(data.name)
    scale = [_number(fields, f"ElementToIntensityFunction{key}", n) for key, n in (("Slope", 1), ("Offset", 0))]
    if scale != [1, 0]:
        notices.append(UNUSED_SCALE.format(name=name))
    return Image(array, matrix, tuple(notices))


def read_fields(path: Path) -> tuple[dict[str, str], int]:
    """The entries of the header, and the place of the first byte behind it. ImageError for two that differ."""
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    fields: dict[str, str] = {}
    place = 0
    while (end := start.find(b"\n", place)) >= 0:
        key, equals, value = start[place:end].decode("latin-1").partition("=")
        place = end + 1
        if not equals:
            break
        key, value = key.strip(), value.strip()
        if fields.setdefault(key, value) != value:
            raise ImageError(f"The header of {path.name} is damaged: it gives {key} twice, and differently.", REPAIR)
        if key == "ElementDataFile":
            break
    return fields, place


def _numbers(fields: dict[str, str], names: tuple[str, ...], count: int, name: str) -> list[float] | None:
    """The numbers of the first of these entries that is there; None where none is."""
    key = next((each for each in names if each in fields), None)
    if key is None:
        return None
    try:
        values = [float(text) for text in fields[key].split()]
    except ValueError:
        values = []
    if len(values) < count or not np.isfinite(values[:count]).all():
        raise ImageError(f"The header of {name} is damaged: its {key} is '{fields[key][:60]}'.", REPAIR)
    return values[:count]


def _number(fields: dict[str, str], key: str, default: float) -> float:
    """A number that may be missing; the default for what is none."""
    try:
        value = float(fields.get(key, default))
    except ValueError:
        return default
    return value if math.isfinite(value) else default


def _sizes(fields: dict[str, str], name: str) -> list[int]:
    """Voxels along I, J, K."""
    (count,) = _numbers(fields, ("NDims",), 1, name) or [3.0]
    count = int(count)
    if not 1 <= count <= 9:
        raise ImageError(f"The header of {name} is damaged: it names {count} dimensions.", REPAIR)
    sizes = [int(size) for size in _numbers(fields, ("DimSize",), count, name) or [0] * count]
    if min(sizes) < 0:
        raise ImageError(f"The header of {name} is damaged: it names {min(sizes)} voxels along an axis.", REPAIR)
    if 0 in sizes:
        raise ImageError(f"{name} is empty: it has no voxels.", "Choose another volume.")
    if any(size > 1 for size in sizes[3:]):
        raise ImageError(
            f"{name} has {count} dimensions ({' x '.join(map(str, sizes))}), such as a time series; "
            "only 2D and 3D volumes can be segmented.",
            FUNCTIONAL_REMEDY,
        )
    return [*sizes, 1, 1, 1][:3]


def _voxels(
    fields: dict[str, str], path: Path, first: int | None, sizes: list[int], name: str
) -> tuple[np.ndarray, Rest]:
    """The voxels (C, I, J, K) from byte `first` of a file on (None: at its end), and what follows them."""
    kind = TYPES.get(fields.get("ElementType", "").replace("_ARRAY", ""))
    if kind is None:
        raise ImageError(
            f"{name} has voxels of a type that is not known ({fields.get('ElementType', 'none')[:40]}).",
            "Save it with voxels of 8, 16 or 32 bits.",
        )
    big = next((fields[key] for key in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB") if key in fields), "False")
    dtype = np.dtype((">" if big.lower() == "true" else "<") + kind)
    channels = int(max(1, _number(fields, "ElementNumberOfChannels", 1)))
    count = math.prod(sizes) * channels * dtype.itemsize
    if fields.get("CompressedData", "False").lower() == "true":
        data, rest = _unpacked(path, first or 0, count)
    else:
        data, rest = read_bytes(path, max(0, path.stat().st_size - count) if first is None else first, count)
    array = data.view(dtype).reshape(channels, *sizes, order="F")
    return array.astype(dtype.newbyteorder("="), copy=False), rest


def _unpacked(path: Path, first: int, count: int) -> tuple[np.ndarray, Rest]:
    """`count` bytes, packed as one zlib stream from byte `first` on, and what follows the stream.

    ImageError unless they are just these, and whole.
    """
    unpacker, parts, length = zlib.decompressobj(wbits=47), [], 0
    try:
        with path.open("rb") as file:
            file.seek(first)
            while not unpacker.eof and length <= count and (packed := file.read(1 << 20)):
                parts.append(unpacker.decompress(packed, count - length + 1))
                length += len(parts[-1])
            behind = path.stat().st_size - file.tell() + len(unpacker.unused_data)
    except zlib.error:
        raise ImageError(f"{path.name} {DAMAGED}", COPY_AGAIN) from None
    if length != count or not unpacker.eof:
        raise ImageError(f"{path.name} {CUT_OFF if length < count else DAMAGED}", COPY_AGAIN)
    return np.frombuffer(b"".join(parts), np.uint8), Rest(behind)


def _beside(path: Path, file: str) -> Path:
    other = path.parent / file
    if not other.is_file():
        raise missing_part(path, other.name)
    return other


def _skip(fields: dict[str, str], name: str) -> int | None:
    """Bytes before the voxels in a file of their own; None where they lie at its end."""
    (skip,) = _numbers(fields, ("HeaderSize",), 1, name) or [0.0]
    return None if skip < 0 else int(skip)


def _geometry(fields: dict[str, str], sizes: list[int], name: str) -> tuple[np.ndarray, list[str]]:
    """IJK to RAS in mm, and notices about what was assumed."""
    axes = min(3, int(_number(fields, "NDims", 3)))
    factor, notices = mm_per_unit(fields.get("DistanceUnits", ""), name)
    directions = _numbers(
        fields, ("TransformMatrix", "Rotation", "Orientation"), int(_number(fields, "NDims", 3)) ** 2, name
    )
    if directions is None:
        notices.append(NO_ORIENTATION.format(name=name))
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), axes, name)
    if spacing is None:
        notices.append(NO_SPACING.format(name=name))
    origin = _numbers(fields, ("Offset", "Position", "Origin"), axes, name) or [0.0] * axes
    matrix = np.eye(4)
    if directions is not None:
        side = round(len(directions) ** 0.5)
        matrix[:axes, :axes] = np.array(directions).reshape(side, side)[:axes, :axes].T
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        if lengths.min() == 0 or (np.abs(lengths - 1).max() > 1e-3 and not is_sheared(matrix)):
            raise ImageError(f"The header of {name} is damaged: its TransformMatrix is no rotation.", REPAIR)
    matrix[:axes, :axes] *= spacing or [1.0] * axes
    matrix[:axes, 3] = origin
    return LPS_TO_RAS @ np.diag([factor, factor, factor, 1.0]) @ matrix, notices
