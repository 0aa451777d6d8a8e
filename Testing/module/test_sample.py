"""The bundled sample and the bundled model: what a new user tries first."""

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
