"""What cannot be done with a result, and that it can be once a person has done what the refusal says."""

import numpy as np
import pytest
import scenes

from headless_slicer import processEvents
from remedies import refused
from tiny_model import make_tiny_package

SIZE = (16, 18, 20)


def scan():
    return scenes.add_volume(scenes.texture(SIZE), "scan")


@pytest.fixture
def result(panel):
    """(logic, volume, segmentation node) after a run."""
    volume = scan()
    return panel.logic, volume, scenes.segmented(panel, volume)


def again(result):
    """What "Segment the volume again" makes: the ids of new segments beside those that were edited."""
    logic, volume, node = result
    before = scenes.segment_ids(node)
    assert logic.segment(volume, "tiny", node) is node
    return [each for each in scenes.segment_ids(node) if each not in before]


def paint(result, segment_id, where=np.s_[2:5, 2:5, 2:5]):
    """As the effect Paint does."""
    import slicer

    _logic, volume, node = result
    voxels = scenes.voxels(node, segment_id, volume).copy()
    voxels[where] ^= 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment_id, volume)


def test_before_there_is_a_result(panel):
    logic, volume = panel.logic, scan()
    first = "Segment a volume first"
    doors = {
        "Review.py: There is no segmentation to review": logic.reviewRegions,
        "LargestPart.py: There is no segmentation to change": logic.keepLargestPart,
        "OutputVolume.py: There is no result of ProSMA's yet": lambda node: logic.outputVolume("entropy", node),
        "SegmentMeasures.py: There is no segmentation to measure": logic.measure,
        "SensitivityMove.py: There is no segment": lambda node: logic.setSensitivity(
            node, scenes.segment_ids(node)[0] if node is not None else "", 1
        ),
    }
    for name, do in doors.items():
        refused(name, first, do, None)
    node = scenes.segmented(panel, volume)
    for do in doors.values():
        do(node)
    refused("SensitivityMove.py: choose another segment", "choose another", logic.setSensitivity, node, "gone", 1)
    logic.setSensitivity(node, scenes.segment_ids(node)[1], -1)


def test_the_probabilities_are_gone(result):
    from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities

    logic, _volume, node = result
    first, second = scenes.segment_ids(node)
    paint(result, first)
    KeptProbabilities.shared().clear()  # as in a scene that was saved and loaded
    remedy = "Segment the volume again"
    refused("SensitivityMove.py: are not there any more", remedy, logic.setSensitivity, node, second, 1)
    refused("OutputVolume.py: of this result are not there any more", remedy, logic.outputVolume, "margin", node)
    refused("Review.py: There are no class probabilities", remedy, logic.reviewRegions, node)
    refused("LargestPart.py: which voxels of", remedy, logic.keepLargestPart, node, first)
    (new,) = again(result)  # beside the painted one; the other is replaced
    logic.setSensitivity(node, second, 1)
    assert logic.outputVolume("margin", node).GetImageData() is not None
    assert logic.reviewRegions(node)
    logic.keepLargestPart(node, new)


@pytest.mark.parametrize("change", ["state", pytest.param("grid", marks=pytest.mark.slow)])
def test_a_segment_that_the_run_does_not_know(result, change):
    """A state of another session; and voxels that a script has put onto another grid."""
    import slicer

    logic, volume, node = result
    first = scenes.segment_ids(node)[0]
    segment = node.GetSegmentation().GetSegment(first)
    if change == "state":
        segment.SetTag("ProSMA.state", "9")
        name = "KeptResult.py: what ProSMA wrote into the segment"
    else:
        coarse = scenes.add_volume(scenes.texture((8, 9, 10)), "coarse", np.diag([2.0, 2.0, 2.0, 1.0]))
        voxels = np.ones((8, 9, 10), np.uint8)
        node.GetSegmentation().SeparateSegmentLabelmap(first)
        slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, first, coarse)
        slicer.mrmlScene.RemoveNode(coarse)
        name = "SegmentLabelmap.py: lies on another voxel grid"
    refused(name, "Segment the volume again", logic.setSensitivity, node, first, 1)
    new = logic.segment(volume, "tiny")
    logic.setSensitivity(new, scenes.segment_ids(new)[0], 1)


