"""One measurement in a process of its own: `python -m prosma.benchmarking.process TASKS`, tasks and results as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from ..fast.allocator import keep_freed_memory, release_freed_memory
from .machine import forget_peak, peak_bytes, resident_bytes
from .subjects import SUBJECTS, Sampled, body_volume

ENGINE = Path(__file__).resolve().parents[2]  # processes start there, and import nothing from the user's folder


def measure(task: dict) -> dict:
    """One whole volume.

    `task`: `subject` (prosma, monai, nnunet), `shape`, `classes`, and optionally `allocator` (True: with malloc told to
    keep its memory, which `prosma` always does), `timed_tiles` (None for all), `overlap`, `shortcuts`, `patch`,
    `features`, `field_grid`. Seconds are given for both clocks; memory in bytes above that before the run.
    """
    if task.get("allocator"):
        keep_freed_memory()
    volume = body_volume(task["shape"])
    network, run = SUBJECTS[task["subject"]](volume, task)
    sampled = Sampled(network, task.get("timed_tiles"))
    if task["subject"] == "prosma":  # has told malloc to keep memory: what the preparation left does not count as used
        release_freed_memory()
    forget_peak()
    before = resident_bytes()
    began = time.process_time(), time.perf_counter()
    run()
    spent = time.process_time() - began[0], time.perf_counter() - began[1]
    result = {**task, "voxels": volume.size, "tiles": sampled.calls, "timed": len(sampled.seconds)}
    for clock, name in enumerate(("processor", "wall")):
        network_spent, network_whole = sampled.cost(clock)
        result[f"{name}_network"] = network_whole
        result[f"{name}_rest"] = spent[clock] - network_spent
        result[f"{name}_seconds"] = result[f"{name}_network"] + result[f"{name}_rest"]
    result["peak_bytes"] = peak_bytes() - before
    result["process_bytes"] = peak_bytes()
    return result


def measured_apart(tasks: list[dict], threads: int, python: str = sys.executable) -> list[dict]:
    """`measure` of each task, one after the other, in one new process; where it fails, rows with a `problem`."""
    command = [python, "-m", "prosma.benchmarking.process", json.dumps(tasks)]
    done = subprocess.run(command, cwd=ENGINE, env=environment(threads), capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for task in tasks[len(rows) :]:
        rows.append({**task, "problem": problem_in(done.returncode, done.stderr)})
    return rows


def environment(threads: int) -> dict[str, str]:
    """Of a new process, with this engine.

    How threads wait is for each to decide: what `import_torch` has set in this process does not reach others' programs.
    """
    return {
        **{name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")},
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join([str(ENGINE), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def problem_in(code: int, errors: str) -> str:
    """Why a process ended without a result, in one line."""
    if code < 0:
        return f"it was ended by signal {-code}"
    line = (errors.strip().splitlines() or ["it said nothing"])[-1]
    missing = line.removeprefix("ModuleNotFoundError: No module named ")
    return f"{missing} is not installed here" if missing != line else line


def main() -> None:
    for task in json.loads(sys.argv[1]):
        print(json.dumps(measure(task)), flush=True)


if __name__ == "__main__":
    main()
