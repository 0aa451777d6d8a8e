"""What cannot be saved, learnt from or compared, and that it can be once a person has done what the refusal says."""

import json

import numpy as np
import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents, qt
from prosma.learning.data.dataset import LabelledFolder
from prosma.steps import finish
from remedies import refused, tries
from tiny_model import make_tiny_package

SIZE = (16, 18, 20)


@pytest.fixture
def cases(tmp_path):
    return tmp_path / "cases"


@pytest.fixture
def result(panel):
    """(logic, volume, segmentation node): a corrected result of the model ``tiny``."""
    volume = scenes.add_volume(scenes.texture(SIZE), "scan")
    return panel.logic, volume, scenes.written(panel, volume, "tiny")


def saved(folder):
    """The cases that training finds."""
    return list(LabelledFolder.open(folder).cases)


# ---- a case


def test_what_is_to_be_saved(panel, cases):
    save = panel.logic.saveTrainingCase
    refused(
        "TrainingCase.py: There is no segmentation to save", "Segment a volume first.", save, None, cases, model="tiny"
    )
    volume = scenes.add_volume(scenes.texture(SIZE), "scan")
    node = panel.logic.segment(volume, "tiny")
    assert save(node, cases, model="tiny") == ["scan"]
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), None)
    name, remedy = "TrainingCase.py: There is no volume to save", "Choose the segmentation's volume."
    refused(name, remedy, save, node, cases)
    assert save(node, cases, volumeNode=volume) == ["scan_2"]
    assert saved(cases) == ["scan", "scan_2"]


def test_surfaces_instead_of_voxels(result, cases):
    logic, _volume, node = result
    node.CreateClosedSurfaceRepresentation()
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    name, remedy = "TrainingCase.py: is made of surfaces, not of voxels", "Convert it to a binary labelmap"
    refused(name, remedy, logic.saveTrainingCase, node, cases)
    node.GetSegmentation().CreateRepresentation("Binary labelmap")
    node.GetSegmentation().SetSourceRepresentationName("Binary labelmap")
    assert logic.saveTrainingCase(node, cases) == ["scan"]


@pytest.mark.parametrize("way_out", ["the same transform", "harden"])
def test_another_transform(result, cases, way_out):
    import slicer

    logic, volume, node = result
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = slicer.util.vtkMatrixFromArray(np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 5)
    transform.SetMatrixTransformToParent(matrix)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    name = "TrainingCase.py: is under another transform than the volume"
    remedy = "Put both under the same transform, or harden the transforms."
    refused(name, remedy, logic.saveTrainingCase, node, cases)
    if way_out == "harden":
        slicer.vtkSlicerTransformLogic.hardenTransform(volume)
    else:
        node.SetAndObserveTransformNodeID(transform.GetID())
    assert logic.saveTrainingCase(node, cases) == ["scan"]


def test_names_of_cases(result, cases):
    logic, _volume, node = result
    save = logic.saveTrainingCase
    refused("TrainingCase.py: cannot be the name of a case", "for example 'a_b'", save, node, cases, name="a/b")
    assert save(node, cases, name="a_b") == ["a_b"]
    name = "TrainingCase.py: which stays as it is"
    refused(name, "Choose another name, for example 'a_b_2'.", save, node, cases, name="a_b")
    assert save(node, cases, name="a_b_2") == ["a_b_2"]
    assert saved(cases) == ["a_b", "a_b_2"]


def test_an_edit_or_a_removal_meanwhile(result, cases):
    import slicer

    from ProSMASegmentationLib.Learn.TrainingFolder import TrainingFolder

    logic, volume, node = result
    folder = TrainingFolder(cases)
    steps = logic.trainingCase(node).steps(folder)
    next(steps)
    first = scenes.segment_ids(node)[0]
    voxels = scenes.voxels(node, first, volume) ^ 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, first, volume)
    refused("TrainingCase.py: was changed while it was being saved", "Save it again.", finish, steps)
    assert finish(logic.trainingCase(node).steps(folder)) == ["scan"]
    path = str(cases.parent / "scan.nrrd")
    slicer.util.saveNode(volume, path)
    steps = logic.trainingCase(node).steps(folder)
    next(steps)
    slicer.mrmlScene.RemoveNode(volume)
    name = "TrainingCase.py: was removed while it was being saved"
    refused(name, "Load it again, and save the case again.", finish, steps)
    assert saved(cases) == ["scan"]
    assert logic.saveTrainingCase(node, cases, volumeNode=slicer.util.loadVolume(path)) == ["scan_2"]


