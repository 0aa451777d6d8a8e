"""What runs on the workers of a Dask cluster: one case at a time in a process, with a model that stays loaded."""

from __future__ import annotations

import threading
from typing import Any

from distributed import WorkerPlugin, get_worker

from .. import __version__
from ..errors import EngineError, explained
from ..package import ModelPackage
from .cases import Case
from .loop import CaseWorker, Settings

IDLE_S = (
    900.0  # after which a batch whose command was killed no longer holds memory; a later case loads the model again
)


class CasePlugin(WorkerPlugin):
    """Keeps the CaseWorker of one batch on a worker, from its first case until the batch has ended or is idle."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.version = __version__

    def setup(self, worker) -> None:
        """Called where the worker runs; the model is loaded with the first case."""
        self._lock = threading.Lock()
        self._case_worker: CaseWorker | None = None
        self._idle: threading.Timer | None = None

    def teardown(self, worker) -> None:
        with self._lock:
            self._stop_timer()
            self._close()

    def _close(self) -> None:
        if self._case_worker is not None:
            self._case_worker.close()
            self._case_worker = None

    def _stop_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _start_timer(self) -> None:
        self._idle = threading.Timer(IDLE_S, self.teardown, (None,))
        self._idle.daemon = True
        self._idle.start()

    def do(self, case: Case) -> dict:
        """{"outcome"} of a case, None for one that another process works on; or {"fault"} where no case can be done."""
        with self._lock:
            self._stop_timer()
            try:
                if self.version != __version__:  # a worker that came in the middle of the work
                    raise another_prosma(__version__, self.version)
                if self._case_worker is None:
                    self._case_worker = CaseWorker(self.settings, ModelPackage.open(self.settings.model))
                worker = self._case_worker
                prepared = worker.prepare(case)
                if prepared.elsewhere:
                    return {"outcome": None}
                return {"outcome": worker.complete(prepared, lambda case, stage, fraction, left: None)}
            except Exception as error:  # of the model or the folder of results: `complete` tells those of a case
                told = explained(error)
                return {"fault": {"code": told.code, "message": told.message, "remedy": told.remedy}}
            finally:
                self._start_timer()


def version() -> str:
    """That of ProSMA, where it is called."""
    return __version__


def another_prosma(found: str | Exception, wanted: str) -> EngineError:
    """What to say of a worker with another version of ProSMA, or without any: then ``found`` is the error of importing it."""
    why = f"has version {found}, and this is {wanted}" if isinstance(found, str) else f"has none ({found})"
    return EngineError(
        "internal",
        f"A worker of the cluster needs ProSMA, and {why}.",
        "Install the same version of it for the Python that runs the workers, and start them again.",
    )


def do_case(plugin: str, case: dict) -> dict:
    """The task of one case, on a worker that has the plugin of this name."""
    found: Any = get_worker().plugins[plugin]
    return found.do(Case.from_json(case))
