"""Batch: many volumes, frames of a sequence or images of a folder, through the panel and from Python."""

import os
import signal

import numpy as np
import pytest
import scenes
from batches import (
    FOLDER,
    SECONDS,
    SEQUENCE,
    a_sequence,
    add_files,
    add_volumes,
    browse,
    files,
    fingerprints,
    nodes,
    run,
    small,
    start,
    states,
)

import headless_slicer
from headless_slicer import click, processEvents


def test_all_loaded_volumes_are_done_but_the_broken_one_which_is_named(panel, batch):
    volumes = add_volumes(3, broken=[1])
    queue = run(panel)
    ui = panel.ui
    assert states(queue) == ["finished", "failed", "finished"]
    assert [ui.batchTable.item(row, 1).text() for row in range(3)] == ["Done", "Failed", "Done"]
    assert ui.batchLabel.text == "2 done, 1 failed."
    assert ui.batchReport.plainText.startswith("scan 1: 'scan 1' is empty: every voxel has the same value, 7.")
    assert ui.batchReport.isVisible()
    for index in (0, 2):
        alone = panel.logic.segment(volumes[index], model="coarse")
        expected, found = (
            scenes.label_map(node, volumes[index]) for node in (alone, queue.items[index].segmentationNode)
        )
        assert expected.any()
        assert np.array_equal(expected, found)


def test_a_second_batch_computes_only_what_is_new_or_changed_and_no_edit_is_lost(panel, batch):
    import slicer

    volumes = add_volumes(3)
    first = run(panel)
    edited = first.items[0].segmentationNode
    segment_id = scenes.segment_ids(edited)[0]
    painted = scenes.voxels(edited, segment_id, volumes[0]) ^ 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted, edited, segment_id, volumes[0])
    slicer.util.updateVolumeFromArray(volumes[1], small(11))
    before = nodes()
    scenes.add_volume(small(12), name="new")
    batch.asked.clear()

    second = run(panel)
    assert states(second) == ["there already", "finished", "there already", "finished"]
    assert len(batch.asked) == 2
    assert np.array_equal(scenes.voxels(edited, segment_id, volumes[0]), painted)
    after = nodes()
    unchanged = [key for key in before if not key[0].startswith("scan 1")]
    assert {key: after[key] for key in unchanged} == {key: before[key] for key in unchanged}
    assert second.items[1].segmentationNode is first.items[1].segmentationNode, "nobody had edited it"
    assert len({name for name, _segment in after}) == 4
    assert panel.ui.batchLabel.text == "2 done, 2 there already."


def test_a_changed_volume_does_not_cost_the_edits_of_its_result(panel, batch):
    import slicer

    (volume,) = add_volumes(1)
    node = run(panel).items[0].segmentationNode
    segment_id = scenes.segment_ids(node)[0]
    painted = scenes.voxels(node, segment_id, volume) ^ 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted, node, segment_id, volume)
    slicer.util.updateVolumeFromArray(volume, small(5))
    assert states(run(panel)) == ["finished"]
    assert np.array_equal(scenes.voxels(node, segment_id, volume), painted)
    assert len(scenes.segment_ids(node)) == 3, "beside it, never over it"
    assert states(run(panel)) == ["there already"]


def test_a_click_on_a_result_shows_it_alone_to_be_corrected(panel, batch):
    volumes = add_volumes(2)
    queue = run(panel)
    panel.logic.outputVolume("entropy", queue.items[0].segmentationNode)
    assert len(run(panel).items) == 2, "a volume that ProSMA made is no image to segment"
    batch._ui.batchTable.cellClicked.emit(1, 0)
    processEvents()
    chosen = queue.items[1].segmentationNode
    assert panel.ui.inputVolumeSelector.currentNode() is volumes[1]
    assert panel.ui.outputSelector.currentNode() is chosen
    assert [item.segmentationNode.GetDisplayNode().GetVisibility() for item in queue.items] == [0, 1]


def test_a_saved_scene_goes_on_where_it_was(panel, batch, tmp_path):
    import slicer

    add_volumes(2, broken=[1])
    run(panel)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    headless_slicer.closeScene()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    processEvents()
    before = nodes()
    scenes.choose(panel, "coarse")
    batch.asked.clear()
    assert states(run(panel)) == ["there already", "failed"]
    assert not batch.asked
    assert nodes() == before


