"""Names of files for SimpleITK."""

from __future__ import annotations

from pathlib import Path

from ..files import as_utf8
from .geometry import ImageError


def itk_path(path: Path) -> str:
    """The path as SimpleITK takes it: text. ImageError for one with bytes that are none."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ImageError(
            f"The path of '{as_utf8(path.name)}' holds bytes that are no text in UTF-8.",
            "Rename the file or its folder.",
        ) from None
    return str(path)
