"""The cases of a batch in several processes of this computer, each with its share of the cores and a warm model.

A process that dies (out of memory, a crash of the network's library) costs an attempt at the case that it worked on. What
it had not begun is done by the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from ..errors import EngineError
from .cases import Case
from .image_reader import CODE_FOLDER
from .loop import WAITS_S, Settings, Show
from .records import records_of
from .run_case import failed

ATTEMPTS = 2  # at a case over which processes die
AHEAD = 2  # cases that a process has at a time: one at work, one that is read meanwhile
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
GRACE_S = 10.0  # to give up claims at the end


class Child:
    """One process of the pool; `given`: the cases that it has, by name, in order; `begun`: the one that it computes."""

    def __init__(self, settings: Settings, threads: int, events: queue.SimpleQueue) -> None:
        self.given: dict[str, Case] = {}
        self.begun: str | None = None
        self.useful = False  # whether it has ended a case
        environment = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prosma.batch.pool_child"],
            cwd=CODE_FOLDER,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        threading.Thread(target=self._pass_on, args=(events,), daemon=True).start()
        self._send({"settings": asdict(settings)})

    def give(self, case: Case) -> None:
        self.given[case.name] = case
        self._send({"case": case.as_json()})

    def end(self, kill: bool) -> None:
        """Let it end when it has done what it was given, or at once."""
        if not kill:
            self._send({"end": True})
        with contextlib.suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(GRACE_S if kill else None)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def how_it_ended(self) -> str:
        code = self._process.wait()
        with contextlib.suppress(ValueError):
            return f"died ({signal.Signals(-code).name})" if code < 0 else f"ended (exit code {code})"
        return f"died (signal {-code})"

    def _send(self, message: dict) -> None:
        with contextlib.suppress(OSError):  # it died: its end is on its way among the events
            self._requests.write(json.dumps(message).encode() + b"\n")
            self._requests.flush()

    def _pass_on(self, events: queue.SimpleQueue) -> None:
        with self._answers as stream:
            for line in stream:
                events.put((self, json.loads(line)))
        events.put((self, {"event": "gone"}))


def threads_each(cores: int, workers: int) -> int:
    """Threads of each process: its share of the cores, and no more than OMP_NUM_THREADS says."""
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores // workers, int(allowed) if allowed.isdigit() and int(allowed) else cores))


class Pool:
    """Does cases in `workers` processes that share `threads` cores. Use it in a `with` statement."""

    def __init__(self, settings: Settings, workers: int, threads: int) -> None:
        self.settings = settings
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._threads = threads_each(threads, workers)
        self._children = [self._child() for _ in range(workers)]
        self._workers = workers
        self._waiting: deque[Case] = deque()
        self._later: list[Case] = []  # cases of other processes, to be asked for again
        self._ask_at, self._rounds = 0.0, 0
        self._attempts: dict[str, int] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception) -> None:
        for child in self._children:
            child.end(kill=exception[0] is not None or bool(child.given))

    def run(self, cases: Sequence[Case], show: Show) -> Iterator[dict]:
        """The outcomes of all cases, each as soon as the case has ended. Raises EngineError where none can be done."""
        self._waiting.extend(cases)
        ended, began = 0, time.monotonic()
        while self._waiting or self._later or any(child.given for child in self._children):
            self._hand_out()
            try:
                child, event = self._events.get(timeout=WAITS_S[-1] if self._later else None)
            except queue.Empty:
                continue
            outcome = self._take(child, event)
            if outcome is not None:
                ended += 1
                left = (time.monotonic() - began) / ended * (len(cases) - ended)
                show(outcome["case"], "Done", ended / len(cases), left)
                yield outcome

    def _child(self) -> Child:
        return Child(self.settings, self._threads, self._events)

    def _hand_out(self) -> None:
        if self._later and not self._waiting and time.monotonic() >= self._ask_at:
            self._waiting.extend(self._later)
            self._later = []
        for depth in range(AHEAD):
            for child in self._children:
                # towards the end nobody has two cases while another one has none
                if len(child.given) == depth and self._waiting and (depth == 0 or len(self._waiting) > self._workers):
                    child.give(self._waiting.popleft())

    def _take(self, child: Child, event: dict) -> dict | None:
        """Note an event; the outcome where a case has ended by it."""
        kind, case = event["event"], child.given.get(event.get("case", ""))
        if kind == "begun":
            child.begun = event["case"]
        elif kind == "elsewhere":
            self._later.append(child.given.pop(event["case"]))
            self._ask_at = time.monotonic() + WAITS_S[min(self._rounds, len(WAITS_S) - 1)]
            self._rounds += 1
        elif kind == "outcome" and case is not None:
            del child.given[case.name]
            child.begun, child.useful = None, True
            return {**event["outcome"], **case.facts()}
        elif kind == "error":
            raise EngineError(event["code"], event["message"], event["remedy"])
        elif kind == "gone":
            return self._replace(child)
        return None

    def _replace(self, child: Child) -> dict | None:
        """Another process for one that is gone; the outcome of the case that it died over, after the last attempt."""
        how = child.how_it_ended()
        if not child.given and not child.useful:
            raise EngineError(
                "internal", f"A process of the batch {how} before it did anything.", "See the lines above."
            )
        over = child.given.pop(child.begun or next(iter(child.given), ""), None)
        self._waiting.extendleft(reversed(child.given.values()))
        self._children[self._children.index(child)] = self._child()
        if over is None:
            return None
        self._attempts[over.name] = self._attempts.get(over.name, 0) + 1
        if self._attempts[over.name] < ATTEMPTS:
            self._waiting.append(over)
            return None
        return self._died_over(over, how)

    def _died_over(self, case: Case, how: str) -> dict:
        reason = f"The process that segmented it {how}, {ATTEMPTS} times: most likely the memory did not suffice."
        outcome = {**case.facts(), **failed(EngineError("out_of_memory", reason, "Use fewer --workers, or an ROI."))}
        with contextlib.suppress(OSError):
            records_of(Path(self.settings.folder).absolute()).add_failure(case.output.name, outcome)
        return outcome
