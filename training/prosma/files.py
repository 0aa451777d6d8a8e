"""Files that are whole or not there, and the folder that holds a user's own."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path


@contextlib.contextmanager
def replaced_when_whole(path: Path, suffix: str = ""):
    """Gives a name in the folder of `path` to write to; moves that file to `path`, or removes it after an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(file):
    """Keeps other processes that ask for the same out of an open file; waits for them.

    Over a network it also makes this computer see what others wrote. Where the file system knows no locks there is none:
    what is written at once at a file's end stays together there too, as far as that file system goes.
    """
    lock = _lock_of(file)
    try:
        yield
    finally:
        if lock:
            lock()


def _lock_of(file):
    """Lock an open file; the function that unlocks it, or None where that is not possible."""
    with contextlib.suppress(OSError):
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)

            def unlock() -> None:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

            return unlock
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX)
        return lambda: fcntl.lockf(file, fcntl.LOCK_UN)
    return None


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


def user_folder() -> Path:
    """Where imported models and unpacked archives are kept: $PROSMA_HOME, or ~/.prosma."""
    return Path(os.environ.get("PROSMA_HOME") or Path.home() / ".prosma")
