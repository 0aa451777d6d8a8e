"""Cancel, crashes, refusals: the scene is then what it was before."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents


@pytest.fixture
def running(panel):
    """A job of some seconds whose network has begun, and the scene before the click."""
    scenes.choose(panel, "slow")
    volume = scenes.add_volume(scenes.texture((128, 128, 128)), "long")
    scenes.select(panel, volume)
    before = scenes.serialised()
    click(panel.ui.segmentButton)
    job = panel.job
    processEvents(until=lambda: job.stage == "Segmenting" or not job.isActive)
    assert job.isActive, str(job.error)
    return job, before


def test_the_button_says_cancel_and_shows_stage_and_progress(panel, running):
    job, _before = running
    processEvents(until=lambda: job.secondsLeft is not None)
    assert panel.ui.segmentButton.text == "Cancel"
    assert panel.ui.progressBar.isVisible()
    assert panel.ui.progressBar.value > 0
    assert "Segmenting" in panel.ui.stageLabel.text
    assert "left" in panel.ui.stageLabel.text
    click(panel.ui.segmentButton)
    assert panel.ui.segmentButton.text == "Segment"
    assert not panel.ui.progressBar.isVisible()


def test_cancel_returns_at_once_and_changes_nothing(panel, running):
    job, before = running
    click(panel.ui.segmentButton)
    assert panel.ui.segmentButton.text == "Segment", "nothing is waited for"
    assert job.state == job.CANCELLED
    processEvents()
    assert panel.ui.segmentButton.enabled
    assert scenes.serialised() == before
    scenes.choose(panel, "tiny")
    scenes.segmented(panel, scenes.add_volume(scenes.texture((24, 24, 24)), "next"))


def test_a_killed_engine_is_reported_with_the_reason_and_the_next_click_works(panel, running):
    job, before = running
    os.kill(panel.logic.engine.processId, signal.SIGKILL)
    processEvents(until=lambda: not job.isActive)
    assert job.state == job.FAILED
    assert job.error.code == "engine_stopped"
    assert "ended from outside" in panel.ui.messageLabel.text
    assert "runs out of memory does this" in panel.ui.messageLabel.text
    assert "Report the problem" not in panel.ui.messageLabel.text
    assert scenes.serialised() == before
    scenes.choose(panel, "tiny")
    scenes.segmented(panel, scenes.add_volume(scenes.texture((24, 24, 24)), "next"))


def test_an_engine_that_cannot_be_started_is_reported(panel, tmp_path, monkeypatch):
    python = tmp_path / "PythonSlicer"
    python.write_text("#!/no/such/interpreter")
    python.chmod(0o755)
    scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
    panel.logic.engine.stop()
    with monkeypatch.context() as environment:
        environment.setenv("PATH", str(tmp_path))
        job = scenes.click_segment(panel)
    assert job.error.code == "engine_stopped"
    assert "could not be started" in panel.ui.messageLabel.text
    assert scenes.click_segment(panel).state == job.FINISHED


def test_temporary_files_are_gone_afterwards(panel, running):
    import slicer

    click(panel.ui.segmentButton)
    processEvents(until=lambda: not any(name.startswith("prosma-") for name in os.listdir(slicer.app.temporaryPath)))


def test_closing_the_scene_cancels_the_job(panel, running):
    import slicer

    job, _before = running
    slicer.mrmlScene.Clear(False)
    processEvents()
    assert job.state == job.CANCELLED
    assert "closed" in job.error.message
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    scenes.choose(panel, "tiny")
    scenes.segmented(panel, scenes.add_volume(scenes.texture((24, 24, 24)), "next"))


def test_removing_the_volume_cancels_the_job_and_says_so(panel, running):
    import slicer

    job, _before = running
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("long"))
    processEvents()
    assert job.state == job.CANCELLED
    assert "'long' was removed" in panel.ui.messageLabel.text
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_reloading_the_module_cancels_the_job_and_ends_the_engine(panel, running):
    import slicer

    job, before = running
    process = panel.logic.engine.processId
    slicer.modules.ProSMASegmentationWidget.onReload()
    processEvents()
    assert job.state == job.CANCELLED
    assert not alive(process)
    assert scenes.serialised() == before
    assert isinstance(job.error, classOfErrors()), "open Segment Editors would no longer catch the errors of jobs"
    renewed = slicer.modules.ProSMASegmentationWidget.panel
    assert renewed is not panel
    scenes.choose(renewed, "tiny")
    scenes.segmented(renewed, scenes.add_volume(scenes.texture((24, 24, 24)), "next"))


def classOfErrors():
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    return ProSMAError


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


# ---- what is refused


def nan_only():
    return scenes.add_volume(np.full((20, 20, 20), np.nan, np.float32))


def constant():
    return scenes.add_volume(np.zeros((20, 20, 20), np.int16))


def empty():
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")


def complex_numbers():
    return scenes.add_volume(np.ones((20, 20, 20, 2), np.float32), vector=True)


def sheared():
    matrix = np.eye(4)
    matrix[1, 2] = 0.3
    return scenes.add_volume(scenes.texture((20, 20, 20)), ijk_to_ras=matrix)


def four_dimensional():
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "frames")


def labels():
    import slicer

    volume = scenes.add_volume(scenes.texture((20, 20, 20)))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    node.CopyContent(volume)
    return node


def single_slice():
    return scenes.add_volume(scenes.texture((1, 40, 40)))


def nothing():
    return None


BAD_VOLUMES = {
    nan_only: "NaN",
    constant: "same value",
    empty: "no voxels",
    complex_numbers: "2 values in each voxel",
    sheared: "sheared",
    four_dimensional: "4D",
    labels: "label map",
    single_slice: "single slice",
    nothing: "No volume",
}


@pytest.mark.parametrize("make", BAD_VOLUMES, ids=lambda make: make.__name__)
def test_a_volume_that_cannot_be_segmented_is_refused_in_words(panel, make):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    volume = make()
    before = scenes.serialised()
    with pytest.raises(ProSMAError, match=BAD_VOLUMES[make]) as refused:
        panel.logic.segment(volume, model="tiny")
    assert refused.value.code in ("bad_input", "does_not_fit")
    assert scenes.serialised() == before


@pytest.mark.parametrize("make", [empty, complex_numbers, sheared, single_slice], ids=lambda make: make.__name__)
def test_the_panel_says_before_the_click_why_it_cannot_run(panel, make):
    scenes.select(panel, make())
    assert not panel.ui.segmentButton.enabled
    assert BAD_VOLUMES[make] in panel.ui.segmentButton.toolTip
    assert BAD_VOLUMES[make] in panel.ui.fitLabel.text


def changed_byte(folder):
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def missing_label(folder):
    edit(folder, labels=[{"value": 1, "name": "one", "color": [1, 2, 3]}])


def pickle(folder):
    (folder / "weights.safetensors").write_bytes(b"\x80\x04\x95 a pickle, which could run code")


def newer_schema(folder):
    edit(folder, schema=99)


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


BAD_PACKAGES = {changed_byte: "sha256", missing_label: "out_channels", pickle: "pickle", newer_schema: "newer"}


def added_and_shown(panel):
    """A new volume, once the panel's selector has taken it, which is a moment later."""
    volume = scenes.add_volume(scenes.texture((20, 20, 20)))
    processEvents(until=lambda: panel.ui.inputVolumeSelector.currentNode() is volume)
    return volume


