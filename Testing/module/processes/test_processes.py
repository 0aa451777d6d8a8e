"""Two processes: Slicer's, without torch, and the engine's, which never survives Slicer."""

import time
from pathlib import Path

import pytest
from hosts import NO_TORCH, exists, run_host, started_host

INSTALLER = """
from pathlib import Path

class PyTorchUtilsLogic:
    def installTorch(self, askConfirmation=False, torchVersionRequirement=None):
        Path(__file__).with_name("engine").joinpath("sitecustomize.py").unlink()
        import torch  # as the real one ends
        return torch
"""


def test_slicers_process_segments_without_ever_importing_torch(environment):
    facts = run_host(environment, "segment", "tiny")
    assert facts["state"] == "finished", facts
    assert facts["torch"] is False
    assert not exists(facts["engine"]), "the engine should end with Slicer"


def test_without_torch_the_panel_loads_says_so_and_offers_the_way_out(environment, tmp_path):
    (tmp_path / "engine" / "sitecustomize.py").write_text(NO_TORCH)
    facts = run_host(environment, "segment", "tiny")
    assert facts["problem"]["code"] == "no_torch"
    assert not facts["enabled"]
    assert "PyTorch" in facts["tip"]
    assert "missing" in facts["report"]
    assert "Extensions Manager" in facts["message"], "the install button says what is needed for it to work"


def test_a_click_without_torch_asks_installs_it_and_goes_on(environment, tmp_path):
    """The PyTorch extension is played by a file that makes torch importable again."""
    (tmp_path / "engine" / "sitecustomize.py").write_text(NO_TORCH)
    (tmp_path / "PyTorchUtils.py").write_text(INSTALLER)
    facts = run_host(environment, "segment", "tiny")
    assert facts["problem"]["code"] == "no_torch"
    assert facts["enabled"]
    assert any("PyTorch" in question for question in facts["asked"])
    assert facts["state"] == "finished", facts
    assert facts["torch"] is False, "the installer's import of torch into Slicer's process is kept out"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_a_killed_slicer_leaves_no_engine_behind(environment):
    host = started_host(environment, "linger", "slow")
    assert exists(host.facts["engine"])
    host.process.kill()
    host.process.wait()
    end = time.monotonic() + 60
    while exists(host.facts["engine"]) and time.monotonic() < end:
        time.sleep(0.05)
    assert not exists(host.facts["engine"])
