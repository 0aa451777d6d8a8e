"""The engine as a child process: `python -m prosma.worker [--preload PACKAGE]`. JSON lines in, JSON lines out.

Requests and events are described in docs/door.md. One job runs at a time, on the main
thread; a second thread reads stdin, so that a cancel or the end of stdin is noticed in the middle of a tile. When stdin
closes, files of unfinished jobs are removed and the process is gone at once.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..cancel import Cancelled
from ..errors import EngineError, UserFacingError, bad_request, explained
from ..inference.memory_ladder import means_out_of_memory
from ..package import ModelPackage
from .events import Described, Event, Failed, Listed, Progress, Ready, Skipped, Written
from .job_files import Job
from .prompt_files import Images, answer
from .requests import Cancel, Describe, Prompt, Segment, Shutdown, id_of, parsed

if TYPE_CHECKING:
    from ..image.geometry import Image
    from ..inference.segmenter import Segmenter

NICENESS = 5  # the panel comes first
KEPT_MODELS = 2
LONGEST_LINE = 1 << 20


class Channel:
    """Events out and requests in, on private copies of stdout and stdin; prints of libraries go to stderr."""

    def __init__(self) -> None:
        self._out, self._in = os.dup(1), os.dup(0)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._lock = threading.Lock()

    def send(self, event: Event, **request_id: str | int | None) -> None:
        """Write one event, with the `id` of the request. Where nobody reads any more there is nobody to work for."""
        data = (json.dumps({**event.content(), **request_id}) + "\n").encode()
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._out, data) :]
            except OSError:
                os._exit(0)

    def send_error(self, request_id: str | int | None, error: Exception) -> None:
        self.send(error_event(error), id=request_id)

    def lines(self) -> Iterator[bytes]:
        """Requests as bytes until stdin ends."""
        with os.fdopen(self._in, "rb") as stream:
            while line := stream.readline(LONGEST_LINE):
                yield line


class Worker:
    """Reads requests and does them. `models` holds the Segmenters used last, by (path, sha256, device)."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.models: dict[tuple[str, str, str], Segmenter] = {}
        self.waiting: queue.PriorityQueue[tuple[bool, int, Job]] = queue.PriorityQueue()  # see `_accept`
        self.numbers = itertools.count()
        self.jobs: dict[str | int, Job] = {}  # queued and running
        self.images = Images()
        self.lock = threading.Lock()

    # --- the reading thread

    def read_requests(self) -> None:
        """Until stdin ends or a shutdown is asked for; then the process is gone, even in the middle of a tile."""
        try:
            for line in self.channel.lines():
                try:
                    if line.strip() and self._accept(line):
                        break
                except Exception as error:
                    self.channel.send_error(id_of(line), error)
            with self.lock:
                for job in self.jobs.values():
                    job.remove_all()
        finally:
            os._exit(0)

    def _accept(self, line: bytes) -> bool:
        """Queue or do one request; True for shutdown. EngineError bad_input for what is none.

        What a person waits for is done before models are loaded in advance, else in order.
        """
        request = parsed(line)
        if isinstance(request, Cancel):
            self._cancel(request.job)
        elif not isinstance(request, Shutdown):
            job = Job(request)
            with self.lock:
                if job.id in self.jobs:
                    raise bad_request(f"There is already a job {job.id!r}.")
                self.jobs[job.id] = job
            if isinstance(request, Prompt):
                self._cancel_earlier(request)
            self.waiting.put((isinstance(request, Describe), next(self.numbers), job))
        return isinstance(request, Shutdown)

    def _cancel(self, job_id: str | int) -> None:
        """Drop a queued job, stop the running one within a stage of the network; others are gone anyway."""
        with self.lock:
            job = self.jobs.get(job_id)
            if job is None:
                return
            job.cancelled.set()
            if job.started:
                return
            del self.jobs[job.id]
        self.channel.send_error(job.id, Cancelled())

    def _cancel_earlier(self, request: Prompt) -> None:
        """The next stroke on an image makes the answers to those before it worthless."""
        with self.lock:
            others = [job for job in self.jobs.values() if job.id != request.id and isinstance(job.request, Prompt)]
        for job in others:
            if isinstance(job.request, Prompt) and job.request.folder == request.folder:
                self._cancel(job.id)

    # --- the working thread

    def run(self) -> None:
        """Do jobs in order, until the reading thread ends the process, or until memory did not suffice for one."""
        while True:
            *_order, job = self.waiting.get()
            with self.lock:
                if job.cancelled.is_set():
                    continue
                job.started = True
            lacked_memory = failed = False
            try:
                event = self._done(job)
            except BaseException as error:
                failed = True
                lacked_memory = means_out_of_memory(error.__cause__ or error)
                if not isinstance(error, UserFacingError):
                    traceback.print_exc()
                event = error_event(error)
            if failed:  # after the error is forgotten: Windows removes no file that it still holds mapped
                job.remove_made()
            with self.lock:
                del self.jobs[job.id]
                last = not self.jobs
            self.channel.send(event, id=job.id)
            if last and lacked_memory:
                # oneDNN never tries again what it once found no memory to compile. A new engine does.
                os._exit(0)

    def _done(self, job: Job) -> Event:
        """Do a job; the event that tells of it."""
        if isinstance(job.request, Describe):
            return self._describe(job, job.request)
        if isinstance(job.request, Segment):
            return self._segment(job, job.request)
        if isinstance(job.request, Prompt):
            image = self.images.of(job.request)
            segmenter = self.model(job.request.model, job.request.device)
            return answer(job, job.request, segmenter, image, job.cancelled.is_set)
        return Listed(cases=job.list_cases(job.request))

    def _describe(self, job: Job, request: Describe) -> Described:
        began = time.perf_counter()
        segmenter = self.model(request.model, request.device, job.cancelled.is_set)
        seconds = round(time.perf_counter() - began, 3)
        return Described(
            model=segmenter.package.id, device=segmenter.device, seconds=seconds, notices=segmenter.device_notices
        )

    def _segment(self, job: Job, request: Segment) -> Event:
        def progress(stage: str, fraction: float, seconds_left: float | None) -> None:
            left = None if seconds_left is None else round(seconds_left, 2)
            self.channel.send(Progress(stage=stage, fraction=round(fraction, 4), seconds_left=left), id=job.id)

        def read() -> Image:
            if request.images is not None:
                progress("Reading", 0.0, None)
            return job.read_image(request)

        def segmenter() -> Segmenter:
            progress("Loading the model", 0.0, None)
            return self.model(request.model, request.device)

        if request.output is not None:
            from ..batch.run_case import run_case

            file = job.result_file(request, Path(request.output), ModelPackage.open(request.model))
            done = run_case(file, read, segmenter, {}, progress, job.cancelled.is_set, request.force)
            return Skipped(**done) if "skipped" in done else Written(**done)
        image, ready = read(), segmenter()
        result = ready.segment(
            image,
            outputs=request.outputs or (),
            roi=request.roi,
            overlap=request.overlap,
            mirror=request.mirror,
            force=request.force,
            progress=progress,
            cancelled=job.cancelled.is_set,
            allocate=job.allocate,
        )
        return job.write_results(result, image.voxel_ml)

    def model(self, path: str, device: str, cancelled: Callable[[], bool] | None = None) -> Segmenter:
        """The Segmenter for a package, loaded once as long as its weights stay the same."""
        from ..inference.segmenter import Segmenter

        package = ModelPackage.open(path)
        key = (path, package.sha256, device)
        segmenter = self.models.pop(key, None) or Segmenter(package, device, cancelled)
        self.models[key] = segmenter
        while len(self.models) > KEPT_MODELS:
            del self.models[next(iter(self.models))]
        return segmenter


