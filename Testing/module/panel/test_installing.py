"""While PyTorch is being installed, which lets clicks through, nothing else starts. The PyTorch extension is played here."""

import importlib.machinery
import sys
import types

import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents

NO_TORCH = {"code": "no_torch", "message": "PyTorch is missing.", "remedy": "Install it."}


@pytest.fixture
def during(panel, monkeypatch):
    """Sets what happens while the installer runs: a function without arguments. Notes what the panel showed then."""
    seen = types.SimpleNamespace(enabled=[], texts=[], errors=[], act=lambda: None, result="torch")

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation=False, torchVersionRequirement=None):
            import slicer

            slicer.app.processEvents()
            seen.enabled.append(panel.ui.segmentButton.enabled)
            seen.texts.append((panel.ui.messageLabel.text, panel.ui.fitLabel.text))
            seen.act()
            if isinstance(seen.result, Exception):
                raise seen.result
            return seen.result

    module = types.ModuleType("PyTorchUtils")
    module.__spec__ = importlib.machinery.ModuleSpec("PyTorchUtils", None)
    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
    panel.logic.engine.ready["problem"] = NO_TORCH
    panel._onEngineChanged()
    assert panel.ui.segmentButton.enabled, "a click offers to install it"
    return seen


def test_clicks_meanwhile_start_nothing_and_one_job_follows(panel, during):
    import slicer

    def act():
        for button in (panel.ui.segmentButton, panel.ui.installButton, panel.ui.checkButton):
            with pytest.raises(RuntimeError, match="cannot be clicked"):
                click(button)
        panel.segment()  # as a shortcut or a script might
        during.texts.append((panel.ui.messageLabel.text, ""))
        panel.exit()
        panel.enter()
        assert panel.logic.engine.state == "off", "its packages are being replaced"

    during.act = act
    headless_slicer.answer("Yes")
    click(panel.ui.segmentButton)
    assert during.enabled == [False]
    (first, second) = during.texts
    assert "PyTorch is being installed" in first[0] and "PyTorch is being installed" in first[1]
    assert "Wait until that is done" in second[0]
    assert panel.logic.activeJobs == [panel.job]
    job = panel.job
    processEvents(until=lambda: not job.isActive, timeout=240)
    assert job.state == job.FINISHED, str(job.error)
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1
    assert panel.ui.learnCollapsibleButton.enabled and panel.ui.batchCollapsibleButton.enabled


def test_a_failed_installation_is_said_and_can_be_tried_again(panel, during):
    during.result = OSError("no space left")
    headless_slicer.answer("Yes")
    click(panel.ui.segmentButton)
    assert panel.job is None
    assert "no space left" in panel.ui.messageLabel.text and "try again" in panel.ui.messageLabel.text
    processEvents(until=lambda: panel.logic.engine.state == "ready", timeout=240)
    assert panel.ui.segmentButton.enabled and panel.ui.setupCollapsibleButton.enabled


def test_nothing_is_checked_or_installed_while_a_job_runs(panel):
    scenes.choose(panel, "slow")
    scenes.select(panel, scenes.add_volume(scenes.texture((64, 64, 64))))
    click(panel.ui.segmentButton)
    scenes.open_section(panel, "setup")
    click(panel.ui.checkButton)
    assert "Wait until the segmentation is done" in panel.ui.messageLabel.text
    assert panel.logic.engine.state == "ready" and panel.job.isActive
    panel.job.cancel()
    processEvents(until=lambda: panel.job is None, timeout=60)