@pytest.mark.parametrize("spoil", BAD_PACKAGES, ids=lambda spoil: spoil.__name__)
def test_a_broken_package_is_refused_by_python_and_by_the_picker(panel, models, tmp_path, spoil):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    folder = tmp_path / "package"
    shutil.copytree(models.tiny.folder, folder)
    spoil(folder)
    volume = added_and_shown(panel)
    before = scenes.serialised()
    with pytest.raises(ProSMAError, match=BAD_PACKAGES[spoil]):
        panel.logic.segment(volume, model=folder)
    headless_slicer.answer("From a folder...", str(folder))
    scenes.add_model(panel)
    assert BAD_PACKAGES[spoil] in panel.ui.messageLabel.text
    assert scenes.serialised() == before


def test_weights_that_break_after_they_were_listed_are_reported_by_the_engine(panel, models, tmp_path):
    folder = models.home / "models" / "soon-broken"
    shutil.copytree(models.tiny.folder, folder)
    edit(folder, id="soon-broken")
    panel.logic.library.refresh()
    try:
        changed_byte(folder)
        volume = added_and_shown(panel)
        before = scenes.serialised()
        job = panel.logic.segment(volume, model="soon-broken", wait=False)
        processEvents(until=lambda: not job.isActive)
        assert job.error.code == "bad_model"
        assert "sha256" in str(job.error)
        assert scenes.serialised() == before
    finally:
        shutil.rmtree(folder)
        panel.logic.library.refresh()