def error_event(error: BaseException) -> Failed:
    """The event for an exception, whatever it is."""
    if isinstance(error, OSError):
        error = EngineError(
            "internal",
            f"A file of the job could not be read or written ({error.strerror or error}).",
            "Free some space on the disk of the temporary folder and try again.",
        )
    return Failed.of(explained(error))


def introduce(worker: Worker, preload: str | None) -> None:
    """Import torch, load the model to be kept ready, and send `ready`, whatever went wrong."""
    versions, devices, model, problem = None, [], None, None
    try:
        from ..inference.devices import import_torch, list_devices

        versions = import_torch().__version__
        devices = list_devices()
        if preload:
            model = worker.model(preload, "auto").package.id
    except UserFacingError as error:
        problem = {"code": error.code, "message": error.message, "remedy": error.remedy}
    ready = Ready(
        pid=os.getpid(),
        prosma=__version__,
        python=platform.python_version(),
        torch=versions,
        devices=devices,
        model=model,
        problem=problem,
    )
    worker.channel.send(ready)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m prosma.worker", description=__doc__.splitlines()[0])
    parser.add_argument("--preload", metavar="PACKAGE", help="model package to load before `ready`")
    options = parser.parse_args(arguments)
    worker = Worker(Channel())
    with contextlib.suppress(AttributeError, OSError):  # os.nice is not on Windows
        os.nice(NICENESS)
    threading.Thread(target=worker.read_requests, daemon=True).start()
    introduce(worker, options.preload)
    worker.run()