def test_volumes_to_files_and_another_model_replaces_only_its_own_untouched_files(panel, batch, tmp_path):
    import slicer

    from ProSMASegmentationLib.Results.FingerprintSteps import isUnchanged

    volumes = add_volumes(3)
    out = tmp_path / "new" / "folder"
    assert states(run(panel, results=out)) == ["finished"] * 3
    assert sorted(file.name for file in out.iterdir()) == [
        "prosma-results.jsonl",
        *(f"scan {n}.seg.nrrd" for n in range(3)),
    ]
    assert not nodes()
    loaded = slicer.util.loadSegmentation(str(out / "scan 1.seg.nrrd"))
    expected = panel.logic.segment(volumes[1], model="coarse")
    assert np.array_equal(scenes.label_map(loaded, volumes[1]), scenes.label_map(expected, volumes[1]))
    pairs = zip(*map(fingerprints, (loaded, expected)), strict=True)
    assert all(isUnchanged(*pair) for pair in pairs), "what the engine wrote is not taken for edited"

    (out / "scan 0.seg.nrrd").write_bytes(b"corrected")
    before = files(out)
    batch.asked.clear()
    assert states(run(panel, results=out)) == ["there already"] * 3
    assert not batch.asked
    assert files(out) == before
    assert panel.ui.batchTable.item(0, 1).text() == "Was there already, edited since"

    scenes.choose(panel, "tiny")
    queue = run(panel, results=out)
    assert states(queue) == ["failed", "finished", "finished"]
    assert "scan 0.seg.nrrd was changed after ProSMA wrote it" in panel.ui.batchReport.plainText
    assert (out / "scan 0.seg.nrrd").read_bytes() == b"corrected"


@pytest.mark.slow
def test_a_folder_of_images_with_the_engine_killed_amid(panel, batch, tmp_path):
    """Results are files; nothing is loaded into the scene. The killed item is tried again with a new engine."""
    images, out = add_files(tmp_path / "images", 4, broken=[1]), tmp_path / "out"
    out.mkdir()
    (out / "case03.seg.nrrd").write_bytes(b"somebody's work")
    before = scenes.serialised()
    queue = start(panel, FOLDER, results=out, images=images)
    assert not panel.ui.batchOutputComboBox.isEnabled()
    processEvents(until=lambda: len(batch.asked) > 1, timeout=SECONDS)
    os.kill(panel.logic.engine.processId, signal.SIGKILL)
    processEvents(until=lambda: not queue.isActive, timeout=SECONDS)
    assert states(queue) == ["finished", "failed", "finished", "failed"]
    report = panel.ui.batchReport.plainText.splitlines()
    assert [line.partition(":")[0] for line in report] == ["case01", "case03"]
    assert "case01.nrrd could not be read: it is damaged" in report[0]
    assert "was not written by a batch of ProSMA" in report[1]
    assert (out / "case03.seg.nrrd").read_bytes() == b"somebody's work"
    assert scenes.serialised() == before
    written = files(out)
    batch.asked.clear()
    again = run(panel, FOLDER, results=out, images=images)
    assert states(again) == ["there already", "failed", "there already", "failed"]
    assert files(out) == written


def test_the_frames_of_a_sequence_become_a_sequence_of_segmentations(panel, batch):
    import slicer

    sequence, browser = a_sequence()
    queue = run(panel, SEQUENCE)
    assert states(queue) == ["finished"] * 3
    assert [item.name for item in queue.items] == ["heart 0.0 s", "heart 0.5 s", "heart 1.0 s"]
    (results,) = [node for node in slicer.util.getNodesByClass("vtkMRMLSequenceNode") if node is not sequence]
    assert results.GetName() == "heart - Coarse"
    assert results.GetNumberOfDataNodes() == 3
    shown = browser.GetProxyNode(results)
    assert shown.GetDisplayNode() is not None
    for number in range(3):
        browse(browser, number)
        volume = browser.GetProxyNode(sequence)
        assert np.array_equal(slicer.util.arrayFromVolume(volume), small(number))
        found = scenes.label_map(shown, volume)
        assert found.any()
        assert np.array_equal(found, scenes.label_map(panel.logic.segment(volume, model="coarse"), volume))

    segment_id = scenes.segment_ids(shown)[0]
    painted = scenes.voxels(shown, segment_id, volume) ^ 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted, shown, segment_id, volume)
    processEvents()
    sequence.RemoveDataNodeAtValue("0.0")
    results.RemoveDataNodeAtValue("0.5")
    batch.asked.clear()
    assert states(run(panel, SEQUENCE)) == ["finished", "there already"]
    assert batch.asked == ["scene"]
    assert panel.logic.batch(browser, model="coarse").items[0].state == "there already"
    browse(browser, 0)
    browse(browser, 1)
    assert np.array_equal(scenes.voxels(shown, segment_id, volume), painted), "the edit of the last frame"


