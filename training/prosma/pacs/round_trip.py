"""One series after the other, from the server and back: looked for, fetched, segmented, stored.

While one is segmented and stored, the images of the next one come.

The server says what is done: a segmentation by the same model and version that refers to the series. The folder of results
keeps what was made before it was stored, and what was stored, so that a call that broke off goes on.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..batch.loop import WAITS_S, CaseWorker, Settings, Show
from ..batch.records import EDITED, FINISHED, now
from ..batch.result_file import ResultFile
from ..batch.run_case import MadeElsewhere, failed, run_case
from ..errors import EngineError
from ..files import sweep, working_folder
from ..image.geometry import Image, ImageError
from .access import ServerGone
from .marks import digest_of, result_among
from .query import Series
from .server import Server

log = logging.getLogger(__name__)
FETCHED = ".fetched-"  # begins the name of a folder of images, which is removed with the case
REMOVED = "removed"  # `skipped` of a series whose segmentation was stored and is not there any more


@dataclass
class Fetched:
    """A series that was looked for: its images lie in a folder until `files` is closed, `fetch` gets what is missing there;
    or there is an `outcome` already, or an `error`.
    """

    series: Series
    files: contextlib.ExitStack
    file: ResultFile | None = None
    images: Path | None = None
    fetch: Callable[[], None] = lambda: None
    outcome: dict | None = None
    error: Exception | None = None


class RoundTrips:
    """Does series one after the other with one warm model. Use it in a `with` statement; the folder exists.

    `again`: make once more what somebody removed from the server since.
    """

    def __init__(self, server: Server, settings: Settings, package, again: bool = False) -> None:
        self.server = server
        self.settings = settings
        self.package = package
        self.again = again
        self.folder = Path(settings.folder)
        self._gone: ServerGone | None = None

    def __enter__(self) -> RoundTrips:
        sweep(self.folder, FETCHED)
        self._worker = CaseWorker(self.settings, self.package)
        return self

    def __exit__(self, *_exception) -> None:
        self._worker.close()

    def run(self, found: Sequence[Series], show: Show) -> Iterator[dict]:
        """The outcomes of all series, each as soon as it has ended: as of `run_case`, and `stored`, its UID there.

        Once the server is gone the others fail without being tried. Those of another process on the same folder come last.
        """
        waiting, later, rounds = list(found), [], 0
        while waiting:
            for fetched in self._each_fetched(waiting):
                try:
                    outcome = self._do(fetched, show)
                except MadeElsewhere:
                    later.append(fetched.series)
                    continue
                except Exception as error:
                    self._gone = error if isinstance(error, ServerGone) else self._gone
                    outcome = self._failed(fetched.series, error)
                yield outcome
            waiting, later = later, []
            if waiting:
                time.sleep(WAITS_S[min(rounds, len(WAITS_S) - 1)])
                rounds += 1

    def name_of(self, series: Series) -> str:
        """The file of its result in the folder."""
        return re.sub(r"[^\w.-]+", "-", f"{series.uid}-{self.package.id}-{self.package.version}") + ".dcm"

    def facts(self, series: Series) -> dict:
        """What every report on a series begins with; nothing about the patient."""
        address = f"{self.server.url}/{series.path}"
        return {"case": series.uid, "inputs": [address], "study": series.study, "description": series.description}

    def is_done(self, series: Series) -> bool:
        """Whether its segmentation is on the server."""
        return result_among(self.server.segmentations(series.study), series, self.package) is not None

    def _each_fetched(self, found: Sequence[Series]) -> Iterator[Fetched]:
        """Each series with its images, which are gone after it; meanwhile those of the next one come, and no more."""
        server, stopped = Server(self.server.url), threading.Event()  # a connection of its own

        def coming(series: Series) -> Future[Fetched]:
            return thread.submit(self._fetched, series, server, stopped)

        thread = ThreadPoolExecutor(1, "fetching")
        following = coming(found[0])
        try:
            for series in (*found[1:], None):
                fetched = following.result()
                if series is not None:
                    following = coming(series)
                with fetched.files:
                    yield fetched
        finally:
            stopped.set()
            thread.shutdown()
            following.result().files.close()

    def _fetched(self, series: Series, server: Server, stopped: threading.Event) -> Fetched:
        """Look whether a series is done, and fetch its images where it is not."""
        fetched = Fetched(series, contextlib.ExitStack())
        try:
            if self._gone is not None:
                raise self._gone
            fetched.outcome = self._outcome_before(series, server)
            if fetched.outcome is None:
                self._fetch(fetched, server, stopped)
        except Exception as error:
            fetched.error = error
            fetched.files.close()
        return fetched

    def _outcome_before(self, series: Series, server: Server) -> dict | None:
        """What there is to tell of a series that needs not be done; else None."""
        output = self.folder / self.name_of(series)
        there = result_among(server.segmentations(series.study), series, self.package)
        before = self._stored_before(output.name)
        if there is not None:
            if before is None and output.exists():  # this was killed between the two
                self._note(output.name, str(there.SOPInstanceUID), series)
            address = f"{self.server.url}/studies/{series.study}/series/{there.SeriesInstanceUID}"
            return {**self.facts(series), "output": address, "skipped": FINISHED, "notices": grown(series, before)}
        if before is not None and not self.again:
            return {**self.facts(series), "output": str(output), "skipped": REMOVED}
        return None

    def _fetch(self, fetched: Fetched, server: Server, stopped: threading.Event) -> None:
        """The images of a series, unless its result is there and only has to be stored, or another process makes it."""
        series, output = fetched.series, self.folder / self.name_of(fetched.series)
        uids = server.instances(series)
        # Not the UID as the server spells it: that could lead out of the folder.
        images = fetched.files.enter_context(working_folder(self.folder, FETCHED)) / output.stem
        images.mkdir()
        inputs = {"digest": digest_of(series, uids), "images": [images]}
        fetched.file, fetched.images = ResultFile(output, self.package, self.settings.run, inputs), images
        if fetched.file.is_finished or self._worker.claims.holder(output.name):
            fetched.fetch = lambda: self.server.fetch(series, uids, images)
        else:
            server.fetch(series, uids, images, stopped.is_set)

    def _do(self, fetched: Fetched, show: Show) -> dict:
        series = fetched.series
        if fetched.outcome is not None:
            return fetched.outcome
        if fetched.error is not None:
            raise fetched.error
        if self._gone is not None:
            raise self._gone
        outcome = self._segment(fetched, show)
        show(series.uid, "Storing", 1.0, None)
        output = self.folder / self.name_of(series)
        uid = self.server.store(output)
        self._note(output.name, uid, series)
        return {**outcome, "stored": uid}

    def _segment(self, fetched: Fetched, show: Show) -> dict:
        """The outcome of a series whose result is in its file then. EngineError where it must not be stored."""
        series, file, images = fetched.series, fetched.file, fetched.images
        assert file is not None and images is not None, "it was fetched"

        def read() -> Image:
            fetched.fetch()
            return self._read(images)

        def progress(stage: str, fraction: float, left: float | None) -> None:
            show(series.uid, stage, fraction, left)

        outcome = run_case(
            *(file, read, lambda: self._worker.segmenter, self.facts(series), progress), force=self.settings.force
        )
        if outcome.get("skipped") == EDITED:
            name = file.output.name
            reason = f"{name} was changed after ProSMA wrote it, so it was not stored."
            raise EngineError("bad_output", reason, "Store it yourself, or move it away and run this again.")
        return outcome

    def _read(self, images: Path) -> Image:
        try:
            return self._worker.reader.read([images])
        except ImageError as error:
            if "--series" not in error.remedy:
                raise
            remedy = "Fetch it, and choose one of its volumes with `prosma segment --series`."
            raise ImageError(error.message, remedy, error.code) from error

    def _stored_before(self, name: str) -> dict | None:
        """The last line of the records that says that this result was stored on this server."""
        lines = [line for line in self._worker.records.about(name) if line.get("server") == self.server.url]
        return lines[-1] if lines else None

    def _note(self, name: str, uid: str, series: Series) -> None:
        line = {"output": name, "stored": uid, "server": self.server.url, "images": series.images, "written": now()}
        self._worker.records.append(line)

    def _failed(self, series: Series, error: Exception) -> dict:
        log.debug("%s failed", series.uid, exc_info=error)
        outcome = {**self.facts(series), **failed(error)}
        with contextlib.suppress(OSError):
            self._worker.records.add_failure(self.name_of(series), outcome)
        return outcome


def grown(series: Series, before: dict | None) -> list[str]:
    """A notice where a series has other images than when it was segmented, as far as that is known."""
    images = (before or {}).get("images")
    if not images or not series.images or images == series.images:
        return []
    return [
        f"The series had {images} images when it was segmented and has {series.images} now. Remove its segmentation from "
        "the server and use --again to segment it as it is."
    ]
