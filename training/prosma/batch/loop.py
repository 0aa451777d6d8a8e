"""The cases of a batch in one process: one model kept warm, the next image read while the network is at work.

Cases that other processes work on come last: either their result is there by then, or their owner is dead.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..cancel import Cancelled
from ..errors import EngineError
from ..outputs.choices import BINARY
from .cases import Case
from .claims import Claims
from .image_reader import READ_LIMIT_S, ImageReader
from .records import records_of
from .result_file import ResultFile
from .run_case import complete, failed, measured, prepare, skipped

if TYPE_CHECKING:
    from ..image.geometry import Image
    from ..inference import pipeline
    from ..inference.segmenter import Segmenter
    from ..package import ModelPackage

log = logging.getLogger(__name__)
WAITS_S = (0.2, 0.5, 1.0, 2.0)  # for cases of other processes; then the last one again and again

Show = Callable[[str, str, float, "float | None"], None]  # case, stage, fraction, seconds left


@dataclass(frozen=True)
class Settings:
    """How the cases of a batch are done.

    `folder`: of the results. `model`: the package's folder. `run`: the options of the run that a result depends on (overlap,
    mirror, roi). `since`: results that the records' lines before this one tell of are made again; 0 keeps all that are
    there. `force`: do images whose grid does not suit the model. `note_failures`: add a line to the records for a case
    that failed. `in_full`: measure segments, see measures.py. `read_limit`: seconds to read one image in.
    `seg_type`: of DICOM segmentations. `also`: endings of files beside each result.
    """

    folder: str
    model: str
    device: str = "auto"
    run: dict = field(default_factory=dict)
    since: int = 0
    force: bool = False
    note_failures: bool = True
    in_full: bool = False
    read_limit: float = READ_LIMIT_S
    seg_type: str = BINARY
    also: Sequence[str] = ()


@dataclass
class Prepared:
    """A case that has been looked at: its image is to be segmented, or there is an `outcome` already, or `elsewhere`.

    `begun`: what its run can begin with.
    """

    case: Case
    file: ResultFile | None = None
    image: Image | None = None
    begun: pipeline.Prepared | None = None
    outcome: dict | None = None
    elsewhere: bool = False


class CaseWorker:
    """Does cases one after the other. Close it, or use it in a `with` statement. The folder of results exists."""

    def __init__(self, settings: Settings, package: ModelPackage) -> None:
        self.settings = settings
        self.package = package
        folder = Path(settings.folder)
        self.records = records_of(folder.absolute())
        self.began = self.records.count()
        self.reader = ImageReader(settings.read_limit)
        self.reader.start()
        self.claims = Claims(folder).__enter__()
        self._segmenter: Segmenter | None = None
        self._closed = False
        self.looked, self._reads = threading.Event(), False  # at the first case; whether an image has to be read

    def __enter__(self) -> CaseWorker:
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def close(self) -> None:
        """End the reading process and give up all claims."""
        self._closed = True
        self.reader.close()
        self.claims.__exit__()

    @property
    def segmenter(self) -> Segmenter:
        """The model, loaded when it is first asked for. Raises EngineError as Segmenter."""
        if self._segmenter is None:
            from ..inference.segmenter import Segmenter

            segmenter = Segmenter(self.package, self.settings.device)
            if self.settings.device.startswith("cuda") and segmenter.device == "cpu":  # a person insists on it
                raise EngineError("no_device", " ".join(segmenter.device_notices), "Say --device auto or --device cpu.")
            segmenter.keeps_memory = True
            self._segmenter = segmenter
        return self._segmenter

    def load_meanwhile(self) -> None:
        """While the first image is read, load the model; not before it is clear that one is needed."""
        self.looked.wait()
        if self._reads:
            _ = self.segmenter

    def prepare(self, case: Case) -> Prepared:
        """Claim a case and read its image, unless it is done, or failed, or somebody else's."""
        try:
            return self._prepare(case)
        except Exception as error:
            if self._closed:  # not the image's fault
                return Prepared(case, elsewhere=True)
            return Prepared(case, outcome=self._failed(case, error))
        finally:
            self.looked.set()

    def complete(self, prepared: Prepared, show: Show, cancelled: Callable[[], bool] | None = None) -> dict:
        """The outcome of a case: what `run_case.complete` tells of it, or `skipped`, or `error`."""
        case, name = prepared.case, prepared.case.output.name
        if prepared.outcome is not None:
            return {**case.facts(), **prepared.outcome}
        assert prepared.file is not None and prepared.image is not None, "it is to be segmented"
        segmenter = self.segmenter

        def progress(stage: str, fraction: float, left: float | None) -> None:
            show(case.name, stage, fraction, left)

        try:
            return complete(
                prepared.file,
                prepared.image,
                segmenter,
                case.facts(),
                progress,
                cancelled,
                lambda: self.claims.is_mine(name),
                self.settings.force,
                self.settings.in_full,
                prepared.begun,
            )
        except Cancelled:
            raise
        except Exception as error:
            return {**case.facts(), **self._failed(case, error)}
        finally:
            prepared.image = prepared.begun = None
            self.claims.release(name)

    def _prepare(self, case: Case) -> Prepared:
        name, images = case.output.name, case.checked_images()
        if self.claims.holder(name):
            return Prepared(case, elsewhere=True)
        file = self._file_of(case)
        if file.is_finished:
            self.claims.tidy(name)
            return Prepared(case, outcome=self._skipped(file, case))
        if not self.claims.take(name):
            return Prepared(case, elsewhere=True)
        file.look()
        error = self.records.failure_since(name, self.began)
        read = None if error else prepare(file, lambda: self._read(images, case.series))
        if read is not None:
            return Prepared(case, file, *read)
        self.claims.release(name)
        return Prepared(case, outcome={"error": error} if error else self._skipped(file, case))

    def _file_of(self, case: Case) -> ResultFile:
        wanted = self.settings
        return ResultFile.from_files(
            case.output,
            self.package,
            wanted.run,
            case.images,
            wanted.since,
            case.series,
            wanted.seg_type,
            wanted.also,
        )

    def _skipped(self, file: ResultFile, case: Case) -> dict:
        if not self.settings.in_full:
            return skipped(file)
        read = self.reader.read
        return measured(file, lambda: read(case.images, case.series), lambda: read([case.output]))

    def _read(self, images: list[Path], series: list[str] | None) -> tuple[Image, pipeline.Prepared | None]:
        self._reads = True
        self.looked.set()
        settings = self.settings
        run = {"model": settings.model, "roi": settings.run.get("roi"), "force": settings.force}
        return self.reader.read_ahead(images, series, run)

    def _failed(self, case: Case, error: Exception) -> dict:
        """What there is to tell of a failure; noted for all who share the folder, and the case is given up."""
        log.debug("%s failed", case.name, exc_info=error)
        outcome = failed(error)
        if self.settings.note_failures:
            with contextlib.suppress(OSError):
                self.records.add_failure(case.output.name, {**case.facts(), **outcome})
        self.claims.release(case.output.name)
        return outcome


