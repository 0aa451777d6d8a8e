"""How a long command tells how far it is, to a person or to the program that runs it, and how it is asked to end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

NICENESS = 5  # whoever waits for the result is at work on the same computer

Progress = Callable[[str, float, "float | None"], None]  # stage, finished share 0 to 1, seconds left or None


def reporter(form: str) -> Callable[..., None]:
    """``text``: lines on stderr. ``json``: an object a line on stdout, and a lower priority of this process."""
    if form == "text":
        return TextProgress()
    with contextlib.suppress(AttributeError, OSError):  # os.nice is not on Windows
        os.nice(NICENESS)
    print_json("Starting", 0.0, None, pid=os.getpid())  # a launcher in between has another number
    return print_json


def print_json(stage: str, fraction: float, seconds_left: float | None, **more: object) -> None:
    """One object a line. If nobody reads any more the OSError ends the command: nobody waits for its result."""
    event = {"stage": stage, "fraction": round(fraction, 4), "seconds_left": seconds_left, **more}
    print(json.dumps(event), flush=True)


class TextProgress:
    """A line for each new stage and each tenth of it."""

    def __init__(self) -> None:
        self.shown: tuple[str, int] | None = None

    def __call__(self, stage: str, fraction: float, seconds_left: float | None, **_: object) -> None:
        now = stage, int(10 * fraction)
        if now == self.shown:
            return
        self.shown = now
        left = "" if seconds_left is None else f", {seconds_left:.0f} s left"
        print(f"{stage}: {100 * fraction:.0f} %{left}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGTERM or Ctrl+C came; meanwhile they end nothing by themselves."""
    asked = threading.Event()
    numbers = signal.SIGINT, signal.SIGTERM
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in numbers}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
