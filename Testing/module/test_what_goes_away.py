"""Volumes, results, models and scenes that go away under what the panel is doing: said in words, the rest stays whole."""

import shutil

import numpy as np
import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents, qt
from tiny_model import make_tiny_package

SECONDS = 120
SLOW = pytest.mark.slow  # combinations beyond one of each kind


@pytest.fixture
def doomed(models, panel):
    """A model that a test may remove from the disk."""
    package = make_tiny_package(models.home / "models" / "doomed", id="doomed", name="Doomed")
    panel.logic.library.refresh()
    panel._input.picker.fill()
    yield package
    shutil.rmtree(package.folder, ignore_errors=True)
    panel.logic.library.refresh()
    panel._input.picker.fill()


@pytest.fixture
def result(panel):
    """(panel, volume, segmentation node) after a run, with all sections open."""
    volume = scenes.add_volume(scenes.texture((60, 62, 64)), "scan")
    node = scenes.segmented(panel, volume)
    for section in (panel.ui.moreCollapsibleButton, panel.ui.learnCollapsibleButton, panel.ui.batchCollapsibleButton):
        if section.collapsed:
            click(section)
    scenes.open_correct(panel, "editor")
    return panel, volume, node


def nodes_of(kind):
    import slicer

    return slicer.util.getNodesByClass(kind)


def take_away(what, volume, node):
    import slicer

    if what == "scene":
        headless_slicer.closeScene()
    elif what == "segments":
        node.GetSegmentation().RemoveAllSegments()
    else:
        slicer.mrmlScene.RemoveNode({"volume": volume, "result": node}[what])


@pytest.mark.parametrize(("what", "said"), [("volume", "'scan' was removed"), ("scene", "The scene was closed")])
def test_under_a_gate_map(result, what, said):
    panel, volume, node = result
    ui = panel.ui
    ui.outputKindComboBox.setCurrentIndex(ui.outputKindComboBox.findData("gate"))
    click(ui.createVolumeButton)
    assert ui.createVolumeButton.text == "Cancel"
    take_away(what, volume, node)
    processEvents(until=lambda: panel._outputs.job is None, timeout=SECONDS)
    assert said in ui.outputVolumeLabel.text
    assert ui.createVolumeButton.text == "Create volume" and ui.createVolumeButton.enabled
    assert not any(each.GetAttribute("ProSMA.output") for each in nodes_of("vtkMRMLScalarVolumeNode"))


@pytest.mark.parametrize(
    ("output", "what"),
    [
        ("entropy", "scene"),
        ("largest", "segments"),
        ("measure", "result"),
        pytest.param("entropy", "result", marks=SLOW),
        pytest.param("largest", "result", marks=SLOW),
        pytest.param("largest", "scene", marks=SLOW),
        pytest.param("measure", "scene", marks=SLOW),
        pytest.param("measure", "segments", marks=SLOW),
    ],
)
def test_under_an_output(result, monkeypatch, what, output):
    from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask

    monkeypatch.setattr(EventLoopTask, "MILLISECONDS_BETWEEN_TURNS", 200)  # else the click may see it done
    panel, volume, node = result
    ui = panel.ui
    ui.outputKindComboBox.setCurrentIndex(ui.outputKindComboBox.findData("entropy"))
    button, label = {
        "entropy": (ui.createVolumeButton, ui.outputVolumeLabel),
        "largest": (ui.largestPartButton, ui.largestPartLabel),
        "measure": (ui.measureButton, ui.measuresLabel),
    }[output]
    click(button)
    assert label.text == "Working..." and not button.enabled
    take_away(what, volume, node)
    processEvents(until=lambda: not panel._outputs._tasks, timeout=SECONDS)
    assert "removed" in label.text and "NoneType" not in label.text
    assert button.enabled
    assert not nodes_of("vtkMRMLTableNode")
    assert not any(each.GetAttribute("ProSMA.output") for each in nodes_of("vtkMRMLScalarVolumeNode"))
    if (output, what) == ("measure", "segments"):
        click(button)
        assert "has no segments" in label.text


