"""Corrected results as training cases: what is written, where, and that nothing is ever written by half or twice."""

import json
import shutil

import numpy as np
import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents, qt
from prosma.image.reading import read_image, read_labels
from prosma.learning.data.dataset import LabelledFolder, read_case

SIZE = (18, 20, 22)


@pytest.fixture
def result(panel):
    """(panel, volume, segmentation node): an oblique volume and two segments such as the model ``tiny`` writes."""
    volume = scenes.add_volume(scenes.texture(SIZE), "MR head", scenes.oblique())
    scenes.select(panel, volume)
    node = scenes.written(panel, volume, "tiny")
    panel.ui.outputSelector.setCurrentNode(node)
    processEvents()
    return panel, volume, node


@pytest.fixture
def cases(tmp_path, panel):
    """The folder for cases, chosen in the panel, whose section Learn is open."""
    folder = tmp_path / "Dataset001_Corrected"
    panel.ui.trainingFolderPath.currentPath = str(folder)
    if panel.ui.learnCollapsibleButton.collapsed:
        click(panel.ui.learnCollapsibleButton)
    return folder


def save(panel):
    """Click Save as training case and wait for the end. Returns what the panel says."""
    click(panel.ui.saveCaseButton)
    processEvents(until=lambda: panel._learn._saving is None, timeout=60)
    return panel.ui.saveCaseLabel.text


def read(folder, name):
    """(image, labels (K, J, I)) of a case, as training reads them."""
    image = read_image(sorted((folder / "imagesTr").glob(f"{name}_????.nii.gz")))
    labels = read_labels(folder / "labelsTr" / f"{name}.nii.gz")
    assert np.allclose(labels.ijk_to_ras, image.ijk_to_ras)
    return image, labels.array[0].T


def files(folder):
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def paint(node, segment_id, volume, value=1):
    import slicer

    voxels = scenes.voxels(node, segment_id, volume).copy()
    voxels[2:6, 2:6, 2:6] = value
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment_id, volume)


def refused(panel, node, folder, words, code, **arguments):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    before = files(folder) if folder.is_dir() else None
    with pytest.raises(ProSMAError, match=words) as error:
        panel.logic.saveTrainingCase(node, folder, **arguments)
    assert error.value.code == code
    assert (files(folder) if folder.is_dir() else None) == before


