"""Headers of NRRD files (`.nrrd`, `.nhdr`): what ITK, which reads the files, leaves out of account without a word.

Layout: "Definition of NRRD File Format", teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..geometry import Image, ImageError
from .lengths import mm_per_unit
from .unpacking import COPY_AGAIN, Rest, missing_part, size_unpacked

SUFFIXES = (".nrrd", ".nhdr")
LONGEST_HEADER = 1 << 20
TYPES = {  # bytes of a number: names
    1: ("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"),
    2: (
        *("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
        *("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    ),
    4: ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"),
    8: (
        *("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
        *("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double"),
    ),
}
LONGEST_FIELD = 1000  # characters; over longer ones the library may end the process
PATIENT = ("posterior", "anterior", "lps", "ras", "las")  # in the names of spaces that are a patient's
NO_ORIENTATION = (
    "The header of {name} does not say how the image is oriented in the patient. It was assumed, as Slicer does, that its "
    "space runs to the patient's left, back and head."
)
NO_SPACING = "The header of {name} gives no voxel size; 1 mm was assumed, as Slicer does."
NO_PLACE = (
    "The header of {name} does not say where the image lies; its first voxel was put at the origin, as Slicer does."
)
REPAIR = "Export it again, or correct its header, which is text."


def read_fields(path: Path) -> dict[str, str]:
    """The fields of the header, keys in lower case; not the key/value pairs (`key:=value`)."""
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    header = re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0].decode("utf-8", "replace")
    lines = [line for line in header.splitlines()[1:] if ":=" not in line and not line.startswith("#")]
    pairs = ((key, value) for key, _, value in (line.partition(":") for line in lines))
    return {key.strip().lower(): value.strip() for key, value in pairs}


def read_nrrd(path: Path, read) -> Image:
    """The image that `read(path)` gives, its lengths in mm, with notices. ImageError for numbers that are none."""
    fields, name = read_fields(path), path.name
    if not fields or any(len(key) + len(value) > LONGEST_FIELD for key, value in fields.items()):
        raise ImageError(f"{name} is damaged, cut off or no NRRD: it has no such header.", COPY_AGAIN)
    for key in ("spacings", "space directions", "space origin", "sizes"):
        odd = key == "sizes" and not all(size.isdigit() for size in fields.get(key, "").split())  # ITK reads 1e9 as 1
        if odd or re.search(r"\b(inf|infinity)\b", fields.get(key, "").lower()) or _is_nan(key, fields):
            raise ImageError(f"The header of {name} is damaged: its {key} is '{fields[key][:60]}'.", REPAIR)
    data = data_file(fields)
    if data and not data.startswith("LIST") and "%" not in data and not (path.parent / data).is_file():
        raise missing_part(path, data)
    image = read(path)
    notices = []
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    factor, told = mm_per_unit(units.pop(), name) if len(units) == 1 else (1.0, [])
    if len(units) > 1:
        raise ImageError(f"The header of {name} gives a unit of its own to each axis: {fields['space units']}.", REPAIR)
    notices += told
    if not any(word in fields.get("space", "").lower() for word in PATIENT):
        notices.append(NO_ORIENTATION.format(name=name))
    if not fields.keys() & {"spacings", "space directions"}:
        notices.append(NO_SPACING.format(name=name))
    if "space directions" in fields and "space origin" not in fields:
        notices.append(NO_PLACE.format(name=name))
    notices += rest_of(path, fields).told(data or name)
    matrix = np.diag([factor, factor, factor, 1.0]) @ image.ijk_to_ras
    return replace(image, ijk_to_ras=matrix, notices=(*image.notices, *notices))


def data_file(fields: dict[str, str]) -> str:
    """The file with the voxels as the header names it; "" where they follow the header."""
    return fields.get("data file", fields.get("datafile", ""))


def rest_of(path: Path, fields: dict[str, str]) -> Rest:
    """What follows the voxels, packed or not; nothing for rare kinds: several files, texts, bytes that are skipped."""
    data, encoding = data_file(fields), fields.get("encoding", "raw").lower()
    bytes_each = next((size for size, names in TYPES.items() if fields.get("type", "").lower() in names), 0)
    skipped = any(fields.get(key, "0") != "0" for key in ("byte skip", "byteskip", "line skip", "lineskip"))
    if not bytes_each or skipped or encoding not in ("raw", "gzip", "gz") or data.startswith("LIST") or "%" in data:
        return Rest(0)
    needed = math.prod(int(size) for size in fields.get("sizes", "0").split()) * bytes_each
    file, offset = (path.parent / data, 0) if data else (path, header_length(path))
    if encoding == "raw":
        return Rest(max(0, file.stat().st_size - offset - needed))
    if last_number(file) == needed % (1 << 32):
        return Rest(0)  # as the end of the packed part says; to count them takes as long as to read them
    return Rest(max(0, (size_unpacked(file, offset) or 0) - needed))


def last_number(path: Path) -> int:
    """The last four bytes of a file; of a gzip file the length of what is packed."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        return int.from_bytes(file.read(4), "little")


def header_length(path: Path) -> int:
    """Bytes up to the empty line that ends the header, with it."""
    with path.open("rb") as file:
        end = re.search(rb"\r?\n\r?\n", file.read(LONGEST_HEADER))
    return end.end() if end else path.stat().st_size


def _is_nan(key: str, fields: dict[str, str]) -> bool:
    """Whether an axis of the image has a size that is no number; axes of colours and lists have none."""
    if key == "spacings":
        kinds = fields.get("kinds", "").split()
        values = fields.get(key, "").lower().split()
        spatial = [value for n, value in enumerate(values) if n >= len(kinds) or kinds[n] in ("domain", "space", "???")]
        return "nan" in spatial
    return "nan" in re.findall(r"\b\w+\b", fields.get(key, "").lower())
