"""Formats that are not read, and what to do with such files."""

from __future__ import annotations

from pathlib import Path

from ..geometry import ImageError
from .pictures import AS_PNG

PICTURES = (".webp", ".gif", ".heic", ".heif", ".avif", ".svg")
MINC = (".mnc", ".mnc.gz", ".mnc2")


def refuse_other_formats(path: Path) -> None:
    """ImageError for files of known formats that are not read."""
    name = path.name.lower()
    if name.endswith(PICTURES):
        raise ImageError(f"{path.name} is a picture of a kind that is not read here.", AS_PNG)
    if name.endswith(MINC):
        raise ImageError(
            f"{path.name} is a MINC file, which is not read here.", "Save it as NIfTI, for instance with nibabel."
        )
