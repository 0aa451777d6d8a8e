"""What was written where and from what: one line of JSON for each result, in a file beside the results of a batch.

A batch that was stopped goes on by them: a result is finished if its line names the same model, options and input and
its file is still the one that was written. They also tell files of ours, which may be replaced, from all others.

Slicer's process uses this too, so it needs only the standard library. What may take long is a generator of steps that
take some ms each, for an event loop; `finish` runs them at once.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import os
import re
import threading
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ..files import locked
from ..image.formats.parts import other_parts

RECORDS = "prosma-results.jsonl"
BYTES_PER_STEP = 4 << 20
BEGINNING = re.compile(
    rb'\{"output": (?P<name>"(?:[^"\\]|\\.)*"), "(?P<kind>\w+)": '
)  # of a line as `append` writes it

ABSENT = "absent"  # there is no such file
FINISHED = "finished"  # written by us from the same model, options and input
EDITED = "edited"  # the same, but changed by somebody since
OUTDATED = "outdated"  # written by us from something else, and not changed since: may be replaced
CHANGED = "changed"  # written by us from something else, and changed by somebody since
FOREIGN = "foreign"  # not written by us


def origin(package, options: dict, digest: str, form: dict | None = None) -> dict:
    """What a result is made from: the model package, the options of the run, and the digest of the input.

    `form`: choices about the file itself, where they are not the usual ones.
    """
    model = {"id": package.id, "version": package.version, "sha256": package.sha256}
    return json.loads(json.dumps({"model": model, "options": options, "input": digest, **(form or {})}))


@functools.lru_cache(maxsize=64)
def records_of(folder: Path) -> Records:
    """The records of an absolute folder, which know what they have read already."""
    return Records(folder)


class Records:
    """The lines about the results in one folder, which need not exist yet. Other processes may add lines at any time.

    A line about a result has `output`, `sha256`, `origin`, `files`, `written`, and `report`: what is known about the case.
    One about a file beside a result has `beside`, the result's name, in place of the report.
    A line about a case that failed has `output`, `error` and `written` instead; one about measures of a result `output`,
    `measured` (the result's digest) and `segments`; one about the start of a batch `batch`.

    What is kept in memory is where each line begins and which file it is about, some 200 bytes a line: a cohort has a
    million of them. Lines are read again when somebody asks for one.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.path = Path(folder) / RECORDS
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._file: int | None = None  # which file has been read
        self._bytes = 0  # and how much of it
        self._last = b""  # the last line of that
        self._starts = array("Q")  # where each line begins
        self._results: dict[str, int | tuple[int, ...]] = {}  # by file, the numbers of the lines
        self._others: dict[str, int | tuple[int, ...]] = {}  # and of those about something else than a result
        self._batch: int | None = None  # the number of the last line about the start of a batch

    def names(self) -> set[str]:
        """The files that have lines about results."""
        with self._opened():
            return set(self._results)

    def all_names(self) -> set[str]:
        """The files that have lines of any kind: also results that could not be made."""
        with self._opened():
            return self._results.keys() | self._others.keys()

    def cases_begun(self) -> int:
        """Of how many cases the last batch had to be made, all parts together; 0 where no line tells it."""
        with self._opened() as file:
            found = [] if self._batch is None else list(self._read(file, [self._batch]))
        return found[0][1]["batch"]["cases"] if found else 0

    def of(self, name: str) -> list[dict]:
        """The lines about one file as a result, oldest first."""
        return [line for _number, line in self._of(name)]

    def about(self, name: str, mark: int = 0) -> list[dict]:
        """All lines about one file, those after `mark` lines, oldest first."""
        return [line for _number, line in self._of(name, mark, all_kinds=True)]

    def count(self) -> int:
        """How many lines there are now: a mark for `since`."""
        with self._opened():
            return len(self._starts)

    def failure_since(self, name: str, mark: int) -> dict | None:
        """The error in the last line about the case whose result would be `name`, if it failed after `mark` lines."""
        about = self.about(name, mark)
        return about[-1].get("error") if about else None

    def measures_of(self, name: str, sha256: str) -> list[dict] | None:
        """The segments of a result with this digest, where they were measured in full; else None."""
        for line in reversed(self.about(name)):
            if sha256 in (line.get("sha256"), line.get("measured")):
                segments = line.get("segments") or line.get("report", {}).get("segments") or [{}]
                if all("box" in segment for segment in segments):
                    return segments
        return None

    def state(self, name: str, made_from: dict, since: int = 0) -> Generator[None, None, str]:
        """Steps that return what the file `name` is: one of the words above. `made_from`: see `origin`.

        What was written before the mark `since` counts as outdated.
        """
        file = self.path.parent / name
        if not file.exists():
            return ABSENT
        lines = self._of(name)
        if not lines:
            return FOREIGN
        digest = yield from file_digest([file])
        for number, line in reversed(lines):
            if line["sha256"] == digest:
                return FINISHED if line["origin"] == made_from and number >= since else OUTDATED
        return EDITED if lines[-1][1]["origin"] == made_from else CHANGED

    def add(
        self,
        name: str,
        sha256: str,
        made_from: dict,
        files: Sequence[dict] = (),
        report: dict | None = None,
        beside: str | None = None,
    ) -> None:
        """Append a line. It is written before the result takes its place, so that no result is ever without one."""
        line = {"output": name, "sha256": sha256, "origin": made_from, "files": list(files), "written": now()}
        if beside is not None:
            line["beside"] = beside
        self.append(line if report is None else {**line, "report": report})

    def add_failure(self, name: str, report: dict) -> None:
        """Append a line about a case that failed; `report` has its `error`."""
        self.append({"output": name, "error": report["error"], "report": report, "written": now()})

    def begin(self, cases: int, part: tuple[int, int] | None = None) -> None:
        """Append a line about the start of a batch of so many cases, all parts together."""
        self.append({"batch": {"cases": cases, "part": part}, "written": now()})

    def append(self, line: dict) -> None:
        """One line, whole, whoever else writes at the same time. The folder must exist."""
        data = (json.dumps(line) + "\n").encode()
        with self.path.open("ab+") as file, locked(file):
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # the part of a line that a killed process left
                    data = b"\n" + data
            file.write(data)
            file.flush()

    def lines(self) -> list[dict]:
        """All whole lines."""
        with self._opened() as file:
            return [line for _number, line in self._read(file, range(len(self._starts)))]

    def _of(self, name: str, mark: int = 0, all_kinds: bool = False) -> list[tuple[int, dict]]:
        """The lines about a file with their numbers, oldest first."""
        with self._opened() as file:
            numbers = [
                *_numbers(self._results.get(name, ())),
                *(_numbers(self._others.get(name, ())) if all_kinds else ()),
            ]
            return list(self._read(file, sorted(number for number in numbers if number >= mark)))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO | None]:
        """The file, of which every whole line is known by then; None where there is none."""
        with self._lock:
            try:
                file = self.path.open("rb")
            except FileNotFoundError:
                self._forget()
                yield None
                return
            with file:
                self._learn(file)
                yield file

    def _learn(self, file: BinaryIO) -> None:
        """Note what was added since the last time."""
        number = os.fstat(file.fileno()).st_ino
        file.seek(self._bytes - len(self._last))
        if number != self._file or file.read(len(self._last)) != self._last:  # another file, or written anew
            self._forget()
            self._file = number
            file.seek(0)
        for row in file:
            if not row.endswith(b"\n"):  # it is being written
                break
            self._note(row)
            self._bytes += len(row)
            self._last = row

    def _note(self, row: bytes) -> None:
        """One line: of the usual form without reading all of it, which would take a minute for a million."""
        usual, line = BEGINNING.match(row), None
        if usual:
            name, is_result = json.loads(usual["name"]), usual["kind"] == b"sha256"
        else:
            line = _parsed(row)
            if line is None:
                return
            name, is_result = line.get("output"), {"sha256", "origin"} <= line.keys()
        number = len(self._starts)
        self._starts.append(self._bytes)
        if name is None:
            self._batch = number if "batch" in (line or {}) else self._batch
        else:
            table = self._results if is_result else self._others
            table[name] = (*_numbers(table[name]), number) if name in table else number

    def _read(self, file: BinaryIO | None, numbers: Iterable[int]) -> Iterator[tuple[int, dict]]:
        """The lines of these numbers; those that are damaged are left out."""
        for number in numbers:
            assert file is not None, "no file, no lines"
            if file.tell() != self._starts[number]:
                file.seek(self._starts[number])
            line = _parsed(file.readline())
            if line is not None:
                yield number, line