def test_slices_without_a_segment(panel, cases):
    import slicer

    volume = scenes.add_volume(scenes.texture((3, 30, 30)), "stack")
    node = scenes.written(panel, volume, "photo")
    for each in scenes.segment_ids(node):
        slicer.util.updateSegmentBinaryLabelmapFromArray(np.zeros((3, 30, 30), np.uint8), node, each, volume)
    name = "TrainingCase.py: holds a segment of the model"
    refused(name, "Correct at least one slice first.", panel.logic.saveTrainingCase, node, cases)
    voxels = np.zeros((3, 30, 30), np.uint8)
    voxels[1, 5:9, 5:9] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, scenes.segment_ids(node)[0], volume)
    assert panel.logic.saveTrainingCase(node, cases) == ["stack_s001"]


def test_an_axis_too_long_for_the_files(panel, cases):
    shape = (8, 8, 33000)
    volume = scenes.add_volume(np.indices(shape, np.int16)[2] % 90, "long")
    node = scenes.written(panel, volume, "tiny", np.indices(shape, np.uint8)[0] % 3)
    name = "NiftiFile.py: along an axis; NIfTI files have at most"
    refused(name, "Crop it, or resample it to larger voxels", panel.logic.saveTrainingCase, node, cases)
    cropped = scenes.add_volume(np.indices((8, 8, 90), np.int16)[2], "cropped")
    node = scenes.written(panel, cropped, "tiny")
    assert panel.logic.saveTrainingCase(node, cases) == ["cropped"]


# ---- the labels


def test_segments_and_labels(panel, cases):
    import slicer

    logic, volume = panel.logic, scenes.add_volume(scenes.texture(SIZE), "scan")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation = node.GetSegmentation()
    only = segmentation.AddEmptySegment("", "nameless")
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.ones(SIZE, np.uint8), node, only, volume)
    remedy = "Choose a model."
    refused("LearningLogic.py: which model it was made by", remedy, logic.saveTrainingCase, node, cases)
    remedy = "Name segments like the model's labels (structure 1, structure 2), or choose another model."
    name = "LabelMatch.py: is a label of the model"
    refused(name, remedy, logic.saveTrainingCase, node, cases, model="tiny")
    segmentation.GetSegment(only).SetName("structure 1")
    assert logic.saveTrainingCase(node, cases, model="tiny") == ["scan"]
    again = segmentation.AddEmptySegment("", "Structure_1")
    name, remedy = "LabelMatch.py: stand for the label", "Delete or hide all of them but one."
    refused(name, remedy, logic.saveTrainingCase, node, cases, model="tiny")
    node.GetDisplayNode().SetSegmentVisibility(again, False)
    assert logic.saveTrainingCase(node, cases, model="tiny") == ["scan_2"]
    node.GetDisplayNode().SetSegmentVisibility(again, True)
    segmentation.RemoveSegment(again)
    assert logic.saveTrainingCase(node, cases, model="tiny") == ["scan_3"]


# ---- the folder

DESCRIPTIONS = {
    "TrainingFolder.py: but cases are saved as": {"file_ending": ".nrrd"},
    "TrainingFolder.py: channels, the model": {"channel_names": {"0": "a", "1": "b"}},
    "TrainingFolder.py: have other labels": {"labels": {"background": 0, "liver": 1}},
    "TrainingFolder.py: does not describe a data set as nnU-Net": {"labels": 3},
    "TrainingFolder.py: cannot be read: ": None,
}


