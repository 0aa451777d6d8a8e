"""What a batch is refused for, and that it runs once a person has done what the refusal says."""

import pytest
import scenes
from batches import FOLDER, SECONDS, SEQUENCE, a_sequence, add_files, add_volumes, run, small, start, states

import headless_slicer
from headless_slicer import click, processEvents
from remedies import refused, tries


@tries(
    "BatchSection.py: Choose a model first",
    "BatchSection.py: Choose a sequence first",
    "BatchSection.py: Choose the folder of the images first",
    "BatchSection.py: Choose a folder for the results first",
    "BatchSources.py: The sequence has no frames",
)
def test_choices_that_lack(panel, batch, tmp_path):
    import slicer

    ui = panel.ui
    ui.batchResultsPath.currentPath = ui.batchImagesPath.currentPath = ""
    ui.batchOutputComboBox.setCurrentIndex(0)  # nodes
    images = add_files(tmp_path / "images", 1)

    def told(words):
        click(ui.batchButton)
        assert words in ui.batchLabel.text
        assert not batch.isActive

    panel._parameters.model = ""
    told("Choose a model first.")
    scenes.choose(panel, "coarse")
    ui.batchSourceComboBox.setCurrentIndex(SEQUENCE)
    told("Choose a sequence first.")
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "empty")
    ui.batchSequenceSelector.setCurrentNode(empty)
    told("The sequence has no frames. Choose another one.")
    sequence, _browser = a_sequence(1)
    ui.batchSequenceSelector.setCurrentNode(sequence)
    assert states(run(panel, SEQUENCE)) == ["finished"]
    ui.batchSourceComboBox.setCurrentIndex(FOLDER)
    told("Choose the folder of the images first.")
    ui.batchImagesPath.currentPath = str(images)
    told("Choose a folder for the results first.")
    assert states(run(panel, FOLDER, results=tmp_path / "out")) == ["finished"]


@pytest.mark.slow
def test_results_of_a_folder_by_python(panel, tmp_path):
    images = add_files(tmp_path / "images", 1)
    name, remedy = "BatchSources.py: are not in the scene", "Choose a folder for the results."
    refused(name, remedy, panel.logic.batch, images, "coarse")
    queue = panel.logic.batch(images, "coarse", tmp_path / "out")
    assert states(queue) == ["finished"]


@tries("BatchTasks.py: ProSMAError('bad_output', reason, remedy)", "BatchTasks.py: before it was its turn")
@pytest.mark.parametrize("way_out", ["move", pytest.param("another folder", marks=pytest.mark.slow)])
def test_files_in_the_way_and_volumes_that_go(panel, batch, tmp_path, way_out):
    import slicer

    first, second = add_volumes(2)
    path, out = str(tmp_path / "scan 1.nrrd"), tmp_path / "out"
    slicer.util.saveNode(second, path)
    out.mkdir()
    taken = out / "scan 0.seg.nrrd"
    taken.write_bytes(b"somebody's work")
    queue = start(panel, results=out)
    slicer.mrmlScene.RemoveNode(second)
    processEvents(until=lambda: not queue.isActive, timeout=SECONDS)
    assert states(queue) == ["failed", "failed"]
    report = panel.ui.batchReport.plainText
    assert "It was left as it is. Move it away, or choose another folder for the results." in report
    assert "Load it again, and start the batch again." in report
    if way_out == "move":
        taken = taken.rename(tmp_path / "moved.nrrd")
    slicer.util.loadVolume(path)
    queue = run(panel, results=out if way_out == "move" else tmp_path / "other")
    assert states(queue) == ["finished", "finished"]
    assert taken.read_bytes() == b"somebody's work"
    assert first.GetScene() is slicer.mrmlScene


@pytest.mark.slow
@tries("BatchTasks.py: ProSMAError('bad_input', self._case['problem'])")
def test_channels_of_a_case_in_a_folder(panel, batch, tmp_path):
    """What the engine says of a case before any is read."""
    import slicer

    scenes.choose(panel, "two")
    images = tmp_path / "images"
    images.mkdir()

    def save(number, name):
        node = scenes.add_volume(small(number), name=name)
        slicer.util.saveNode(node, str(images / f"{name}.nrrd"))
        slicer.mrmlScene.RemoveNode(node)

    save(0, "patient_0000")
    queue = run(panel, FOLDER, results=tmp_path / "out", images=images)
    assert states(queue) == ["failed"]
    assert "channel" in panel.ui.batchReport.plainText
    save(1, "patient_0001")
    assert states(run(panel, FOLDER, results=tmp_path / "out", images=images)) == ["finished"]


@tries("BatchQueue.py: Or segment it on its own")
def test_an_image_that_does_not_fit_the_model(panel, batch):
    import slicer

    (volume,) = add_volumes(1)
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(volume), "DICOM.Modality", "CT")
    assert states(run(panel)) == ["failed"]
    assert (
        "Or segment it on its own, where you are asked whether to do it all the same." in panel.ui.batchReport.plainText
    )
    scenes.select(panel, volume)
    asked = len(headless_slicer.messages)
    headless_slicer.answer("Yes")
    click(panel.ui.segmentButton)
    processEvents(until=lambda: "Done in" in panel.ui.messageLabel.text, timeout=SECONDS)
    assert "all the same?" in headless_slicer.messages[asked].text
