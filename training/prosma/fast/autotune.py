"""Which of several ways to compute the same is fastest on this computer: measured once and remembered for the user.

The file is a help and no more: without it, or where it cannot be written, the measurement is made again in each process.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar

import torch

from ..cancel import never, stop_if
from ..files import replaced_when_whole, user_folder
from .allocator import freed_memory_kept

FILE_NAME = "fastest-ways.json"
ROUNDS = 2
CLEARLY = 0.9  # another way than the first must take less than this share of its time

_known: dict[str, str] = {}
_cancelled: ContextVar[Callable[[], bool]] = ContextVar("cancelled", default=never)


@contextlib.contextmanager
def stoppable(cancelled: Callable[[], bool]) -> Iterator[None]:
    """Within it a measurement ends with Cancelled, and without an answer, once ``cancelled()`` says so."""
    token = _cancelled.set(cancelled)
    try:
        yield
    finally:
        _cancelled.reset(token)


def fastest(question: str, ways: Mapping[str, Callable[[], object]]) -> str:
    """The name of the fastest of ``ways``; the first unless another is clearly faster.

    Args:
        question: what is computed on what shape; with the names of the ways and what `answered` adds it names the answer.
        ways: each computes the same.
    """
    if len(ways) == 1:
        return next(iter(ways))
    return answered(f"{question}: {', '.join(ways)}", lambda: measure(ways), ways)


def answered(question: str, find: Callable[[], str], answers: Collection[str] | None = None) -> str:
    """What ``find`` gave when it was asked first on this processor, with this PyTorch and as many threads.

    A remembered answer that is not among ``answers`` does not count.
    """
    question = f"{computer()}, {torch.get_num_threads()} threads: {question}"
    answer = _known.get(question) or read_answers().get(question)
    if not isinstance(answer, str) or (answers is not None and answer not in answers):
        answer = find()
        remember(question, answer)
    _known[question] = answer
    return answer


def measure(ways: Mapping[str, Callable[[], object]]) -> str:
    """Best of a few interleaved rounds after one that is not counted.

    The time is this thread's own: it does its share of every parallel loop, and does not count what other programs take.
    Raises Cancelled, see `stoppable`.
    """
    best = dict.fromkeys(ways, float("inf"))
    with freed_memory_kept():
        for number, (name, way) in itertools.product(range(ROUNDS + 1), ways.items()):
            stop_if(_cancelled.get())
            began = time.thread_time()
            way()
            if number:
                best[name] = min(best[name], time.thread_time() - began)
    return best_of(best)


def best_of(seconds: dict[str, float]) -> str:
    """The first name unless the best is clearly faster."""
    first, winner = next(iter(seconds)), min(seconds, key=lambda name: seconds[name])
    return winner if seconds[winner] < CLEARLY * seconds[first] else first


@functools.lru_cache(maxsize=1)
def computer() -> str:
    """The processor and PyTorch, in words."""
    return f"{processor_name()}, PyTorch {torch.__version__}"


def processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or another architecture
        return platform.processor() or platform.machine()


def read_answers() -> dict[str, str]:
    """What was remembered; empty where there is nothing that can be read."""
    try:
        answers = json.loads((user_folder() / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return answers if isinstance(answers, dict) else {}


def remember(question: str, answer: str) -> None:
    """Add one answer to the file, whole or not at all; a folder that cannot be written is no error."""
    path = user_folder() / FILE_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        answers = {**read_answers(), question: answer}
        with replaced_when_whole(path) as temporary:
            temporary.write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError:
        return