def test_folders_of_something_else(result, cases):
    logic, _volume, node = result
    logic.saveTrainingCase(node, cases)
    description = cases / "dataset.json"
    good = json.loads(description.read_text())
    for number, (name, change) in enumerate(DESCRIPTIONS.items()):
        description.write_text(json.dumps({**good, **change}) if change else "{")
        refused(name, "Choose another folder.", logic.saveTrainingCase, node, cases)
        assert logic.saveTrainingCase(node, cases.with_name(f"other {number}")) == ["scan"]


@tries(
    "TrainingFolder.py: No folder for training cases is chosen",
    "TrainingFolder.py: is a file, not a folder",
    "TrainingFolder.py: ProSMAError('bad_folder', why",
    "TrainingCase.py: The case could not be written to",
)
def test_folders_that_are_none(result, panel, cases):
    _logic, volume, node = result
    scenes.select(panel, volume)
    panel.ui.outputSelector.setCurrentNode(node)
    scenes.open_section(panel, "learn")
    file = cases.with_name("file")
    file.write_text("")
    for path, said in (
        ("", "No folder for training cases is chosen. Choose one, for example a new one."),
        (file, f"'{file}' is a file, not a folder. Choose another folder."),
        (file / "below", "or choose another folder that you may write to."),
        (cases, "Saved as 'scan'."),
    ):
        panel.ui.trainingFolderPath.currentPath = str(path)
        click(panel.ui.saveCaseButton)
        processEvents(until=lambda: panel._learn._saving is None, timeout=60)
        assert said in panel.ui.saveCaseLabel.text
    assert saved(cases) == ["scan"]


@tries("Base/ProSMAError.py: A file or folder cannot be used")
def test_a_folder_in_disorder(panel, cases):
    """Of an interrupted case a file is left to be moved to where a folder is."""
    scenes.open_section(panel, "learn")
    for part in (".saved-killed/labelsTr/scan.nii.gz", ".saved-killed/dataset.json"):
        (cases / part).parent.mkdir(parents=True, exist_ok=True)
        (cases / part).write_text("{}")
    (cases / "labelsTr" / "scan.nii.gz" / "below").mkdir(parents=True)
    panel.ui.trainingFolderPath.currentPath = str(cases)
    click(panel.ui.fineTuneButton)
    assert "A file or folder cannot be used" in panel.ui.fineTuneLabel.text
    assert "Choose another one, or see to it that you may use this one" in panel.ui.fineTuneLabel.text
    panel.ui.trainingFolderPath.currentPath = str(cases.with_name("another"))
    click(panel.ui.fineTuneButton)
    assert "There is no case in" in panel.ui.fineTuneLabel.text
    panel.ui.trainingFolderPath.currentPath = str(cases)
    (cases / "labelsTr" / "scan.nii.gz" / "below").rmdir()
    (cases / "labelsTr" / "scan.nii.gz").rmdir()
    click(panel.ui.fineTuneButton)
    assert "There is no case in" in panel.ui.fineTuneLabel.text
    assert (cases / "labelsTr" / "scan.nii.gz").read_text() == "{}"


# ---- fine-tuning, up to the start of its process


def fine_tuned(models):
    """A model that says that it was made from ``tiny``."""
    counts = dict.fromkeys(("cases", "replayed_cases", "steps", "batch_size", "seed"), 1)
    record = {
        "parent": {"id": "tiny", "version": "1.0.0", "sha256": models.tiny.sha256},
        **counts,
        "learning_rate": 1e-4,
        "keep": 0.5,
        "seconds": 1.0,
        "hardware": "none",
    }
    folder = models.home / "models" / "tiny-tuned"
    return make_tiny_package(folder, seed=3, id="tiny-tuned", name="Tuned", fine_tuning=[record])


