"""Files of a run that are whole or not there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from ..writing import replaced_when_whole


def write_json(path: str | os.PathLike, content: dict) -> None:
    """Write whole or not at all, lists of plain values on one line; NaN is refused rather than written."""
    write_text(path, with_short_lists(json.dumps(content, indent=1, allow_nan=False)) + "\n")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write whole or not at all; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def with_short_lists(text: str) -> str:
    """Indented JSON with its innermost lists on one line each. No string is touched: JSON strings hold no line breaks."""
    return re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda match: "[" + re.sub(r",\n\s*", ", ", match[1]) + "]", text)
