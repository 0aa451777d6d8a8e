"""The cases of a batch on the workers of a Dask cluster that is there (dask.distributed).

Workers see the images, the model and the folder of results under the same paths. One task a case; the scheduler gives the
case of a worker that died to another one, and the claims see to it that none is done twice.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import EngineError, explained
from .cases import Case
from .loop import WAITS_S, Settings, Show
from .records import records_of
from .run_case import failed

FILE_REMEDY = "Give the file that `dask scheduler --scheduler-file FILE` writes, or tcp://HOST:PORT."
CONFIGURED = "config"  # in place of an address
PER_THREAD = 2  # tasks that are in flight for each thread of the cluster: one at work, one waiting
CONNECTING_S = 30.0
WORKERS_S = 120.0  # until the first worker must be there
COUNTED_EVERY_S = 5.0
ENDING_S = 10.0  # until workers must have closed the model
ALONE_S = 30.0  # without a worker, after which that is told
ALONE = (
    "The cluster has no worker any more. The work goes on when one comes; Ctrl+C stops it, and nothing done is lost."
)


def configured(address: str) -> str:
    """An address; for CONFIGURED that in Dask's configuration. EngineError where there is none."""
    if address != CONFIGURED:
        return address
    import dask

    found = dask.config.get("scheduler-address", None)
    if not found:
        why = "Dask's configuration names no scheduler."
        raise EngineError("bad_input", why, "Set DASK_SCHEDULER_ADDRESS, or give an address.")
    return found


def scheduler_at(address: str) -> dict[str, str]:
    """How dask.distributed is told of a scheduler: by its file, or by its address. EngineError for what is neither."""
    if Path(address).is_file():
        try:
            _ = json.loads(Path(address).read_text(encoding="utf-8"))["address"]
        except (ValueError, KeyError, TypeError) as error:
            why = f"{address} is no file of a Dask scheduler."
            raise EngineError("bad_input", why, FILE_REMEDY) from error
        return {"scheduler_file": address}
    found = configured(address)
    if not re.search(r"://|:\d+$", found):
        raise EngineError("bad_input", f"There is no file {found}, and it is no address of a scheduler.", FILE_REMEDY)
    return {"address": found}


class SchedulerLost(EngineError):
    """The scheduler has gone away in the middle of the work."""


class Connection:
    """To a Dask cluster at an address (see `configured`), or of a scheduler's JSON file. Use it in a `with` statement.

    `tell`: gets a sentence where the work stands still. EngineError where there is no cluster, no worker, or no
    dask.distributed here; SchedulerLost.
    """

    def __init__(self, address: str, tell: Callable[[str], object] = lambda text: None) -> None:
        try:
            import distributed
        except ImportError as error:
            why = "A cluster needs the Python packages dask and distributed, which are not installed."
            raise EngineError("internal", why, "Install them: pip install './training[cluster]'.") from error
        self._library = distributed
        self._name = f"prosma-{uuid.uuid4().hex[:12]}"
        where = scheduler_at(address)
        try:
            self._client = distributed.Client(**where, timeout=CONNECTING_S, set_as_default=False)
        except (OSError, ValueError) as error:
            why = f"There is no Dask scheduler at {address} ({error})."
            raise EngineError("bad_input", why, "Start one with `dask scheduler`, and give its address.") from error
        self._tell = tell
        self._futures: dict = {}  # what each is about
        self._ended: queue.Queue = queue.Queue()  # futures

    def __enter__(self):
        try:
            self._client.wait_for_workers(1, timeout=WORKERS_S)
        except self._library.TimeoutError as error:  # in Python 3.10 another class than the built-in one
            self._client.close()
            raise EngineError(
                "bad_input",
                f"The Dask scheduler has had no worker for {WORKERS_S:.0f} s.",
                "Start some with `dask worker`.",
            ) from error
        self._check_workers()
        return self

    def __exit__(self, *_exception) -> None:
        with contextlib.suppress(OSError, self._library.TimeoutError):
            self._client.cancel(list(self._futures))
        self._client.close()

    def _check_workers(self) -> None:
        """EngineError where one has no ProSMA, or another version of it."""
        from .cluster_worker import another_prosma, version

        for found in self._client.run(version, on_error="return").values():
            if isinstance(found, OSError) or found == version():  # one that is just going is no matter
                continue
            self._client.close()
            raise another_prosma(found, version())

    def each(self, function: Callable, jobs: Mapping[str, tuple]) -> Iterator[tuple[str, Any]]:
        """Names of jobs with what `function` returned for their arguments, or the error, each as soon as it has ended.

        A job whose worker dies is given to another one; after several deaths its error is a KilledWorker.
        """
        for name, arguments in jobs.items():
            self._give(name, name, function, *arguments)
        while self._futures:
            future = self._next()
            name = self._futures.pop(future)
            try:
                result = self._result(future)
            except SchedulerLost:
                raise
            except Exception as error:
                result = error
            yield name, result

    def _give(self, name: str, about: object, function: Callable, *arguments) -> None:
        """A task for the cluster; `about`: what is found under its future."""
        key = f"{self._name}-{name}-{uuid.uuid4().hex[:8]}"
        future = self._client.submit(function, *arguments, key=key, pure=False)
        self._futures[future] = about
        future.add_done_callback(self._ended.put)

    def _next(self):
        """The next future that has ended. While no worker is there that could do any, this is told once."""
        alone_since, told = None, False
        while True:
            try:
                return self._ended.get(timeout=COUNTED_EVERY_S)
            except queue.Empty:
                if self._client.status != "running" or self._threads_now():  # a lost scheduler ends the futures
                    alone_since, told = None, False
                elif alone_since is None:
                    alone_since = time.monotonic()
                elif not told and time.monotonic() - alone_since > ALONE_S:
                    self._tell(ALONE)
                    told = True

    def _threads_now(self) -> int:
        """Threads of all workers; 0 too where the scheduler does not answer."""
        try:
            return sum(self._client.nthreads().values())
        except OSError:
            return 0

    def _result(self, future):
        """What its function returned, or raised; EngineError where the scheduler has gone away meanwhile."""
        try:
            return future.result()
        except CancelledError as error:
            why = "The connection to the Dask scheduler was lost."
            what_to_do = (
                "Start a scheduler and workers again, and give the same command: it goes on where this one stopped."
            )
            raise SchedulerLost("internal", why, what_to_do) from error

    def is_death(self, error: object) -> bool:
        """Whether an error says that workers died over a task, one after the other."""
        return isinstance(error, self._library.scheduler.KilledWorker)


