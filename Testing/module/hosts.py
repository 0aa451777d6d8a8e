"""Other Slicers, as processes: host.py with what it prints."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

HOST = Path(__file__).parent / "host.py"
SECONDS = 240  # torch is imported; on a busy machine that takes its time
NO_TORCH = """
import importlib.abc, sys

class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, NoTorch())
"""  # as a sitecustomize.py


def run_host(environment, what, model):
    """Run host.py to its end; the facts that it printed."""
    done = subprocess.run(
        [sys.executable, str(HOST), what, model],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            facts.update(json.loads(line))
    return facts


def started_host(environment, what, model):
    """Start host.py and wait until its run is under way; ``process``, and ``facts`` that it printed so far."""
    process = subprocess.Popen(
        [sys.executable, str(HOST), what, model], env=environment, stdout=subprocess.PIPE, text=True
    )
    facts = {}
    for line in process.stdout:
        if line.startswith("{"):
            facts.update(json.loads(line))
        if "stage" in facts:
            return SimpleNamespace(process=process, facts=facts)
    raise AssertionError(f"the host ended with code {process.wait()}")


def exists(process):
    """Whether a process runs; one that has ended and waits to be collected does not count."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
