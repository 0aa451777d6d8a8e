"""While PyTorch is being installed, which lets clicks through, nothing else starts. The PyTorch extension is played here."""

import importlib.machinery
import importlib.metadata
import sys
import types

import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents
from remedies import tries

NO_TORCH = {"code": "no_torch", "message": "PyTorch is missing.", "remedy": "Install it."}


@pytest.fixture
def during(panel, monkeypatch):
    """Sets what happens while the installer runs: a function without arguments. Notes what the panel showed then."""
    seen = types.SimpleNamespace(enabled=[], texts=[], act=lambda: None, result="torch", missing=False)

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
    yield seen
    if panel.logic.engine.problem is NO_TORCH:  # the same engine still runs
        panel.logic.engine.ready["problem"] = None
        panel._onEngineChanged()


@tries("TorchInstallation.py: PyTorch is being installed")
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


@tries("SetupCheck.py: PyTorch could not be installed", "SetupCheck.py: PyTorch was not installed")
def test_a_failed_installation_is_said_and_can_be_tried_again(panel, during, monkeypatch):
    during.result = OSError("no space left")
    headless_slicer.answer("Yes")
    click(panel.ui.segmentButton)
    assert panel.job is None
    assert "no space left" in panel.ui.messageLabel.text and "try again" in panel.ui.messageLabel.text
    processEvents(until=lambda: panel.logic.engine.state == "ready", timeout=240)
    assert panel.ui.segmentButton.enabled and panel.ui.setupCollapsibleButton.enabled
    during.result = None
    monkeypatch.setattr(panel.logic.engine, "stop", lambda: None)  # a start of it takes seconds, and was seen above
    version = importlib.metadata.version
    with monkeypatch.context() as context:  # an installer that ends without a word, and torch is not there
        context.setattr(importlib.metadata, "version", lambda name: version("nothing" if name == "torch" else name))
        install(panel)
    assert panel.ui.messageLabel.text == "PyTorch was not installed. Click Install PyTorch to try again."
    install(panel)
    assert panel.ui.messageLabel.text == ""


def install(panel):
    """Click Install PyTorch, as where the engine says that it is missing, and wait for the engine that comes after it."""
    processEvents(until=lambda: panel.logic.engine.state == "ready", timeout=240)
    panel.logic.engine.ready["problem"] = NO_TORCH
    panel._onEngineChanged()
    scenes.open_section(panel, "setup")
    click(panel.ui.installButton)


@tries("SetupCheck.py: Slicer's extension 'PyTorch' is missing")
def test_without_slicers_extension_it_says_where_to_get_it(panel, during, monkeypatch):
    monkeypatch.setattr(panel.logic.engine, "stop", lambda: None)
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "PyTorchUtils", None)
        install(panel)
    assert "Install 'PyTorch' in the Extensions Manager, restart Slicer" in panel.ui.messageLabel.text
    install(panel)  # the extension is there now, as after the restart
    assert panel.ui.messageLabel.text == ""


@tries("SetupCheck.py: The packages for fine-tuning could not be installed")
def test_packages_for_fine_tuning_that_cannot_be_installed(panel, monkeypatch, tmp_path):
    import slicer

    from ProSMASegmentationLib.Learn import FineTuning

    def offline(_requirements, **_options):
        raise OSError("no connection")

    def online(requirements, **_options):
        (tmp_path / f"{requirements[0]}.py").write_text("")

    monkeypatch.setattr(FineTuning, "PACKAGES", {"prosma_test_learner": "prosma_test_learner"})
    monkeypatch.syspath_prepend(tmp_path)
    scenes.open_section(panel, "learn")
    panel.ui.trainingFolderPath.currentPath = str(tmp_path / "cases")
    for install, said in (
        (offline, "no connection Check the internet connection and the free disk space, and try again"),
        (online, "There is no case in"),
    ):
        monkeypatch.setattr(slicer.packaging, "pip_ensure", install, raising=False)
        headless_slicer.answer("Yes")
        click(panel.ui.fineTuneButton)
        assert said in panel.ui.fineTuneLabel.text


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
