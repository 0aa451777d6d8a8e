"""What a training step costs, ours beside nnU-Net's and MONAI's, and an epoch with its data: `--only training`.

Every subject lives in a process of its own, because the allocator's setting and the threads are a process's. They wait
while one of them makes a step. Ours makes one right before each step of another: a ratio is the median, over the rounds, of
another's time over that of ours just before. With one thread the time is that of the processor, so that other programs
disturb less.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any, cast

from ..fast.allocator import keep_freed_memory
from .machine import forget_peak, peak_bytes, resident_bytes
from .process import ENGINE, environment, problem_in
from .training_epoch import measure_epoch
from .training_subjects import SHAPES, STEPS

OURS = "ProSMA"
ROWS: tuple[tuple[str, dict], ...] = (
    (OURS, {"subject": "prosma", "allocator": True}),
    ("ProSMA, plain PyTorch", {"subject": "prosma", "allocator": True, "fitting": {"fast": False}}),
    ("ProSMA, plain PyTorch, allocator as it is", {"subject": "prosma", "fitting": {"fast": False}}),
    ("ProSMA, bfloat16", {"subject": "prosma", "allocator": True, "half": True}),
    ("nnU-Net, as shipped", {"subject": "nnunet"}),
    ("nnU-Net, allocator fixed", {"subject": "nnunet", "allocator": True}),
    ("MONAI AttentionUnet, as shipped", {"subject": "attention"}),
    ("MONAI AttentionUnet, allocator fixed", {"subject": "attention", "allocator": True}),
    ("MONAI UNet, as shipped", {"subject": "unet"}),
    ("MONAI UNet, allocator fixed", {"subject": "unet", "allocator": True}),
)
WARM_STEPS = 2
ITERATIONS = 20  # of an epoch that is measured


class Subject:
    """A process that makes a training step whenever it is asked to."""

    def __init__(self, name: str, task: dict, threads: int, python: str) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile(mode="w+", encoding="utf-8")  # noqa: SIM115 - closed by `end`
        self._process = subprocess.Popen(
            [python, "-m", "prosma.benchmarking.training", json.dumps(task)],
            cwd=ENGINE,
            env=environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._orders, self._answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self.problem = None if self._answer() else self._why()

    def step(self) -> dict | None:
        """Seconds of both clocks, and the process's memory; None where it has a problem."""
        if self.problem:
            return None
        with contextlib.suppress(BrokenPipeError):
            self._orders.write("step\n")
            self._orders.flush()
        found = self._answer()
        if found is None:
            self.problem = self._why()
        return found

    def _answer(self) -> dict | None:
        line = next((line for line in self._answers if line.startswith("{")), None)
        return json.loads(line) if line else None

    def _why(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        return problem_in(code, self._errors.read())

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        self._process.wait()
        self._answers.close()
        self._errors.close()


def measure_training(
    rounds: int, threads: list[int], python: str, tell: Callable[[str], None], shapes: dict | None = None, rows=ROWS
) -> list[dict]:
    """A table, as `measure_steps` gives it, for each of `shapes` and each number of threads; `epoch` is `measure_epoch`."""
    tables = []
    for name, shape in (shapes or SHAPES).items():
        for number in threads:
            tell(f"training steps: {name}, threads: {number}")
            table = measure_steps(shape, rounds, number, python, rows)
            tell(f"an epoch with its data: {name}, threads: {number}")
            task = {"epoch": True, "allocator": True, "iterations": ITERATIONS, "rounds": rounds, "shape": list(shape)}
            tables.append({**table, "epoch": epoch_apart(task, number)})
    return tables


def epoch_apart(task: dict, threads: int) -> dict:
    """`measure_epoch` in a process of its own; its `problem` where it fails."""
    command = [sys.executable, "-m", "prosma.benchmarking.training", json.dumps(task)]
    done = subprocess.run(command, cwd=ENGINE, env=environment(threads), capture_output=True, text=True, check=False)
    answers = [line for line in done.stdout.splitlines() if line.startswith('{"')]
    return json.loads(answers[-1]) if answers else {"problem": problem_in(done.returncode, done.stderr)}


def measure_steps(shape, rounds: int, threads: int, python: str, rows=ROWS, extra: dict | None = None) -> dict:
    """Median seconds of each of `rows`, how many times as long as ours just before, and memory in bytes.

    `extra` goes into every task. bfloat16 is measured on every processor; only some compute in it.
    """
    clock = "processor" if threads == 1 else "wall"
    with contextlib.ExitStack() as running:
        subjects = []
        for name, task in rows:
            interpreter = sys.executable if task["subject"] == "prosma" else python
            subject = Subject(name, {**task, "shape": list(shape), **(extra or {})}, threads, interpreter)
            running.callback(subject.end)
            subjects.append(subject)
        ours, pairs = subjects[0], list[list[tuple[dict, dict]]]([] for _ in rows)
        for _ in range(rounds):
            for number, subject in enumerate(subjects):
                before = ours.step()
                after = subject.step() if number else before
                if before and after:
                    pairs[number].append((before, after))
    return {
        "shape": list(shape),
        "threads": threads,
        "clock": clock,
        "rounds": rounds,
        "rows": [row_of(subject, found, clock) for subject, found in zip(subjects, pairs, strict=True)],
    }


def row_of(subject: Subject, pairs: list[tuple[dict, dict]], clock: str) -> dict:
    if subject.problem or not pairs:
        return {"name": subject.name, "problem": subject.problem or "ours has no result"}
    return {
        "name": subject.name,
        "seconds": round(statistics.median(after[clock] for _, after in pairs), 4),
        "best_seconds": round(min(after[clock] for _, after in pairs), 4),
        "ratio": round(statistics.median(after[clock] / before[clock] for before, after in pairs), 3),
        "peak_bytes": max(after["peak_bytes"] for _, after in pairs),
    }


def serve(task: dict) -> None:
    """Prepare a subject; then, for each line that comes, a step, and an answer. Or an epoch, and one answer."""
    if task.get("allocator"):
        keep_freed_memory()
    if task.get("epoch"):
        answer(measure_epoch(task))
        return
    step = STEPS[task["subject"]](task)
    before = resident_bytes()
    for _ in range(WARM_STEPS):
        step()
    answer({"ready": True})
    for _ in sys.stdin:
        forget_peak()
        began = time.process_time(), time.perf_counter()
        step()
        spent = time.process_time() - began[0], time.perf_counter() - began[1]
        answer({"processor": spent[0], "wall": spent[1], "peak_bytes": peak_bytes() - before})


def answer(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
