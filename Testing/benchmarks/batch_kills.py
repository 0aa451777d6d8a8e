"""kill -9 at random moments of any process of a batch: is any case lost, or done twice?

    python Testing/benchmarks/batch_kills.py --times 30 --seed 1 [--outputs] [--json FILE]

Small volumes and a model with random weights; with --outputs DICOM series, of which each becomes a DICOM segmentation with an
RTSTRUCT, a label map, a preview, a surface and probabilities beside it. Each time a batch is started, by turns as two plain
processes on one folder, with `--workers 2`, and on a Dask cluster of two workers; at a random moment one of its processes,
whichever it is, is killed (of the cluster: a worker, a process of its own, or the command, not the scheduler). Where a
command did not end well the same call is made again. Then every result must have the bytes that one undisturbed process gave
it, no claim and no part of a file may be left, and no case may have been computed twice, but for one whose process was killed
between its line in the records and its file.
"""
# ruff: noqa: E402

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "training")]

from dicom_writing import noise, without_times, write_series

from prosma.batch.records import RECORDS
from prosma.image.writing import write_labels
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

CASES, TIMEOUT = 12, 300
ALL_OUTPUTS = ["--format", ".dcm"]
for ending in (".rtstruct.dcm", ".seg.nrrd", ".preview.png", ".stl", ".probabilities.nrrd"):
    ALL_OUTPUTS += ["--also", ending]
KINDS = ("plain", "workers", "dask")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "training")}


class Trials:
    """A folder of images, a model, and what one undisturbed process makes of them."""

    def __init__(self, folder: Path, cases: int = CASES, outputs: bool = False) -> None:
        self.folder = folder
        self.outputs = ALL_OUTPUTS if outputs else []
        self.model = make_tiny_package(folder / "model", spacing=None, patch_size=[16, 16, 16]).folder
        self.images = folder / "images"
        self.images.mkdir()
        for seed in range(cases):
            if outputs:
                edit = functools.partial(numbered, case=seed)
                write_series(self.images / f"case{seed:02d}", noise((12, 12, 14), seed=seed), edit=edit)
                continue
            image = smooth_volume((14, 12, 12), seed=seed)
            voxels = (image.array[0] - image.array.min()).astype(np.uint16)
            write_labels(
                self.images / f"case{seed:02d}.nrrd", voxels, image, [{"value": 1, "name": "x", "color": [0] * 3}]
            )
        assert self.started(folder / "alone").wait(TIMEOUT) == 0
        self.expected = digests(folder / "alone")
        assert len(self.expected) == cases * (6 if outputs else 1)
        self.cluster: list[subprocess.Popen] = []
        self.scheduler = folder / "scheduler.json"

    def started(self, out: Path, *more: str) -> subprocess.Popen:
        words = [
            str(word) for word in (self.images, "-m", self.model, "-o", out, "--device", "cpu", *self.outputs, *more)
        ]
        command = [sys.executable, "-m", "prosma.cli", "segment", *words]
        return subprocess.Popen(
            command, cwd=ROOT / "training", env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def start_cluster(self) -> None:
        dask = [sys.executable, "-m", "dask"]
        common = ["--scheduler-file", str(self.scheduler), "--no-dashboard"]
        scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *common]
        worker = [*dask, "worker", "--nthreads", "1", "--nworkers", "2", "--memory-limit", "0", *common]
        for command in (scheduler, [*worker, "--local-directory", str(self.folder)]):
            log = subprocess.DEVNULL
            self.cluster.append(subprocess.Popen(command, env=ENVIRONMENT, cwd=self.folder, stdout=log, stderr=log))
            deadline = time.monotonic() + TIMEOUT
            while not self.scheduler.exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def close(self) -> None:
        for process in reversed(self.cluster):
            for pid in descendants(process.pid):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()

    def start(self, kind: str, out: Path) -> list[subprocess.Popen]:
        if kind == "plain":
            return [self.started(out) for _ in range(2)]
        more = ["--workers", "2"] if kind == "workers" else ["--scheduler", str(self.scheduler)]
        return [self.started(out, *more)]

    def victims(self, kind: str, commands: list[subprocess.Popen]) -> list[int]:
        """All processes that may be killed now."""
        found = [pid for command in commands for pid in (command.pid, *descendants(command.pid))]
        if kind == "dask":
            found += descendants(self.cluster[1].pid)
        return found

    def one(self, kind: str, out: Path, results: int, moment: float, choose: random.Random) -> dict:
        """Kill something of one batch, `moment` seconds after so many results are there; what came of it."""
        commands = self.start(kind, out)
        deadline = time.monotonic() + TIMEOUT
        while len(files_in(out)) < results and any(command.poll() is None for command in commands):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(moment)
        victims = self.victims(kind, [command for command in commands if command.poll() is None])
        victim = choose.choice(victims) if victims else None
        name = name_of(victim) if victim else "nothing: all had ended"
        if victim:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        done_by_then = len(files_in(out))
        codes = [command.wait(TIMEOUT) for command in commands]
        again = 0
        while codes[-1] != 0 and again < 3:
            codes.append(self.started(out).wait(TIMEOUT))
            again += 1
        lines = [json.loads(line) for line in (out / RECORDS).read_text().splitlines() if line.endswith("}")]
        times = Counter(line["output"] for line in lines if "sha256" in line)
        left = sorted(path.name for path in out.iterdir() if path.name not in (*self.expected, RECORDS))
        return {
            "kind": kind,
            "moment": f"{moment:.2f} s after {results} results",
            "killed": name,
            "results_by_then": done_by_then,
            "codes": codes,
            "right": digests(out) == self.expected,
            "lines_twice": sum(count - 1 for count in times.values()),
            "failures": sum("error" in line for line in lines),
            "left": left,
        }