def test_a_click_writes_image_labels_and_record(result, cases):
    panel, volume, node = result
    first, _second = scenes.segment_ids(node)
    paint(node, first, volume)
    node.GetSegmentation().AddEmptySegment("", "my own")
    text = save(panel)
    assert "'MR_head'" in text and "folder: 1" in text and "'my own'" in text
    image, labels = read(cases, "MR_head")
    assert np.array_equal(image.array[0].T, scenes.texture(SIZE))
    assert np.allclose(image.ijk_to_ras, scenes.oblique(), atol=1e-4)
    for value, segment_id in enumerate(scenes.segment_ids(node)[:2], start=1):
        expected = scenes.voxels(node, segment_id, volume) > 0
        expected &= ~((value == 1) & (scenes.voxels(node, scenes.segment_ids(node)[1], volume) > 0))
        assert np.array_equal(labels == value, expected)
    assert json.loads((cases / "dataset.json").read_text()) == {
        "name": "Tiny test model",
        "channel_names": {"0": "channel 0"},
        "labels": {"background": 0, "structure 1": 1, "structure 2": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    record = json.loads((cases / "records" / "MR_head.json").read_text())
    assert [segment["edited"] for segment in record["segments"]] == [True, False]
    assert record["segments"][0]["made_by"] == {"id": "tiny", "version": "1.0.0"}
    assert record["segments_left_out"] == ["my own"]
    assert record["model"]["sha256"] == panel.logic.library.package("tiny").sha256
    assert record["images"] == ["MR head"]
    assert record["saved"] and set(record["software"]) == {"prosma", "slicer", "python", "system"}
    model = panel.logic.library.package("tiny").model
    for case in LabelledFolder.open(cases).split("all"):
        assert read_case(case, model)[1].max() == 2


def test_no_case_is_written_over(result, cases):
    panel, volume, node = result
    save(panel)
    before = files(cases)
    paint(node, scenes.segment_ids(node)[0], volume)
    assert "'MR_head_2'" in save(panel)
    panel.ui.caseNameEdit.text = "mr_HEAD"  # the same file on some systems
    headless_slicer.answer(qt.QMessageBox.No)
    save(panel)
    assert "MR_head_3" not in str(files(cases).keys()) and "mr_HEAD_3" in headless_slicer.messages[-1].text
    headless_slicer.answer(qt.QMessageBox.Yes)
    assert "'mr_HEAD_3'" in save(panel)
    after = files(cases)
    assert {name: after[name] for name in before if name != "dataset.json"} == {
        name: content for name, content in before.items() if name != "dataset.json"
    }
    assert json.loads(after["dataset.json"])["numTraining"] == 3
    refused(panel, node, cases, "MR_head_4", "bad_folder", name="MR_head")
    refused(panel, node, cases, "a_b", "bad_input", name="a/b")
    assert panel.logic.saveTrainingCase(node, cases, name="other", who="A. Reader") == ["other"]
    assert json.loads((cases / "records" / "other.json").read_text())["by"] == "A. Reader"


def test_wherever_it_is_interrupted_there_is_a_whole_case_or_none(result, cases):
    from ProSMASegmentationLib.Learn.TrainingFolder import TrainingFolder

    panel, _volume, node = result
    folder, taken = TrainingFolder(cases), 0
    while not folder.cases():
        steps = panel.logic.trainingCase(node).steps(folder)
        for _step in zip(range(taken), steps, strict=False):
            pass
        steps.close()
        assert not files(cases) or folder.cases() == ["MR_head"]
        taken += 1
        steps = panel.logic.trainingCase(node).steps(folder) if taken > 100 else None
    assert taken > 4
    case = panel.logic.trainingCase(node)
    stage = folder.newStage(panel.logic.library.package("tiny"))
    for _step in case._writePart(stage, "late", np.ones(SIZE, np.uint8), 0, SIZE[0]):
        pass
    whole = stage.rename(stage.with_name(stage.name.replace("saving", "saved")))
    shutil.move(whole / "labelsTr" / "late.nii.gz", cases / "labelsTr" / "late.nii.gz")  # killed in the middle of it
    assert folder.cases() == ["MR_head"]
    LabelledFolder.open(cases)
    assert panel.logic.saveTrainingCase(node, cases, name="next") == ["next"]
    assert folder.cases() == ["MR_head", "late", "next"]
    assert json.loads((cases / "dataset.json").read_text())["numTraining"] == 3
    assert not list(cases.glob(".*"))
    assert [*LabelledFolder.open(cases).cases] == ["MR_head", "late", "next"]


@pytest.mark.parametrize("left", [(), ("records",), ("dataset.json",), ("dataset.json", "labelsTr")])
def test_a_stage_whose_removal_was_cut_off_blocks_no_later_case(result, cases, left):
    panel, _volume, node = result
    panel.logic.saveTrainingCase(node, cases)
    stage = cases / ".saved-killed"
    stage.mkdir()
    for name in left:
        if name == "dataset.json":
            shutil.copy(cases / name, stage)
        else:
            (stage / name).mkdir()
    assert panel.logic.saveTrainingCase(node, cases, name="next") == ["next"]
    assert json.loads((cases / "dataset.json").read_text())["numTraining"] == 2
    assert not list(cases.glob(".*"))


def test_folders_that_do_not_fit_are_left_as_they_are(result, cases):
    panel, _volume, node = result
    panel.logic.saveTrainingCase(node, cases)
    description = cases / "dataset.json"
    good = json.loads(description.read_text())
    for change, words in (
        ({"labels": {"background": 0, "liver": 1}}, "other labels"),
        ({"labels": {"0": "background", "1": "structure 2", "2": "structure 1"}}, "other labels"),
        ({"channel_names": {"0": "a", "1": "b"}}, "2 channels"),
        ({"file_ending": ".nrrd"}, "nrrd"),
        ({"labels": 3}, "does not describe"),
    ):
        description.write_text(json.dumps({**good, **change}))
        refused(panel, node, cases, words, "bad_folder")
    description.write_text('{"labels": ')
    refused(panel, node, cases, "cannot be read", "bad_folder")
    assert "cannot be read" in save(panel)
    description.write_text(json.dumps({**good, "licence": "CC0", "labels": {"1": "Structure 1", "2": "STRUCTURE 2"}}))
    panel.logic.saveTrainingCase(node, cases)
    assert json.loads(description.read_text())["licence"] == "CC0"
    file = cases / "file"
    file.write_text("")
    panel.ui.trainingFolderPath.currentPath = str(file)
    assert "is a file" in save(panel)
    panel.ui.trainingFolderPath.currentPath = str(file / "below")
    assert "could not be written" in save(panel) and "Choose" not in files(cases)
    panel.ui.trainingFolderPath.currentPath = ""
    assert "No folder" in save(panel)


def test_segments_are_known_by_tags_terminology_or_name(result, cases):
    import slicer

    panel, volume, node = result
    segmentation = node.GetSegmentation()
    first, second = scenes.segment_ids(node)
    segmentation.GetSegment(first).SetName("renamed")
    assert panel.logic.trainingCase(node).match.segmentIds == {1: first, 2: second}
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    drawn.CreateDefaultDisplayNodes()
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name in ("Structure_2", "something else"):
        paint(drawn, drawn.GetSegmentation().AddEmptySegment("", name), volume)
    headless_slicer.answer(qt.QMessageBox.No)
    panel.ui.outputSelector.setCurrentNode(drawn)
    save(panel)
    assert "'structure 1'" in headless_slicer.messages[-1].text and not cases.exists()
    headless_slicer.answer(qt.QMessageBox.Yes)
    assert "'something else'" in save(panel)
    assert np.array_equal(read(cases, "MR_head")[1] == 2, scenes.voxels(drawn, scenes.segment_ids(drawn)[0], volume))
    record = json.loads((cases / "records" / "MR_head.json").read_text())
    assert record["labels_without_segment"] == ["structure 1"]
    assert record["segments"][0]["edited"] and record["segments"][0]["made_by"] is None
    again = drawn.GetSegmentation().AddEmptySegment("", "structure 2")
    refused(panel, drawn, cases, "Several segments", "bad_input", model="tiny")
    drawn.GetDisplayNode().SetSegmentVisibility(again, False)
    assert panel.logic.trainingCase(drawn, model="tiny").match.segmentIds == {2: scenes.segment_ids(drawn)[0]}
    refused(panel, drawn, cases, "which model", "bad_model")
    for segment_id in scenes.segment_ids(drawn):
        drawn.GetSegmentation().RemoveSegment(segment_id)
    drawn.GetSegmentation().AddEmptySegment("", "nothing of it")
    refused(panel, drawn, cases, "No segment of 'drawn'", "bad_input", model="tiny")


def test_terminology_tells_labels_apart_whatever_their_names(panel):
    from prosma.image.labels import terminology_entry
    from ProSMASegmentationLib.Learn.LabelMatch import LabelMatch

    node = scenes.written(panel, scenes.add_volume(scenes.texture(SIZE)), "tiny")
    package = panel.logic.library.package("head-neck-oar-ct")
    parotids = [label for label in package.labels if "parotid" in label["name"]]
    for segment_id, label in zip(scenes.segment_ids(node), parotids, strict=True):
        node.GetSegmentation().GetSegment(segment_id).SetTerminology(terminology_entry(label["terminology"]))
    match = LabelMatch(node, package)
    assert match.segmentIds == dict(zip((3, 4), scenes.segment_ids(node), strict=True))
    assert match.missing == ["brainstem", "spinal cord", "mandible"]


def test_segments_on_another_grid_come_onto_the_images(result, cases):
    import slicer
    import vtk

    from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap

    panel, volume, node = result
    matrix, double = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    double.DeepCopy([2, 0, 0, 0.5, 0, 2, 0, 0.5, 0, 0, 2, 0.5, 0, 0, 0, 1])  # each voxel covers 8 of the volume's
    vtk.vtkMatrix4x4.Multiply4x4(matrix, double, matrix)
    image, array = SegmentLabelmap.create((-2, 2, 2), (4, 4, 8), False, matrix)  # reaches out of the volume
    array[...] = 1
    segment = node.GetSegmentation().GetSegment(scenes.segment_ids(node)[0])
    segment.AddRepresentation("Binary labelmap", image)
    segment.SetLabelValue(1)
    other = scenes.voxels(node, scenes.segment_ids(node)[1], volume) > 0
    panel.logic.saveTrainingCase(node, cases)
    expected = np.zeros(SIZE, bool)
    expected[4:12, 4:12, 0:12] = True
    assert np.array_equal(read(cases, "MR_head")[1] == 1, expected & ~other)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_a_common_transform_is_left_out_and_different_ones_are_refused(result, cases):
    import slicer

    panel, volume, node = result
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    refused(panel, node, cases, "another transform", "bad_input")
    node.SetAndObserveTransformNodeID(transform.GetID())
    labels = scenes.label_map(node, volume)
    panel.logic.saveTrainingCase(node, cases)
    image, saved = read(cases, "MR_head")
    assert np.allclose(image.ijk_to_ras, scenes.oblique(), atol=1e-4)
    assert np.array_equal(saved, labels)
    assert json.loads((cases / "records" / "MR_head.json").read_text())["transform_left_out"] == "moved"


def test_channels_on_several_grids_are_brought_onto_the_first(panel, cases):
    first = scenes.add_volume(scenes.texture((16, 18, 20)), "t1")
    ramp = np.tile(np.arange(0, 40, 2, dtype="float32"), (8, 18, 1))  # rises by 1 a mm
    second = scenes.add_volume(ramp, "t2", np.diag([2.0, 1.0, 2.0, 1.0]))
    node = scenes.written(panel, first, "two")
    panel.logic.saveTrainingCase(node, cases, [first, second])
    image, _labels = read(cases, "t1")
    assert image.array.shape == (2, 20, 18, 16)
    assert np.array_equal(image.array[0].T, scenes.texture((16, 18, 20)))
    assert np.allclose(image.array[1][:, 3, 3], np.arange(20), atol=1e-4)
    refused(panel, node, cases, "2 channels", "does_not_fit", volumeNode=first)


def test_a_colour_picture_and_the_slices_of_a_volume(panel, cases):
    model = panel.logic.library.package("photo").model
    picture = np.random.default_rng(0).integers(0, 255, (1, 40, 50, 4), dtype=np.uint8)
    volume = scenes.add_volume(picture, "photograph", vector=True)
    node = scenes.written(panel, volume, "photo")
    assert panel.logic.saveTrainingCase(node, cases) == ["photograph"]
    image, labels = read(cases, "photograph")
    assert np.array_equal(image.array.T, picture[..., :3])
    assert np.array_equal(labels, scenes.label_map(node, volume))
    stack = scenes.add_volume(scenes.texture((5, 30, 30)), "stack", scenes.oblique())
    node = scenes.written(panel, stack, "photo")
    for segment_id in scenes.segment_ids(node):
        voxels = scenes.voxels(node, segment_id, stack).copy()
        voxels[:] = 0
        voxels[3, 5:20, 5:20] = voxels[1, 5:9, 5:9] = segment_id == scenes.segment_ids(node)[0]
        update(node, segment_id, stack, voxels)
    names = panel.logic.saveTrainingCase(node, cases)
    assert names == ["stack_s001", "stack_s003"]
    image, labels = read(cases, "stack_s003")
    assert np.array_equal(image.array[0].T[0], scenes.texture((5, 30, 30))[3]) and image.array.shape[0] == 3
    assert np.allclose(image.ijk_to_ras[:, 3], scenes.oblique() @ [0, 0, 3, 1], atol=1e-4)
    assert labels.sum() == 225
    assert panel.logic.saveTrainingCase(node, cases) == ["stack_2_s001", "stack_2_s003"]
    for case in LabelledFolder.open(cases).split("all"):
        read_case(case, model)


def update(node, segment_id, volume, voxels):
    import slicer

    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment_id, volume)


@pytest.mark.parametrize("gone", ["volume", "segmentation", "scene"])
def test_what_goes_away_meanwhile_leaves_nothing_half(result, cases, gone):
    import slicer

    panel, _volume, node = result
    big = scenes.add_volume(scenes.texture((40, 80, 80)), "big")
    scenes.select(panel, big)
    node = scenes.written(panel, big, "tiny")
    panel.ui.outputSelector.setCurrentNode(node)
    click(panel.ui.saveCaseButton)
    assert not panel.ui.saveCaseButton.enabled
    if gone == "scene":
        headless_slicer.closeScene()
    else:
        slicer.mrmlScene.RemoveNode(big if gone == "volume" else node)
    processEvents(until=lambda: panel._learn._saving is None, timeout=60)
    assert "removed while it was being saved" in panel.ui.saveCaseLabel.text
    assert panel.ui.saveCaseButton.enabled
    assert not cases.exists() or not files(cases)


def test_an_edit_meanwhile_is_not_saved_by_half(result, cases):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
    from ProSMASegmentationLib.Learn.TrainingFolder import TrainingFolder

    panel, volume, node = result
    steps = panel.logic.trainingCase(node).steps(TrainingFolder(cases))
    next(steps)
    paint(node, scenes.segment_ids(node)[0], volume)
    with pytest.raises(ProSMAError, match="was changed while"):
        list(steps)
    assert not cases.exists()


def test_without_a_result_it_says_what_to_do(panel, cases):
    assert "Segment a volume first" in save(panel)
    scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
    assert "Segment a volume first" in save(panel)
    assert not cases.exists()


@pytest.mark.parametrize("mirrored", [False, True])
def test_both_forms_of_a_cases_files_place_it_where_slicer_does(panel, cases, mirrored):
    """sform and qform, read by nibabel, of an oblique grid, right-handed and left-handed."""
    import nibabel

    matrix = scenes.oblique()
    if mirrored:
        matrix[:3, 0] *= -1
    volume = scenes.add_volume(scenes.texture((24, 26, 28)), "oblique", matrix)
    (name,) = panel.logic.saveTrainingCase(panel.logic.segment(volume, model="tiny"), cases)
    for file in (cases / "labelsTr" / f"{name}.nii.gz", cases / "imagesTr" / f"{name}_0000.nii.gz"):
        image = nibabel.load(file)
        assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1
        np.testing.assert_allclose(image.get_sform(), matrix, atol=1e-4)
        np.testing.assert_allclose(image.get_qform(), matrix, atol=1e-4)


def test_an_axis_too_long_for_the_format_is_refused(panel, tmp_path):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
    from ProSMASegmentationLib.Volumes.NiftiFile import NiftiFile

    with pytest.raises(ProSMAError, match="at most 32767"):
        NiftiFile(tmp_path / "long.nii.gz", (1, 1, 40000), "uint8", np.eye(4))
    assert not (tmp_path / "long.nii.gz").exists()
