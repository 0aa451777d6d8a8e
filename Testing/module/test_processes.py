"""Two processes: Slicer's, without torch, and the engine's, which never survives Slicer."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launcher import write_launcher

HOST = Path(__file__).parent / "host.py"
NO_TORCH = """
import importlib.abc, sys

class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, NoTorch())
"""


INSTALLER = """
from pathlib import Path

class PyTorchUtilsLogic:
    def installTorch(self, askConfirmation=False, torchVersionRequirement=None):
        Path(__file__).with_name("sitecustomize.py").unlink()
        return "torch"
"""


@pytest.fixture
def environment(models, tmp_path):
    """For a host process: its models, and a folder of Python files that come before all others, also in the engine."""
    paths = os.pathsep.join([str(tmp_path), str(HOST.parents[1])])
    programs = os.pathsep.join([str(write_launcher(tmp_path / "bin", paths=[tmp_path])), os.environ["PATH"]])
    own = {"PROSMA_HOME": str(models.home), "PYTHONPATH": paths, "PATH": programs, "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **own}


def run_host(environment, what, model):
    done = subprocess.run(
        [sys.executable, str(HOST), what, model],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            facts.update(json.loads(line))
    return facts


def exists(process):
    """Whether a process runs; one that has ended and waits to be collected does not count."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_slicers_process_segments_without_ever_importing_torch(environment):
    facts = run_host(environment, "segment", "tiny")
    assert facts["state"] == "finished", facts
    assert facts["torch"] is False
    assert not exists(facts["engine"]), "the engine should end with Slicer"


def test_without_torch_the_panel_loads_says_so_and_offers_the_way_out(environment, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    facts = run_host(environment, "segment", "tiny")
    assert facts["problem"]["code"] == "no_torch"
    assert not facts["enabled"]
    assert "PyTorch" in facts["tip"]
    assert "missing" in facts["report"]
    assert "Extensions Manager" in facts["message"], "the install button says what is needed for it to work"


def test_a_click_without_torch_asks_installs_it_and_goes_on(environment, tmp_path):
    """The PyTorch extension is played by a file that makes torch importable again."""
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    (tmp_path / "PyTorchUtils.py").write_text(INSTALLER)
    facts = run_host(environment, "segment", "tiny")
    assert facts["problem"]["code"] == "no_torch"
    assert facts["enabled"]
    assert any("PyTorch" in question for question in facts["asked"])
    assert facts["state"] == "finished", facts


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_a_killed_slicer_leaves_no_engine_behind(environment):
    host = subprocess.Popen(
        [sys.executable, str(HOST), "linger", "slow"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        facts = {}
        while "stage" not in facts:
            facts.update(json.loads(host.stdout.readline()))
        assert exists(facts["engine"])
    finally:
        host.send_signal(signal.SIGKILL)
        host.wait()
    end = time.monotonic() + 5
    while exists(facts["engine"]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not exists(facts["engine"])
