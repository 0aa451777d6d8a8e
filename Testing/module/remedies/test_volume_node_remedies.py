"""What the panel refuses to segment, and that it can be segmented once a person has done what the refusal says."""

import numpy as np
import pytest
import scenes

from headless_slicer import click, processEvents
from remedies import refused, tries

SIZE = (20, 20, 20)


def assert_ready(panel, volume):
    """Chosen in the panel, the volume can be segmented."""
    scenes.select(panel, volume)
    processEvents(until=lambda: panel.ui.segmentButton.enabled, timeout=60)


def assert_refused(panel, volume, name, remedy):
    """Python is told, and the panel says it where it lets such a node be chosen."""
    told = refused(name, remedy, panel.logic.prepared, volume, "tiny", None)
    scenes.select(panel, volume)
    if panel.ui.inputVolumeSelector.currentNode() is volume:
        processEvents(until=lambda: not panel.ui.segmentButton.enabled, timeout=60)
        assert volume is None or str(told) in panel.ui.fitLabel.text
    return told


def scan():
    return scenes.add_volume(scenes.texture(SIZE), "scan")


def test_nothing_chosen(panel):
    assert_refused(panel, None, "VolumeReader.py: No volume is chosen", "Load or choose a volume first.")
    assert_ready(panel, scan())


def test_a_sequence_of_volumes(panel):
    import slicer

    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "heart")
    frame = scan()
    for number in range(2):
        sequence.SetDataNodeAtValue(frame, str(number))
    slicer.mrmlScene.RemoveNode(frame)
    assert_refused(panel, sequence, "VolumeReader.py: it is 4D", "Choose a single frame of it as a volume.")
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)  # as a load of it does
    assert_ready(panel, browser.GetProxyNode(sequence))


@tries("VolumeReader.py: '{name}' {why}")
def test_something_that_is_no_image(panel):
    import slicer

    volume = scan()
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "surface")
    assert_refused(panel, model, "VolumeReader.py: is no image volume", "Choose a scalar or colour volume.")
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    labels.CopyContent(volume)
    name, remedy = "VolumeReader.py: is a label map, not an image", "Choose the image that it belongs to."
    assert_refused(panel, labels, name, remedy)
    assert_ready(panel, volume)


def test_a_volume_without_voxels(panel, tmp_path):
    import slicer

    path = str(tmp_path / "scan.nrrd")
    volume = scan()
    slicer.util.saveNode(volume, path)
    volume.SetAndObserveImageData(None)
    assert_refused(panel, volume, "VolumeReader.py: it has no voxels", "Load the volume again.")
    assert_ready(panel, slicer.util.loadVolume(path))


def test_voxels_that_are_no_numbers(panel):
    import vtk

    volume, bits = scan(), vtk.vtkImageData()
    bits.SetDimensions(20, 20, 20)
    bits.AllocateScalars(vtk.VTK_BIT, 1)
    volume.SetAndObserveImageData(bits)
    assert_refused(panel, volume, "VolumeReader.py: has no numbers as voxels", "module Cast Scalar Volume")
    cast = vtk.vtkImageCast()  # as that module does
    cast.SetInputData(bits)
    cast.SetOutputScalarTypeToShort()
    cast.Update()
    volume.SetAndObserveImageData(cast.GetOutput())
    assert_ready(panel, volume)


@pytest.mark.parametrize("wrong", ["spacing", "origin"])
def test_a_geometry_that_is_none(panel, wrong):
    volume = scan()
    if wrong == "spacing":
        volume.SetSpacing(1, 0, 1)
    else:
        volume.SetOrigin(0, np.nan, 0)
    name = "VolumeReader.py: has no valid geometry"
    assert_refused(panel, volume, name, "Correct its spacing and origin in the module Volumes")
    volume.SetSpacing(1, 1, 1)  # the fields of that module's section Volume Information
    volume.SetOrigin(0, 0, 0)
    assert_ready(panel, volume)


def test_a_tilted_gantry(panel):
    import slicer
    from scipy import ndimage

    array, matrix = scenes.texture(SIZE), np.eye(4)
    matrix[1, 2] = 0.3
    volume = scenes.add_volume(array, "tilted", matrix)
    name = "VolumeReader.py: its axes are not at right angles"
    assert_refused(panel, volume, name, "module Resample Scalar/Vector/DWI Volume")
    straight = ndimage.affine_transform(array, [[1, 0, 0], [-0.3, 1, 0], [0, 0, 1]], order=1, mode="nearest")
    straight = scenes.add_volume(straight, "straight")
    along = slicer.util.arrayFromVolume(straight)
    assert np.allclose(along[10, 3:, :], array[10, :-3, :], atol=1), "the same voxels, at the same places"
    assert_ready(panel, straight)


@tries(
    "VolumeReader.py: every voxel is NaN or infinite",
    "VolumeReader.py: every voxel has the same value",
)
@pytest.mark.parametrize("value", [np.nan, pytest.param(7.0, marks=pytest.mark.slow)])
def test_a_volume_without_content(panel, value):
    import slicer

    volume = scenes.add_volume(np.full(SIZE, value, np.float32), "computed")
    scenes.select(panel, volume)
    click(panel.ui.segmentButton)
    processEvents(until=lambda: panel.job is None, timeout=240)
    assert "Check how it was loaded or computed." in panel.ui.messageLabel.text
    slicer.util.updateVolumeFromArray(volume, scenes.texture(SIZE, dtype="float32"))  # the mistake in it is corrected
    assert scenes.click_segment(panel).state == "finished"


