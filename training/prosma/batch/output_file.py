"""One file of a result: whether it is there already, whether it may be replaced, and its line in the records."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import EngineError
from ..files import temporaries
from ..outputs.results import suffix_of
from ..steps import finish
from .records import EDITED, FINISHED, file_digest, records_of, why_not


class OutputFile:
    """A file that replaces no work of a person. `state` is what lies there now (see records).

    `made_from`: see `records.origin`. What was written before the mark `since` of the records is made again. `beside`: the
    name of the result that it lies beside, None for a result itself.
    """

    def __init__(self, output: Path, made_from: dict, since: int = 0, beside: str | None = None) -> None:
        self.output = output
        self.origin = made_from
        self.since = since
        self.beside_name = beside
        self.records = records_of(output.parent.absolute())
        self.look()

    def look(self) -> None:
        """See what lies there now."""
        self.state = finish(self.records.state(self.output.name, self.origin, self.since))

    @property
    def is_there(self) -> bool:
        """Whether this file needs not be made; a person may have corrected it since."""
        return self.state == FINISHED or (self.state == EDITED and not self.since)

    def refuse_replacing(self) -> None:
        """EngineError bad_output where another file lies in the way."""
        reason, remedy = why_not(self.state, self.output.name)
        if reason:
            raise EngineError("bad_output", reason, remedy)

    def put(
        self,
        write: Callable[[Path, Callable[[Path], None]], None],
        still_mine: Callable[[], bool],
        files: Sequence[dict] = (),
        report: dict | None = None,
    ) -> None:
        """Write the file and its line: both, or none. `write` gets the path and what to call before the file moves there.

        `still_mine` is asked at the last moment; False leaves everything as it is. EngineError bad_output, OSError.
        """

        def record(whole: Path) -> None:
            """The last moment before the file takes its place: somebody may have put another one there meanwhile."""
            if not still_mine():
                raise EngineError(
                    "bad_output",
                    f"Another process has taken over {self.output.name}, because this one gave no sign of life for minutes.",
                    "Nothing is lost: the other one makes the result.",
                )
            self.look()
            self.refuse_replacing()
            digest = finish(file_digest([whole]))
            self.records.add(self.output.name, digest, self.origin, files, report, self.beside_name)

        self._remove_leftovers()
        write(self.output, record)
        self.state = FINISHED

    def _remove_leftovers(self) -> None:
        """Parts of this file that a killed process left under their temporary names."""
        for file, _computer, _process in temporaries(self.output, suffix_of(self.output)):
            with contextlib.suppress(OSError):
                file.unlink()