@pytest.mark.parametrize(
    ("what", "when", "said"),
    [
        ("volume", "reading", "'scan' was removed while the models were being compared"),
        pytest.param("scene", "reading", "'scan' was removed while the models were being compared", marks=SLOW),
        pytest.param("volume", "running", "'scan' was removed while it was being segmented", marks=SLOW),
        ("scene", "running", "The scene was closed"),
    ],
)
def test_under_a_comparison(result, tmp_path, what, when, said):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    panel, volume, node = result
    panel.logic.saveTrainingCase(node, tmp_path / "cases")
    comparison = panel.logic.compareOnLastCase(tmp_path / "cases", "tiny", "coarse", wait=False)
    if when == "running":  # without a turn of the event loop it still reads
        processEvents(until=lambda: comparison.job is not None, timeout=SECONDS)
    before = len(nodes_of("vtkMRMLSegmentationNode"))
    take_away(what, volume, node)
    with pytest.raises(ProSMAError, match=said):
        comparison.wait()
    assert len(nodes_of("vtkMRMLSegmentationNode")) == (0 if what == "scene" else before)
    scenes.choose(panel, "tiny")  # a new scene begins with the first model, which does not fit this image
    scenes.segmented(panel, scenes.add_volume(scenes.texture((20, 20, 20)), "next"))


def test_a_comparison_can_be_cancelled_while_it_reads(result, tmp_path):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    panel, _volume, node = result
    panel.logic.saveTrainingCase(node, tmp_path / "cases")
    comparison = panel.logic.compareOnLastCase(tmp_path / "cases", "tiny", "coarse", wait=False)
    comparison.cancel()
    with pytest.raises(ProSMAError, match="cancelled"):
        comparison.wait()
    assert not comparison.nodes


@pytest.mark.slow
def test_a_removed_model_is_said_before_and_after_the_click(result, doomed):
    panel, _volume, node = result
    scenes.choose(panel, "doomed")
    processEvents(until=lambda: panel.ui.segmentButton.enabled, timeout=SECONDS)
    before = [scenes.voxels(node, each, None).copy() for each in scenes.segment_ids(node)]
    shutil.rmtree(doomed.folder)
    job = scenes.click_segment(panel, SECONDS)
    assert job.state == job.FAILED and job.error.code == "bad_model"
    assert "Choose another model or install this one again" in panel.ui.messageLabel.text
    click(panel.ui.batchButton)
    queue = panel.batch.queue
    processEvents(until=lambda: not queue.isActive, timeout=SECONDS)
    assert queue.state == queue.FAILED
    assert "Choose another model or install this one again" in panel.ui.batchLabel.text
    click(panel.ui.fineTuneButton)
    assert "Doomed" in panel.ui.fineTuneLabel.text or "folder" in panel.ui.fineTuneLabel.text
    if panel.ui.setupCollapsibleButton.collapsed:
        click(panel.ui.setupCollapsibleButton)
    click(panel.ui.checkButton)
    processEvents(until=lambda: panel.logic.engine.state == "ready", timeout=240)
    assert not panel.ui.segmentButton.enabled
    assert "model" in panel.ui.segmentButton.toolTip
    after = [scenes.voxels(node, each, None) for each in scenes.segment_ids(node)]
    assert all(map(np.array_equal, before, after))


def test_a_folder_of_results_that_cannot_be_written_is_said_for_each_image(result, tmp_path):
    panel, _volume, _node = result
    ui = panel.ui
    (tmp_path / "a file").write_text("in the way")
    ui.batchSourceComboBox.setCurrentIndex(0)
    ui.batchOutputComboBox.setCurrentIndex(1)
    ui.batchResultsPath.currentPath = str(tmp_path / "a file" / "results")
    click(ui.batchButton)
    queue = panel.batch.queue
    processEvents(until=lambda: not queue.isActive, timeout=SECONDS)
    assert [item.state for item in queue.items] == ["failed"]
    assert "could not be written" in ui.batchReport.plainText and "another folder" in ui.batchReport.plainText


