"""What `prosma segment` tells of its cases: a line as each ends, a bar and a table where a person looks, a report."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import EngineError
from ..image.tags import quality_in_words, quality_word
from .common import complain
from .exit_codes import exit_code

MOST_NAMES = 20  # of failed cases in the last sentence
MOST_ROWS = 1000  # of the table on a terminal
IN_MEMORY = 1 << 22  # bytes of outcomes; more lie on a disk until the report
SKIPPED = {
    "finished": "was there already",
    "edited": "was there already, and was changed since",
    "removed": "was stored before and is not on the server any more; --again makes it once more",
}


class Teller:
    """Tells of outcomes (see run_case.py) as they come. Use it in a `with` statement.

    `batch`: one JSON object for each case before the report. `log`: a file that gets the lines too. `folder`: of the results,
    which has room for the outcomes until the report.
    """

    def __init__(self, package, cases: int, batch: bool, as_json: bool, log: Path | None, folder: Path) -> None:
        self.package = package
        self.cases = cases
        self.batch = batch
        self.as_json = as_json
        self.ended = 0  # cases
        self.failures: list[str] = []  # names
        self.device: str | None = None
        self._told: set[str] = set()  # notices about the device
        self._files, self._bar = contextlib.ExitStack(), contextlib.ExitStack()
        self._log = self._opened(log) if log else None
        kept = tempfile.SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8", dir=str(folder))  # noqa: SIM115 - in _files
        self._outcomes = self._files.enter_context(kept)  # where a report or a table needs them
        self._keeps = as_json or (1 < cases <= MOST_ROWS and sys.stdout.isatty())
        self.show = lambda case, stage, fraction, left: None

    def __enter__(self) -> Teller:
        self.show = self._bar.enter_context(progress_bar(self.cases))
        return self

    def __exit__(self, *_exception) -> None:
        self._bar.close()
        self._files.close()

    def tell(self, outcome: dict) -> None:
        """One case has ended."""
        self._note(outcome)
        self.device = outcome.get("device", self.device)
        remarks = [] if self.as_json else self._news(outcome)
        if "error" in outcome:
            remarks.append(outcome["error"]["message"])
        if not self.as_json:
            for line in lines_of(outcome):
                self._line(line)
        elif self.batch:
            self._line(json.dumps({"event": "case", **outcome}))
        for remark in remarks:
            complain(f"{outcome['case']}: {remark}")
            if not self.as_json:
                self._to_log(f"{outcome['case']}: {remark}")

    def _note(self, outcome: dict) -> None:
        self.ended += 1
        if "error" in outcome:
            self.failures.append(outcome["case"])
        if self._keeps:
            self._outcomes.write(f"{json.dumps(outcome)}\n")

    def _news(self, outcome: dict) -> list[str]:
        """The notices of a case; those about the device, which are the same for all, only once."""
        of_device = outcome.get("device_notices", ())
        news = [notice for notice in outcome.get("notices", ()) if notice not in of_device or notice not in self._told]
        self._told.update(of_device)
        return news

    def end_with(self, outcome: dict) -> None:
        """The only case has failed: the report for a program; a person reads the error that ends the command."""
        self._note(outcome)
        if self.as_json:
            self._bar.close()
            self._report()

    def finish(self) -> int:
        """The report, the table, the list of failures; the exit code."""
        self._bar.close()
        if self.as_json:
            self._report()
        elif self._keeps:
            print_table(map(json.loads, self._kept()))
        done = self.ended - len(self.failures)
        if self.ended < self.cases:
            complain(f"Stopped after {len(self.failures)} failures; {self.cases - self.ended} cases were not tried.")
        if self.failures:
            names = self.failures[:MOST_NAMES]
            more = f" and {len(self.failures) - MOST_NAMES} more" if len(self.failures) > MOST_NAMES else ""
            complain(f"{len(self.failures)} of {self.cases} cases failed: {', '.join(names)}{more}.")
        return exit_code(done, len(self.failures))

    def _report(self) -> None:
        """All that a program may want to know, as one line; it is long, and never whole in memory."""
        package, separator = self.package, ""
        head = {
            "event": "report",
            "model": {"id": package.id, "version": package.version, "sha256": package.sha256},
            "device": self.device,
        }
        self._piece(f'{json.dumps(head)[:-1]}, "cases": [')
        for outcome in self._kept():
            self._piece(separator + outcome)
            separator = ", "
        self._line(f'], "failed": {len(self.failures)}}}')

    def _kept(self) -> Iterator[str]:
        """The outcomes so far, as JSON."""
        self._outcomes.seek(0)
        for line in self._outcomes:
            yield line.rstrip("\n")

    def _piece(self, text: str) -> None:
        print(text, end="")
        if self._log is not None:
            self._log.write(text)

    def _line(self, text: str) -> None:
        print(text, flush=True)
        self._to_log(text)

    def _to_log(self, text: str) -> None:
        if self._log is not None:
            self._log.write(f"{text}\n")
            self._log.flush()

    def _opened(self, log: Path):
        try:
            return self._files.enter_context(log.open("a", encoding="utf-8", errors="backslashreplace"))
        except OSError as error:
            reason = f"The log {log} could not be written ({error.strerror})."
            raise EngineError("bad_output", reason, "Name another file.") from error


def add_remedy(outcome: dict) -> None:
    """What these commands offer for an image that does not suit the model."""
    if outcome.get("error", {}).get("code") == "does_not_fit":
        outcome["error"]["message"] += " If you are sure, --force runs it all the same."


def lines_of(outcome: dict) -> list[str]:
    """What a person reads of a case on stdout; nothing of one that failed."""
    if "error" in outcome:
        return []
    stored = [f"    stored as {outcome['stored']}"] if "stored" in outcome else []
    if "skipped" in outcome:
        return [f"{outcome['output']}  ({SKIPPED[outcome['skipped']]})", *stored]
    first = f"{outcome['output']}  ({outcome['seconds']['total']:.1f} s on {outcome['device']})"
    segments = [f"    {segment['name']}: {amount(segment)}{quality(segment)}" for segment in outcome["segments"]]
    return [first, *(f"    also {path}" for path in outcome.get("beside", ())), *segments, *stored]


def amount(segment: dict) -> str:
    """How large a segment is: pictures have pixels and no ml."""
    return f"{segment['voxels']} pixels" if segment["ml"] is None else f"{segment['ml']:.2f} ml"


def quality(segment: dict) -> str:
    """How good it is likely to be; empty where that is not known."""
    words = quality_in_words(segment.get("expected_dice"))
    return f"; expected Dice: {words}" if words else ""


def in_short(segment: dict) -> str:
    """A segment's name, size and quality."""
    word = quality_word(segment.get("expected_dice"))
    return f"{segment['name']} {amount(segment)}" + (f" ({word})" if word else "")


def print_table(outcomes: Iterable[dict]) -> None:
    """All cases at a glance, where rich is there."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return
    table = Table("case", "state", "seconds", "segments")
    for outcome in outcomes:
        state = "failed" if "error" in outcome else "was there" if "skipped" in outcome else "done"
        seconds = f"{outcome['seconds']['total']:.1f}" if "seconds" in outcome else ""
        segments = ", ".join(map(in_short, outcome.get("segments", ())))
        table.add_row(outcome["case"], state, seconds, segments)
    Console().print(table)


@contextlib.contextmanager
def progress_bar(cases: int):
    """Gives show(case, stage, fraction, seconds_left); a bar on stderr where a person sees it and rich is there."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        yield lambda case, stage, fraction, left: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda case, stage, fraction, left: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} % {task.fields[left]}")
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1.0, left="")
        begun: set[str] = set()

        def show(case: str, stage: str, fraction: float, left: float | None) -> None:
            if case:
                begun.add(case)
            count = f" ({len(begun)} of {cases})" if cases > 1 else ""
            text = "" if left is None else f"{left:.0f} s left"
            progress.update(task, description=f"{case}{count}: {stage}", completed=fraction, left=text)

        yield show
