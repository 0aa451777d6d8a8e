"""One series after the other, from the server and back: looked for, fetched, segmented, stored.

The server says what is done: a segmentation by the same model and version that refers to the series. The folder of results
keeps what was made before it was stored, and what was stored, so that a call that broke off goes on.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Sequence
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
        gone: ServerGone | None = None
        while waiting:
            for series in waiting:
                try:
                    if gone is not None:
                        raise gone
                    yield self._do(series, show)
                except MadeElsewhere:
                    later.append(series)
                except Exception as error:
                    gone = error if isinstance(error, ServerGone) else gone
                    yield self._failed(series, error)
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

    def _do(self, series: Series, show: Show) -> dict:
        output = self.folder / self.name_of(series)
        show(series.uid, "Looking", 0.0, None)
        there = result_among(self.server.segmentations(series.study), series, self.package)
        before = self._stored_before(output.name)
        if there is not None:
            if before is None and output.exists():  # this was killed between the two
                self._note(output.name, str(there.SOPInstanceUID), series)
            address = f"{self.server.url}/studies/{series.study}/series/{there.SeriesInstanceUID}"
            return {**self.facts(series), "output": address, "skipped": FINISHED, "notices": grown(series, before)}
        if before is not None and not self.again:
            return {**self.facts(series), "output": str(output), "skipped": REMOVED}
        outcome = self._segment(series, output, show)
        show(series.uid, "Storing", 1.0, None)
        uid = self.server.store(output)
        self._note(output.name, uid, series)
        return {**outcome, "stored": uid}

    def _segment(self, series: Series, output: Path, show: Show) -> dict:
        """The outcome of a series whose result is in its file then. EngineError where it must not be stored."""
        uids = self.server.instances(series)
        with working_folder(self.folder, FETCHED) as folder:
            images = folder / series.uid
            images.mkdir()
            inputs = {"digest": digest_of(series, uids), "images": [images]}
            file = ResultFile(output, self.package, self.settings.run, inputs)

            def read() -> Image:
                show(series.uid, "Fetching", 0.0, None)
                self.server.fetch(series, uids, images)
                return self._read(images)

            def progress(stage: str, fraction: float, left: float | None) -> None:
                show(series.uid, stage, fraction, left)

            outcome = run_case(
                *(file, read, lambda: self._worker.segmenter, self.facts(series), progress), force=self.settings.force
            )
        if outcome.get("skipped") == EDITED:
            reason = f"{output.name} was changed after ProSMA wrote it, so it was not stored."
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
