"""The bundled sample and the bundled model: what a new user tries first."""

import shutil

import numpy as np
import pytest
import scenes

from headless_slicer import click, processEvents, runTest

LEAST_DICE = 0.85


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def test_the_sample_button_and_segment_give_a_good_segmentation(panel):
    import slicer

    from ProSMASegmentationLib.Volumes.SampleVolumes import SampleVolumes

    scenes.choose(panel, "hippocampus-mr")
    click(panel.ui.sampleButton)
    volume = panel.ui.inputVolumeSelector.currentNode()
    assert volume.GetName() == SampleVolumes.forModel("hippocampus-mr")["name"]
    assert panel.ui.fitLabel.text == ""
    job = scenes.click_segment(panel)
    reference = slicer.util.loadLabelVolume(str(SampleVolumes.forModel("hippocampus-mr")["referencePath"]))
    truth = slicer.util.arrayFromVolume(reference)
    found = scenes.label_map(job.segmentationNode, volume)
    for label in job.package.labels:
        assert dice(found == label["value"], truth == label["value"]) > LEAST_DICE


def test_the_sample_is_in_the_sample_data_module_and_is_loaded_from_disk(panel):
    import SampleData

    sources = SampleData.SampleDataLogic.sampleDataSourcesByCategory("ProSMA")
    assert [source.sampleName for source in sources] == ["ProSMA hippocampus MR"]
    node = SampleData.SampleDataLogic().downloadSamples("ProSMA hippocampus MR")[0]
    assert node.GetImageData().GetNumberOfPoints() > 10_000


def test_a_model_without_a_sample_says_so(panel):
    click(panel.ui.sampleButton)
    assert "no bundled sample" in panel.ui.messageLabel.text


def test_slicers_reload_and_test_passes(panel):
    import ProSMASegmentation

    runTest(ProSMASegmentation.ProSMASegmentationTest)
    processEvents()


def test_the_self_test_of_the_effects_module_passes(panel):
    """As Slicer's module Self Tests runs it: by the module's own ``runTest``."""
    import slicer

    slicer.modules.SegmentEditorProSMAStrokesInstance.runTest(msec=0)
    processEvents()


@pytest.mark.parametrize("damage", ["cut off", "one bit", "gone"])
def test_a_damaged_sample_is_refused_in_a_sentence(panel, monkeypatch, tmp_path, damage):
    """One changed bit as well: the image would be loaded, and its result be wrong."""
    import slicer

    from ProSMASegmentationLib.Base import Places

    folder = tmp_path / "samples"
    shutil.copytree(Places.samplesFolder(), folder)
    file = folder / "hippocampus_017.nii.gz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    {
        "cut off": lambda: file.write_bytes(content[: len(content) // 2]),
        "one bit": lambda: file.write_bytes(content),
        "gone": file.unlink,
    }[damage]()
    monkeypatch.setattr(Places, "samplesFolder", lambda: folder)
    scenes.choose(panel, "hippocampus-mr")
    click(panel.ui.sampleButton)
    assert "is damaged or not there. Install the extension again." in panel.ui.messageLabel.text
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")


def test_the_modules_name_the_modules_that_they_use(panel):
    """A Slicer without one of them leaves ours out, instead of failing amid work."""
    import re

    import slicer

    for name in ("ProSMASegmentation", "SegmentEditorProSMAStrokes"):
        folders = [scenes.MODULE.parent / f"{name}Lib", scenes.MODULE.with_name(f"{name}.py")]
        files = [folders[1], *folders[0].rglob("*.py")]
        used = {found for file in files for found in re.findall(r"slicer\.modules\.([a-z]+)\.logic", file.read_text())}
        declared = {each.lower() for each in getattr(slicer.modules, name.lower()).dependencies}
        assert used <= declared
    assert {"Markups", "Segmentations", "Sequences", "Volumes"} <= set(slicer.modules.prosmasegmentation.dependencies)


@pytest.mark.parametrize("orientation", ["LPS", "PIR", "SPL"])
def test_the_sample_stored_in_any_axis_order_gives_the_same_segmentation(panel, orientation):
    import slicer

    from ProSMASegmentationLib.Volumes.SampleVolumes import SampleVolumes

    volume = SampleVolumes.load("hippocampus-mr")
    expected = scenes.label_map(panel.logic.segment(volume, model="tiny"), volume)
    array, matrix = reordered(slicer.util.arrayFromVolume(volume), np.array(ijk_to_ras(volume)), orientation)
    stored = scenes.add_volume(array, orientation, matrix)
    node = panel.logic.segment(stored, model="tiny")
    found = np.zeros_like(expected)
    for segment_id in scenes.segment_ids(node):  # read back on the original's grid
        found[scenes.voxels(node, segment_id, volume) > 0] = int(scenes.tag(node, segment_id, "ProSMA.label"))
    assert expected.any()
    assert np.array_equal(found, expected)


def ijk_to_ras(volume):
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def reordered(array, matrix, orientation):
    """The same image (K, J, I), stored so that I runs to where the first letter says, J the second, K the third."""
    voxels, columns, origin = array.transpose(2, 1, 0), matrix[:3, :3].copy(), matrix[:3, 3].copy()
    axes = [int(np.argmax(np.abs(columns["RASLPI".index(letter) % 3]))) for letter in orientation]
    voxels, columns = voxels.transpose(axes), columns[:, axes]
    for axis, letter in enumerate(orientation):
        number = "RASLPI".index(letter)
        if (columns[number % 3, axis] > 0) != (number < 3):
            origin = origin + columns[:, axis] * (voxels.shape[axis] - 1)
            columns[:, axis] *= -1
            voxels = np.flip(voxels, axis)
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = columns, origin
    return np.ascontiguousarray(voxels.transpose(2, 1, 0)), result