def test_a_cancelled_batch_keeps_what_is_done_and_goes_on(panel, batch):
    add_volumes(3)
    queue = start(panel)
    processEvents(until=lambda: states(queue)[0] == "finished", timeout=SECONDS)
    assert panel.ui.batchButton.text == "Cancel batch"
    click(panel.ui.batchButton)
    assert states(queue) == ["finished", "cancelled", "cancelled"]
    assert "1 done, 2 not done. Start the batch again to go on from here." in panel.ui.batchLabel.text
    before = nodes()
    assert states(run(panel)) == ["there already", "finished", "finished"]
    after = nodes()
    assert {key: after[key] for key in before} == before


def test_volumes_that_go_away_are_failures_and_the_rest_is_done(panel, batch):
    import slicer

    volumes = add_volumes(4)
    queue = start(panel)
    processEvents(until=lambda: len(batch.asked) == 1, timeout=SECONDS)
    slicer.mrmlScene.RemoveNode(volumes[0])
    slicer.mrmlScene.RemoveNode(volumes[2])
    processEvents(until=lambda: not queue.isActive, timeout=SECONDS)
    assert states(queue) == ["failed", "finished", "failed", "finished"]
    assert "'scan 0' was removed while it was being segmented" in panel.ui.batchReport.plainText
    assert "'scan 2' was removed, or the scene closed, before it was its turn" in panel.ui.batchReport.plainText


def test_a_closed_scene_fails_the_volumes_of_a_batch_and_stays_empty(panel, batch):
    add_volumes(2)
    queue = start(panel)
    processEvents(until=lambda: len(batch.asked) == 1, timeout=SECONDS)
    headless_slicer.closeScene()
    processEvents(until=lambda: not queue.isActive, timeout=SECONDS)
    assert states(queue) == ["failed", "failed"]
    assert not nodes()


def test_a_region_of_interest_is_said_to_be_left_out_and_is(panel, batch):
    import slicer

    volume = add_volumes(1)[0]
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "left half")
    roi.SetCenter(3, 6, 6)
    roi.SetSize(6, 12, 12)
    scenes.select(panel, volume)
    label = panel.ui.batchRoiLabel
    assert not label.text
    panel.ui.roiSelector.setCurrentNode(roi)
    processEvents()
    assert "'left half' is not used here" in label.text and label.isVisible()
    found = scenes.label_map(run(panel).items[0].segmentationNode, volume)
    panel.ui.roiSelector.setCurrentNode(None)
    processEvents()
    assert not label.text
    assert np.array_equal(found, scenes.label_map(panel.logic.segment(volume, model="coarse"), volume))


def test_faults_of_the_choices_are_said_and_start_nothing(panel, batch, tmp_path):
    ui = panel.ui
    ui.batchResultsPath.currentPath = ""
    ui.batchImagesPath.currentPath = ""
    for source, said in ((SEQUENCE, "Choose a sequence first"), (FOLDER, "Choose the folder of the images first")):
        ui.batchSourceComboBox.setCurrentIndex(source)
        click(ui.batchButton)
        assert said in ui.batchLabel.text
    ui.batchImagesPath.currentPath = str(tmp_path)
    click(ui.batchButton)
    assert "Choose a folder for the results first" in ui.batchLabel.text
    queue = run(panel, FOLDER, results=tmp_path / "out", images=tmp_path / "absent")
    assert queue.state == queue.FAILED
    assert "There is no folder" in ui.batchLabel.text
    assert run(panel).state == "finished"
    assert ui.batchLabel.text == "There is nothing to segment."
    assert ui.batchButton.text == "Start batch"


def test_volumes_named_as_channels_are_one_case(panel):
    for number in (1, 0):
        scenes.add_volume(small(number), name=f"patient_000{number}")
    scenes.add_volume(small(3), name="alone")
    queue = panel.logic.batch(model="two")
    assert [(item.name, item.state) for item in queue.items] == [("patient", "finished"), ("alone", "failed")]
    assert "2 channels" in str(queue.failures[0].error)
