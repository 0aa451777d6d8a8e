"""A click as the panel makes it: a worker process that starts, does one job and then another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from .machine import processor_seconds
from .process import ENGINE
from .subjects import FEATURES, PATCH, body_volume, random_package


class WorkerProcess:
    """A worker of its own; events and clocks."""

    def __init__(self, threads: int, preload: str | None = None) -> None:
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prosma.worker", *(["--preload", preload] if preload else [])],
            cwd=ENGINE,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ENGINE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._requests, self._events = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        self.pid = self._until("ready")["pid"]

    def clocks(self) -> dict:
        """Seconds since the start of the process."""
        return {"wall": time.perf_counter() - self.began, "processor": processor_seconds(self.pid)}

    def do(self, request: dict) -> tuple[dict, dict]:
        """The result of a request, and the seconds that it took."""
        before = self.clocks()
        self._requests.write((json.dumps(request) + "\n").encode())
        self._requests.flush()
        result = self._until("result")
        after = self.clocks()
        return result, {name: None if after[name] is None else after[name] - before[name] for name in after}

    def _until(self, event: str) -> dict:
        for line in self._events:
            found = json.loads(line)
            if found["event"] == "error":
                raise RuntimeError(f"The worker failed: {found['message']}")
            if found["event"] == event:
                return found
        raise RuntimeError("The worker ended without an answer.")

    def end(self) -> None:
        self._requests.close()
        self._process.wait()


def measure_click(shape, classes: int, threads: int, features=FEATURES, patch=PATCH) -> dict:
    """Start to ready, a first job right after it, and a second one; each with the network's own seconds."""
    with tempfile.TemporaryDirectory() as folder:
        package = random_package(Path(folder, "m"), classes, features, patch)
        worker = WorkerProcess(threads, str(package.folder))
        try:
            rows = {"start": worker.clocks()}
            for name in ("cold", "warm"):
                rows[name] = one_job(worker, Path(folder, name), package.folder, shape)
        finally:
            worker.end()
    return {"shape": list(shape), "classes": classes, **rows}


def one_job(worker: WorkerProcess, folder: Path, model: Path, shape) -> dict:
    folder.mkdir()
    np.save(folder / "image.npy", body_volume(shape).T)
    channel = {"file": "image.npy", "ijk_to_ras": np.eye(4).tolist()}
    request = {"id": folder.name, "do": "segment", "model": str(model), "folder": str(folder), "channels": [channel]}
    result, seconds = worker.do({**request, "device": "cpu", "outputs": ["probabilities"]})
    network = result["seconds"]["network"]
    rest = seconds["wall"] - network
    return {**seconds, "network_wall": network, "rest_wall": rest, "rest_share": rest / seconds["wall"]}
