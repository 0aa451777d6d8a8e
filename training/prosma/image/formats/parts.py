"""Which other files hold the voxels of an image file that is a header alone. Needs the standard library alone."""

from __future__ import annotations

import re
from pathlib import Path

LONGEST_HEADER = 1 << 20
DATA_FILE = {  # by the ending of the header's name: what names the file with the voxels
    ".mhd": re.compile(rb"^ElementDataFile\s*=\s*(?P<name>[^\r\n]*)", re.MULTILINE),
    ".nhdr": re.compile(rb"^data ?file:\s*(?P<name>[^\r\n]*)", re.MULTILINE | re.IGNORECASE),
}
PAIRS = {".hdr": (".img", ".img.gz", ".IMG"), ".img": (".hdr", ".HDR"), ".img.gz": (".hdr", ".HDR")}


def other_parts(path: Path) -> list[Path]:
    """The files besides `path` that its image is read from, as far as they are there.

    Where several files are named by a list or a pattern, all files of the folder.
    """
    lower = path.name.lower()
    for ending, others in PAIRS.items():
        if lower.endswith(ending):
            stem = path.name[: -len(ending)]
            return [path.with_name(stem + other) for other in others if path.with_name(stem + other).is_file()][:1]
    pattern = DATA_FILE.get(path.suffix.lower())
    if pattern is None or not path.is_file():
        return []
    with path.open("rb") as file:
        match = pattern.search(file.read(LONGEST_HEADER))
    name = match["name"].decode("utf-8", "replace").strip() if match else ""
    if name.upper() in ("", "LOCAL") or "\0" in name or len(name) > 255:
        return []
    if name.upper().startswith("LIST") or "%" in name:
        return sorted(other for other in path.parent.iterdir() if other.is_file() and other != path)
    return [path.parent / name] if (path.parent / name).is_file() else []