def test_a_segment_that_is_finished_or_a_persons_own(result):
    import slicer

    from ProSMASegmentationLib.Results.SegmentStatus import setLocked

    logic, _volume, node = result
    first, second = scenes.segment_ids(node)
    segmentation, statuses = node.GetSegmentation(), slicer.vtkSlicerSegmentationsModuleLogic
    doors = {
        "SensitivityMove.py: ProSMAError('protected'": lambda each: logic.setSensitivity(node, each, 1),
        "LargestPart.py: ProSMAError('protected'": lambda each: logic.keepLargestPart(node, each),
    }
    setLocked(segmentation.GetSegment(first), True)
    statuses.SetSegmentStatus(segmentation.GetSegment(second), statuses.Completed)
    for name, do in doors.items():
        refused(name, "is locked. Unlock it to change it.", do, first)
        refused(name, "is marked as completed. Change its status to change it.", do, second)
    setLocked(segmentation.GetSegment(first), False)
    statuses.SetSegmentStatus(segmentation.GetSegment(second), statuses.InProgress)
    for do in doors.values():
        do(first)
        do(second)
    mine = segmentation.AddEmptySegment("", "mine")
    for name in ("SensitivityMove.py: was not made by ProSMA", "LargestPart.py: ProSMAError('protected'"):
        do = doors.get(name, lambda each: logic.setSensitivity(node, each, 1))
        refused(name, "with the Segment Editor", do, mine)
    paint(result, mine)
    assert scenes.voxels(node, mine, result[1]).sum() == 27


@pytest.mark.slow
def test_a_structure_that_the_model_does_not_see(panel, tmp_path):
    logic, volume = panel.logic, scan()
    blind = make_tiny_package(tmp_path / "blind", id="blind", bias=[0.0, 9.0, -99.0])
    node = logic.segment(volume, blind)
    second = scenes.segment_ids(node)[1]
    name = "SensitivityMove.py: The model sees no trace of"
    refused(
        name, "Draw it with the Segment Editor, or segment with another model.", logic.setSensitivity, node, second, 5
    )
    paint((logic, volume, node), second)
    assert scenes.voxels(node, second, volume).sum() == 27
    other = logic.segment(volume, "tiny")
    logic.setSensitivity(other, scenes.segment_ids(other)[1], 5)


def test_what_changes_or_goes_away_meanwhile(result):
    import slicer

    from prosma.steps import finish
    from ProSMASegmentationLib.Correct.LargestPart import LargestPart
    from ProSMASegmentationLib.Outputs.OutputVolume import OutputVolume
    from ProSMASegmentationLib.Outputs.SegmentMeasures import SegmentMeasures

    logic, volume, node = result
    first, second = scenes.segment_ids(node)

    def begun(steps):
        next(steps)
        return steps

    steps = begun(LargestPart(node, [second]).steps())
    paint(result, second)
    refused("LargestPart.py: was changed meanwhile", "Do it again", finish, steps)
    assert logic.keepLargestPart(node)

    steps = begun(SegmentMeasures(node).steps())
    node.GetSegmentation().RemoveSegment(first)
    refused("SegmentMeasures.py: A segment was removed", "Measure again", finish, steps)
    assert logic.measure(node).GetTable().GetNumberOfRows() == 1

    steps = [begun(make(node).steps()) for make in (LargestPart, SegmentMeasures)]
    steps.append(begun(OutputVolume(node, "entropy").steps()))
    slicer.mrmlScene.RemoveNode(node)
    refused("LargestPart.py: The result was removed meanwhile", "Segment the volume again", finish, steps[0])
    name = "SegmentMeasures.py: The segmentation was removed"
    refused(name, "Choose a segmentation, and measure again", finish, steps[1])
    refused("OutputVolume.py: The result was removed meanwhile", "Segment the volume again", finish, steps[2])
    node = logic.segment(volume, "tiny")
    for make in (LargestPart, SegmentMeasures):
        finish(make(node).steps())
    logic.outputVolume("entropy", node)


@pytest.mark.slow
def test_choices_of_outputs_and_measures(panel):
    import slicer

    logic, volume = panel.logic, scan()
    node = scenes.segmented(panel, volume)
    remedy = "Choose probability, entropy or margin; for the gates there is gateMap()."
    refused("OutputsLogic.py: There is no output", remedy, logic.outputVolume, "colour", node)
    refused("OutputVolume.py: No segment is chosen", "Choose the segment.", logic.outputVolume, "probability", node)
    for kind in ("entropy", "margin"):
        logic.outputVolume(kind, node)
    logic.outputVolume("probability", node, scenes.segment_ids(node)[0])

    remedy = "Choose another one to compare with."
    refused("SegmentMeasures.py: A segmentation agrees with itself", remedy, logic.measure, node, node)
    other = logic.segment(volume, "coarse")
    logic.measure(node, other)
    name = "SegmentMeasures.py: There is no segmentation to measure"
    refused(name, "Choose another one", logic.measure, node, slicer.vtkMRMLSegmentationNode())

    other.CreateClosedSurfaceRepresentation()
    other.GetSegmentation().SetSourceRepresentationName("Closed surface")
    name = "SegmentMeasures.py: is made of surfaces, not of voxels"
    refused(name, "Convert it to a binary labelmap in the Segmentations module", logic.measure, node, other)
    other.GetSegmentation().CreateRepresentation("Binary labelmap")
    other.GetSegmentation().SetSourceRepresentationName("Binary labelmap")
    logic.measure(node, other)

    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty")
    refused("SegmentMeasures.py: has no segments", "Segment a volume first.", logic.measure, empty)
    logic.measure(logic.segment(volume, "tiny", empty))
    processEvents()
