"""What was written where and from what: one line of JSON for each result, in a file beside the results of a batch.

A batch that was stopped goes on by them: a result is finished if its line names the same model, options and input and
its file is still the one that was written. They also tell files of ours, which may be replaced, from all others.

Slicer's process uses this too, so it needs only the standard library. What may take long is a generator of steps that
take some ms each, for an event loop; `finish` runs them at once.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Generator, Sequence
from pathlib import Path

RECORDS = "prosma-results.jsonl"
BYTES_PER_STEP = 4 << 20

ABSENT = "absent"  # there is no such file
FINISHED = "finished"  # written by us from the same model, options and input
EDITED = "edited"  # the same, but changed by somebody since
OUTDATED = "outdated"  # written by us from something else, and not changed since: may be replaced
CHANGED = "changed"  # written by us from something else, and changed by somebody since
FOREIGN = "foreign"  # not written by us


def origin(package, options: dict, digest: str) -> dict:
    """What a result is made from: the model package, the options of the run, and the digest of the input."""
    model = {"id": package.id, "version": package.version, "sha256": package.sha256}
    return json.loads(json.dumps({"model": model, "options": options, "input": digest}))


class Records:
    """The lines about the results in one folder, which need not exist yet."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self.path = Path(folder) / RECORDS

    def names(self) -> set[str]:
        """The files that have lines."""
        return {line["output"] for line in self._lines()}

    def of(self, name: str) -> list[dict]:
        """The lines about one file, oldest first."""
        return [line for line in self._lines() if line["output"] == name]

    def state(self, name: str, made_from: dict) -> Generator[None, None, str]:
        """Steps that return what the file `name` is: one of the words above. `made_from`: see `origin`."""
        file = self.path.parent / name
        if not file.exists():
            return ABSENT
        lines = self.of(name)
        if not lines:
            return FOREIGN
        digest = yield from file_digest([file])
        for line in reversed(lines):
            if line["sha256"] == digest:
                return FINISHED if line["origin"] == made_from else OUTDATED
        return EDITED if lines[-1]["origin"] == made_from else CHANGED

    def add(self, name: str, sha256: str, made_from: dict, files: Sequence[dict] = ()) -> None:
        """Append a line. It is written before the result takes its place, so that no result is ever without one."""
        written = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        line = {"output": name, "sha256": sha256, "origin": made_from, "files": list(files), "written": written}
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            if file.tell() and not self._ends_with_a_line():
                file.write("\n")
            file.write(json.dumps(line) + "\n")

    def _ends_with_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _lines(self) -> list[dict]:
        """All whole lines: the last one is a part where a program was killed while it wrote."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        lines = []
        for row in text.splitlines():
            try:
                line = json.loads(row)
            except ValueError:
                continue
            if isinstance(line, dict) and {"output", "sha256", "origin"} <= line.keys():
                lines.append(line)
        return lines


def why_not(state: str, name: str) -> tuple[str, str]:
    """Why a file in this state must not be replaced and what to do; two empty texts if it may be."""
    reason = {
        FOREIGN: f"There is already a file {name}, which was not written by a batch of ProSMA.",
        EDITED: f"{name} was changed after ProSMA wrote it.",
        CHANGED: f"{name} was changed after ProSMA wrote it from another input, model or setting.",
    }.get(state, "")
    return reason, "It was left as it is. Move it away, or choose another folder for the results." if reason else ""


def input_of(paths: Sequence[str | os.PathLike], lines: Sequence[dict] = ()) -> Generator[None, None, dict]:
    """Steps that return {"digest", "files"} of images: the content of files and of all files in folders (DICOM).

    Files that have the names, sizes and times of change that one of the `lines` tells are not read again.
    """
    files = [file for path in map(Path, paths) for file in (_files_in(path) if path.is_dir() else [path])]
    described = [_description(file) for file in files]
    for line in reversed(lines):
        if line.get("files") == described:
            return {"digest": line["origin"].get("input"), "files": described}
    digest = yield from file_digest(files)
    return {"digest": digest, "files": described}


def _files_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def _description(file: Path) -> dict:
    facts = file.stat()
    return {"name": file.name, "bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}


def file_digest(files: Sequence[Path]) -> Generator[None, None, str]:
    """Steps that return the SHA-256 of files, one after the other; for several, their sizes count too."""
    digest = hashlib.sha256()
    for file in files:
        if len(files) > 1:
            digest.update(f"{file.stat().st_size}:".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(BYTES_PER_STEP):
                digest.update(chunk)
                yield
    return digest.hexdigest()