def test_a_click_on_a_row_says_where_its_result_is(result, tmp_path):
    import slicer

    panel, _volume, _node = result
    ui = panel.ui
    scenes.add_volume(np.full((12, 12, 12), 7, "int16"), "flat")
    ui.batchSourceComboBox.setCurrentIndex(0)
    for output, words in ((1, "scan.seg.nrrd'"), (0, "not in the scene any more")):
        ui.batchOutputComboBox.setCurrentIndex(output)
        ui.batchResultsPath.currentPath = str(tmp_path)
        click(ui.batchButton)
        queue = panel.batch.queue
        processEvents(until=lambda queue=queue: not queue.isActive, timeout=SECONDS)
        assert [item.state for item in queue.items] == ["finished", "failed"]
        if not output:
            slicer.mrmlScene.RemoveNode(queue.items[0].segmentationNode)
        for row, said in ((0, words), (1, "every voxel has the same value")):
            rect = ui.batchTable.visualItemRect(ui.batchTable.item(row, 0))
            qt.QTest.mouseClick(ui.batchTable.viewport(), qt.Qt.LeftButton, qt.Qt.NoModifier, rect.center())
            assert said in ui.batchLabel.text


def other_size(volume):
    import slicer

    slicer.util.updateVolumeFromArray(volume, scenes.texture((30, 31, 32)))


def other_voxels(volume):
    import slicer

    slicer.util.updateVolumeFromArray(volume, scenes.texture((60, 62, 64))[::-1].copy())


def other_spacing(volume):
    volume.SetSpacing(3, 3, 3)


@pytest.mark.parametrize(
    ("button", "change"),
    [
        ("segmentButton", other_size),
        ("segmentButton", other_voxels),
        ("segmentButton", other_spacing),
        ("createVolumeButton", other_voxels),
    ],
)
def test_a_volume_that_changes_meanwhile_is_said(result, button, change):
    import slicer

    panel, volume, node = result
    ui = panel.ui
    ui.outputKindComboBox.setCurrentIndex(ui.outputKindComboBox.findData("gate"))
    before = {each: scenes.voxels(node, each, volume).copy() for each in scenes.segment_ids(node)}
    click(getattr(ui, button))
    job = panel.job or panel._outputs.job
    processEvents(until=lambda: job.stage not in ("Handing over", "Starting the engine"), timeout=SECONDS)
    spacing = volume.GetSpacing()
    change(volume)
    processEvents(until=lambda: not job.isActive, timeout=SECONDS)
    assert job.state == job.FAILED and "changed while" in (ui.messageLabel.text + ui.outputVolumeLabel.text)
    slicer.util.updateVolumeFromArray(volume, scenes.texture((60, 62, 64)))
    volume.SetSpacing(spacing)
    assert all(np.array_equal(scenes.voxels(node, each, volume), old) for each, old in before.items())


def test_the_next_scene_has_a_whole_panel(result):
    """Editor, keys and sections work on the next result as on the first, and leave nothing behind."""
    import slicer

    panel, _volume, _node = result
    editor = panel.ui.segmentEditor
    assert editor.keyboardShortcuts()
    click(panel.ui.show3DButton)
    headless_slicer.closeScene()
    processEvents()
    assert editor.keyboardShortcuts() == ()
    assert not panel.ui.show3DButton.enabled and panel.ui.volumesTable.rowCount == 0
    assert "Segment a volume" in panel.ui.correctLabel.text
    volume = scenes.add_volume(scenes.texture((20, 22, 24)), "next")
    scenes.choose(panel, "tiny")
    node = scenes.segmented(panel, volume)
    shared = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    assert editor.mrmlSegmentEditorNode() is shared and shared.GetScene() is slicer.mrmlScene
    assert shared.GetSegmentationNode() is node and editor.sourceVolumeNode() is volume
    assert editor.keyboardShortcuts()
    panel.exit()
    assert editor.keyboardShortcuts() == () and editor.mrmlSegmentEditorNode() is not shared
    panel.enter()
    assert editor.segmentationNode() is node and editor.keyboardShortcuts()