@tries(
    "LearnSection.py: Choose the model to fine-tune",
    "FineTuning.py: to learn from",
    "FineTuning.py: which are not installed",
)
def test_before_a_fine_tuning(panel, result, cases, monkeypatch, tmp_path):
    import slicer

    from ProSMASegmentationLib.Learn import FineTuning

    logic, volume, node = result
    scenes.select(panel, volume)
    panel.ui.outputSelector.setCurrentNode(node)
    scenes.open_section(panel, "learn")
    label = panel.ui.fineTuneLabel
    panel.ui.trainingFolderPath.currentPath = str(cases)
    panel._parameters.model = ""
    click(panel.ui.fineTuneButton)
    assert label.text == "No model is chosen. Choose the model to fine-tune."
    scenes.choose(panel, "tiny")
    click(panel.ui.fineTuneButton)
    assert "Correct a result and save it as a training case first." in label.text
    logic.saveTrainingCase(node, cases)

    def install(requirements, **_options):
        for requirement in requirements:
            (tmp_path / f"{requirement}.py").write_text("")

    monkeypatch.setattr(FineTuning, "PACKAGES", {"prosma_test_trainer": "prosma_test_trainer"})
    monkeypatch.setattr(slicer.packaging, "pip_ensure", install, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    name, remedy = "FineTuning.py: which are not installed", "Click Fine-tune in the panel and let them be installed."
    refused(name, remedy, logic.fineTune, cases, "tiny", wait=False)
    headless_slicer.answer(qt.QMessageBox.Yes)
    click(panel.ui.fineTuneButton)
    assert "prosma_test_trainer" in headless_slicer.messages[-1].text
    tuning = panel._learn.tuning
    assert tuning is not None and tuning.isActive, label.text
    tuning.cancel()


def test_a_model_that_is_not_there_any_more(panel, models, result, cases):
    import shutil

    from ProSMASegmentationLib.Learn.FineTuning import FineTuning
    from ProSMASegmentationLib.Learn.TrainingFolder import TrainingFolder

    logic, _volume, node = result
    logic.saveTrainingCase(node, cases)
    package = make_tiny_package(models.home / "doomed", id="doomed")
    shutil.rmtree(package.folder)
    name = "FineTuning.py: is not there any more"
    refused(name, "Choose another model.", logic.fineTune, cases, package, wait=False)
    FineTuning(logic.library, logic.library.package("tiny"), TrainingFolder(cases)).check()


# ---- comparing


@pytest.mark.slow
@tries(
    "LearnSection.py: There is no fine-tuned model to compare",
    "LearningLogic.py: to compare on",
    "Comparison.py: is damaged or not there",
    "Comparison.py: ProSMAError('bad_folder', str(error)",
)
def test_before_a_comparison(panel, models, result, cases):
    import slicer

    logic, volume, node = result
    scenes.select(panel, volume)
    scenes.open_section(panel, "learn")
    label = panel.ui.compareLabel
    panel.ui.trainingFolderPath.currentPath = str(cases)
    panel._learn.tuning = None
    click(panel.ui.compareButton)
    assert "Fine-tune a model, or choose a fine-tuned one in the list." in label.text
    tuned = fine_tuned(models)
    logic.library.refresh()
    panel._input.picker.fill()
    scenes.choose(panel, "tiny-tuned")
    click(panel.ui.compareButton)
    assert label.text.endswith("Save a training case first.")
    logic.saveTrainingCase(node, cases, model="tiny")

    def compare():
        click(panel.ui.compareButton)
        comparison = panel._learn.comparison
        if comparison is not None:
            processEvents(until=lambda: not comparison.isActive, timeout=240)
        return label.text

    (cases / "labelsTr" / "scan.nii.gz").write_bytes(b"broken")
    assert compare().endswith("Save the case again.")
    logic.saveTrainingCase(node, cases, model="tiny")
    assert "against the saved correction of 'scan_2'" in compare()
    logic._lastCase = None  # as in another session, where the image has to be loaded
    slicer.mrmlScene.RemoveNode(volume)
    for path in (cases / "imagesTr").glob("scan_2_*"):
        path.write_bytes(b"broken")
    assert "Remove the case from the folder, or save it again." in compare()
    for path in [*cases.glob("*/scan_2*"), *cases.glob("*/scan.*"), *cases.glob("*/scan_0000*")]:
        path.unlink()
    assert label.text and compare().endswith("Save a training case first.")
    import shutil

    shutil.rmtree(tuned.folder)
    logic.library.refresh()
    panel._input.picker.fill()