def run_cases(worker: CaseWorker, cases: Iterable[Case], show: Show) -> Iterator[dict]:
    """The outcomes of all cases, each as soon as the case has ended."""
    later, rounds = [], 0
    for case, outcome in each_once(worker, cases, show):
        if outcome is None:
            later.append(case)
        else:
            yield outcome
    while later:
        show(later[0].name, "Waiting for another process", 0.0, None)
        time.sleep(WAITS_S[min(rounds, len(WAITS_S) - 1)])
        remaining, later, rounds = later, [], rounds + 1
        for case in remaining:
            prepared = worker.prepare(case)
            if prepared.elsewhere:
                later.append(case)
            else:
                yield worker.complete(prepared, show)


def each_once(worker: CaseWorker, cases: Iterable[Case], show: Show) -> Iterator[tuple[Case, dict | None]]:
    """Each case with its outcome; None for one that another process works on."""

    def waiting() -> None:
        show("", "Reading", 0.0, None)
        worker.load_meanwhile()

    def all_prepared() -> Iterator[Prepared]:
        yield from map(worker.prepare, cases)
        worker.looked.set()  # also where there was no case

    for prepared in ahead(all_prepared(), waiting):
        yield prepared.case, None if prepared.elsewhere else worker.complete(prepared, show)


def ahead(items: Iterable, while_waiting: Callable[[], None] = lambda: None) -> Iterator:
    """The items of an iterable; while one is worked on, another thread makes the next one, and no more than that one."""
    iterator, end = iter(items), object()
    thread = ThreadPoolExecutor(1, "reading ahead")
    try:
        coming = thread.submit(next, iterator, end)
        while True:
            if not coming.done():
                while_waiting()
            item = coming.result()
            if item is end:
                return
            coming = thread.submit(next, iterator, end)
            yield item
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