def numbered(ds, _k: int, case: int) -> None:
    """Give the images of each case a series of their own."""
    ds.SeriesInstanceUID = ds.FrameOfReferenceUID = f"1.2.826.0.1.3680043.8.498.99.{case + 1}"
    ds.StudyInstanceUID = f"{ds.SeriesInstanceUID}.1"


def digests(folder: Path) -> dict[str, str]:
    """Of all results and files beside them."""
    return {path.name: hashlib.sha256(without_times(path)).hexdigest() for path in files_in(folder)}


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("[!.]*") if path.name != RECORDS]


def descendants(pid: int) -> list[int]:
    """Children of a process, whichever of its threads started them, and theirs; none that has ended already."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        found = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []
    living = [child for child in found if command_of(child)]
    return [each for child in living for each in (child, *descendants(child))]


def command_of(pid: int) -> str:
    """The command of a process; empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def name_of(pid: int) -> str:
    """What a process is, by its command."""
    words = command_of(pid)
    for part, name in (
        ("pool", "process of the pool"),
        ("image_reader", "process that reads images"),
        ("spawn_main", "Dask worker"),
        ("resource_tracker", "Dask's resource tracker"),
        ("prosma.cli", "command"),
    ):
        if part in words:
            return name
    return words[:80] or "gone already"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--outputs", action="store_true", help="DICOM series, with all kinds of outputs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    choose = random.Random(options.seed)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), outputs=options.outputs)
        try:
            trials.start_cluster()
            for number in range(options.times):
                kind = KINDS[number % len(KINDS)]
                results = choose.randrange(len(trials.expected))
                row = trials.one(kind, Path(folder, f"out{number}"), results, choose.random() / 2, choose)
                rows.append(row)
                print(json.dumps(row), flush=True)
        finally:
            trials.close()
    lost = sum(not row["right"] for row in rows)
    twice = sum(row["lines_twice"] > 1 for row in rows)
    summary = {
        "times": len(rows),
        "killed": dict(Counter(row["killed"] for row in rows)),
        "with a wrong or missing result": lost,
        "with a case computed twice": twice,
        "with a second line of the case that was at work": sum(row["lines_twice"] == 1 for row in rows),
        "with files left": sum(bool(row["left"]) for row in rows),
        "with failures in the records": sum(row["failures"] > 0 for row in rows),
    }
    print(json.dumps(summary, indent=1))
    if options.json:
        options.json.write_text(json.dumps({"summary": summary, "rows": rows}, indent=1) + "\n")
    return int(bool(lost or twice))


if __name__ == "__main__":
    sys.exit(main())
