"""Files of a run that are whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path


def write_json(path: str | os.PathLike, content: dict) -> None:
    """Write whole or not at all; NaN is refused rather than written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
