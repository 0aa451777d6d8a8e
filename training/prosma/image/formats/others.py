"""Formats that are not read, and what to do with such files."""

from __future__ import annotations

from pathlib import Path

from ..geometry import ImageError
from .pictures import AS_PNG

PICTURES = (".webp", ".gif", ".heic", ".heif", ".avif", ".svg")
MINC = (".mnc", ".mnc.gz", ".mnc2")


def refuse_other_formats(path: Path, known: tuple[str, ...]) -> None:
    """ImageError for files of formats that are not read, and for those that do not end as one of the `known` ones."""
    name = path.name.lower()
    if name.endswith(PICTURES):
        raise ImageError(f"{path.name} is a picture of a kind that is not read here.", AS_PNG)
    if name.endswith(MINC):
        raise ImageError(
            f"{path.name} is a MINC file, which is not read here.", "Save it as NIfTI, for instance with nibabel."
        )
    if not name.endswith(known):
        raise ImageError(
            f"{path.name} has no ending of a format that is known here.",
            f"Unpack it, or give it the ending of its format: {', '.join(known)}. A DICOM file needs none.",
        )
