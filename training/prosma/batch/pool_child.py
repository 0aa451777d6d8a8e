"""One process of pool.py: does the cases that stdin names, and is gone when stdin ends before it was told to end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator

from ..errors import explained
from ..package.model_package import ModelPackage
from .cases import Case
from .loop import CaseWorker, Settings, each_once


class Talk:
    """Messages of the parent in, events out; what libraries print is kept off stdout."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self.cases: queue.SimpleQueue[Case | None] = queue.SimpleQueue()

    def send(self, **event) -> None:
        try:
            self._out.write(json.dumps(event).encode() + b"\n")
            self._out.flush()
        except OSError:  # nobody is there any more
            os._exit(1)

    def settings(self) -> Settings:
        line = sys.stdin.buffer.readline()
        if not line:
            sys.exit(1)
        return Settings(**json.loads(line)["settings"])

    def read(self, worker: CaseWorker) -> None:
        """In a thread: cases until the end, and the end of this process where the parent is gone."""
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if "end" in message:
                self.cases.put(None)
                return
            self.cases.put(Case.from_json(message["case"]))
        worker.close()
        os._exit(1)


def main() -> None:
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the parent, which then closes stdin
    talk = Talk()
    settings = talk.settings()
    begun: list[str] = [""]

    def show(case: str, _stage: str, _fraction: float, _left: float | None) -> None:
        if case and case != begun[0]:
            begun[0] = case
            talk.send(event="begun", case=case)

    try:
        with CaseWorker(settings, ModelPackage.open(settings.model)) as worker:
            threading.Thread(target=talk.read, args=(worker,), daemon=True).start()
            cases: Iterator[Case] = iter(talk.cases.get, None)
            for case, outcome in each_once(worker, cases, show):
                if outcome is None:
                    talk.send(event="elsewhere", case=case.name)
                else:
                    begun[0] = ""
                    talk.send(event="outcome", case=case.name, outcome=outcome)
    except Exception as error:
        told = explained(error)
        talk.send(event="error", code=told.code, message=told.message, remedy=told.remedy)


if __name__ == "__main__":
    main()