class Cluster(Connection):
    """Does cases on the cluster. Use it in a `with` statement. EngineError as Connection."""

    def __init__(self, settings: Settings, address: str, tell: Callable[[str], object] = lambda text: None) -> None:
        super().__init__(address, tell)
        self._folder = Path(settings.folder)
        self._threads, self._counted = 0, 0.0
        self._settings = settings

    def __enter__(self) -> Cluster:
        super().__enter__()
        from .cluster_worker import CasePlugin

        self._client.register_plugin(CasePlugin(self._name, replace(self._settings)))
        return self

    def __exit__(self, *exception) -> None:
        with contextlib.suppress(OSError, self._library.TimeoutError):
            self._client.cancel(list(self._futures))
        # A worker that came without ProSMA could not start, but the scheduler waits for its answer for ever.
        ending = threading.Thread(target=self._unregister, daemon=True)
        ending.start()
        ending.join(ENDING_S)
        super().__exit__(*exception)

    def _unregister(self) -> None:
        with contextlib.suppress(OSError, CancelledError, self._library.TimeoutError):
            self._client.unregister_worker_plugin(self._name)

    def run(self, cases: Sequence[Case], show: Show) -> Iterator[dict]:
        """The outcomes of all cases, each as soon as the case has ended. Raises EngineError where none can be done."""
        later: list[Case] = []
        waiting, rounds = deque(cases), 0
        ended, began = 0, time.monotonic()
        while waiting or later or self._futures:
            while waiting and len(self._futures) < PER_THREAD * self._count_threads():
                self._submit(waiting.popleft())
            if not self._futures:  # what is left are cases of other processes
                time.sleep(WAITS_S[min(rounds, len(WAITS_S) - 1)])
                waiting, later, rounds = deque(later), [], rounds + 1
                continue
            future = self._next()
            case = self._futures.pop(future)
            outcome = self._outcome(future, case)
            if outcome is None:
                later.append(case)
                continue
            ended += 1
            left = (time.monotonic() - began) / ended * (len(cases) - ended)
            show(case.name, "Done", ended / len(cases), left)
            yield {**outcome, **case.facts()}

    def _submit(self, case: Case) -> None:
        from .cluster_worker import do_case

        self._give(case.name, case, do_case, self._name, case.as_json())

    def _count_threads(self) -> int:
        """`_threads_now`, asked for now and then; at least one."""
        if not self._threads or time.monotonic() - self._counted > COUNTED_EVERY_S:
            self._threads = max(1, self._threads_now())
            self._counted = time.monotonic()
        return self._threads

    def _outcome(self, future, case: Case) -> dict | None:
        """The outcome of a task that has ended; None where another process has the case."""
        try:
            answer = self._result(future)
        except Exception as error:
            if not self.is_death(error):
                raise explained(error) from error
            reason = "The workers that segmented it died one after the other: most likely the memory did not suffice."
            told = EngineError("out_of_memory", reason, "Give the workers more memory, or limit the work to an ROI.")
            outcome = {**case.facts(), **failed(told)}
            with contextlib.suppress(OSError):
                records_of(self._folder).add_failure(case.output.name, outcome)
            return outcome
        if "fault" in answer:
            fault = answer["fault"]
            raise EngineError(fault["code"], f"On a worker: {fault['message']}", fault["remedy"])
        return answer["outcome"]