def _numbers(entry: int | tuple[int, ...]) -> tuple[int, ...]:
    return (entry,) if isinstance(entry, int) else entry


def _parsed(row: bytes) -> dict | None:
    """A line's content; None for one that a killed process left in part, or that is none of ours."""
    try:
        line = json.loads(row)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def why_not(state: str, name: str) -> tuple[str, str]:
    """Why a file in this state must not be replaced and what to do; two empty texts if it may be."""
    reason = {
        FOREIGN: f"There is already a file {name}, which was not written by a batch of ProSMA.",
        EDITED: f"{name} was changed after ProSMA wrote it.",
        CHANGED: f"{name} was changed after ProSMA wrote it from another input, model or setting.",
    }.get(state, "")
    return reason, "It was left as it is. Move it away, or choose another folder for the results." if reason else ""


def input_of(
    paths: Sequence[str | os.PathLike], lines: Sequence[dict] = (), series: Sequence[str] | None = None
) -> Generator[None, None, dict]:
    """Steps that return {"digest", "files"} of images: the content of files, with those that hold the voxels of a header,
    and of all files in folders (DICOM).

    Files that have the names, sizes and times of change that one of the `lines` tells are not read again. The `series`
    that are chosen among the files are a part of the digest, after a blank.
    """
    chosen = "".join(f" {which}" for which in series or ())
    files = [
        file for path in map(Path, paths) for file in (_files_in(path) if path.is_dir() else [path, *other_parts(path)])
    ]
    described = [_description(file) for file in files]
    for line in reversed(lines):
        if line.get("files") == described:
            digest = line["origin"].get("input")
            return {"digest": digest.split(" ")[0] + chosen if digest else digest, "files": described}
    digest = yield from file_digest(files)
    return {"digest": digest + chosen, "files": described}


def _files_in(folder: Path) -> list[Path]:
    """The files in a folder and its subfolders, without hidden ones."""
    files: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    return [file for file in files if file.is_file()]


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