@tries("RegionOfInterest.py: Move or enlarge it, or choose no ROI")
@pytest.mark.parametrize("way_out", ["move", "enlarge", "choose none"])
def test_a_region_beside_the_volume(panel, way_out):
    import slicer

    scenes.select(panel, scan())
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "there")
    roi.SetCenterWorld(50, 10, 10)
    roi.SetSizeWorld(12, 12, 12)
    panel.ui.roiSelector.setCurrentNode(roi)
    processEvents(until=lambda: not panel.ui.segmentButton.enabled, timeout=60)
    assert "encloses no voxel of 'scan'. Move or enlarge it, or choose no ROI." in panel.ui.fitLabel.text
    {
        "move": lambda: roi.SetCenterWorld(10, 10, 10),
        "enlarge": lambda: roi.SetSizeWorld(100, 12, 12),
        "choose none": lambda: panel.ui.roiSelector.setCurrentNode(None),
    }[way_out]()
    processEvents(until=lambda: panel.ui.segmentButton.enabled, timeout=60)


# ---- volumes and models


def test_several_values_in_each_voxel(panel):
    rng = np.random.default_rng(0)
    volume = scenes.add_volume(rng.normal(size=(*SIZE, 2)).astype(np.float32), "complex", vector=True)
    name, remedy = "ModelFit.py: (a vector or complex image), but the model takes one", "Choose a scalar volume, or"
    assert_refused(panel, volume, name, remedy)
    scenes.choose(panel, "two")
    assert_ready(panel, volume)
    scenes.choose(panel, "tiny")
    assert_ready(panel, scan())


@tries(
    "ModelFit.py: Choose a volume for each channel, or another model", "ModelFit.py: The channels are under different"
)
def test_channels_that_lack_or_lie_elsewhere(panel):
    import slicer

    first, second = scan(), scenes.add_volume(scenes.texture(SIZE, seed=1), "second")
    scenes.choose(panel, "two")
    scenes.select(panel, first)
    assert "Choose a volume for each channel, or another model." in panel.ui.fitLabel.text
    panel.ui.channel2Selector.setCurrentNode(second)
    processEvents(until=lambda: panel.ui.segmentButton.enabled, timeout=60)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    first.SetAndObserveTransformNodeID(transform.GetID())
    processEvents(until=lambda: not panel.ui.segmentButton.enabled, timeout=60)
    assert "Put all of them under the same transform, or harden the transforms." in panel.ui.fitLabel.text
    second.SetAndObserveTransformNodeID(transform.GetID())
    processEvents(until=lambda: panel.ui.segmentButton.enabled, timeout=60)
    second.SetAndObserveTransformNodeID(None)
    processEvents(until=lambda: not panel.ui.segmentButton.enabled, timeout=60)
    slicer.vtkSlicerTransformLogic.hardenTransform(first)
    processEvents(until=lambda: panel.ui.segmentButton.enabled, timeout=60)


def test_a_single_slice_for_a_model_of_volumes(panel):
    picture = scenes.add_volume(scenes.texture((1, 40, 40)), "picture")
    assert_refused(panel, picture, "ModelFit.py: but this is a single slice", "Choose a 2D model.")
    scenes.choose(panel, "photo")
    assert_ready(panel, picture)


def test_what_the_panel_says_before_anything_can_be_refused(panel):
    ui = panel.ui
    panel._parameters.model = ""
    assert ui.fitLabel.text == "Choose a model first." and not ui.segmentButton.enabled
    panel._parameters.model = "of another computer"
    assert ui.fitLabel.text.endswith("Choose another one, or add it.") and not ui.segmentButton.enabled
    scenes.choose(panel, "tiny")
    assert ui.fitLabel.text == "Choose a volume first, or try it on sample data."
    assert_ready(panel, scan())


# ---- where the result goes


@tries(
    "ResultWriter.py: is under another transform than the volume",
    "ResultWriter.py: is made of surfaces, not of voxels",
    "ResultWriter.py: or another one as output",
)
def test_an_output_that_cannot_take_the_result(panel):
    import slicer

    volume = scan()
    node = scenes.segmented(panel, volume)
    out = "Choose 'Create new segmentation' or another one as output."
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetAndObserveTransformNodeID(transform.GetID())
    click(panel.ui.segmentButton)
    assert panel.job is None and "is under another transform" in panel.ui.messageLabel.text
    assert out in panel.ui.messageLabel.text
    node.SetAndObserveTransformNodeID(None)
    node.CreateClosedSurfaceRepresentation()
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    click(panel.ui.segmentButton)
    assert panel.job is None and f"is made of surfaces, not of voxels. {out}" in panel.ui.messageLabel.text
    panel.ui.outputSelector.setCurrentNode(None)  # it shows: Create new segmentation
    assert scenes.click_segment(panel).state == "finished"
    other = panel.ui.outputSelector.currentNode()
    assert other is not node
    panel.ui.outputSelector.setCurrentNode(node)
    click(panel.ui.segmentButton)
    assert panel.job is None
    panel.ui.outputSelector.setCurrentNode(other)
    assert scenes.click_segment(panel).segmentationNode is other


@pytest.mark.slow
def test_an_output_that_is_no_segmentation(panel):
    import slicer

    volume, gone = scan(), slicer.vtkMRMLSegmentationNode()
    name, remedy = "ResultWriter.py: The chosen output is no segmentation", "or another one as output"
    refused(name, remedy, panel.logic.segment, volume, "tiny", gone)
    slicer.mrmlScene.AddNode(gone)
    assert panel.logic.segment(volume, "tiny", gone) is gone
