"""The section More: volumes of probability, uncertainty and gates, the largest part alone, and a table of measures."""

import numpy as np
import pytest
import scenes
from scipy import ndimage

import headless_slicer
from headless_slicer import click, processEvents
from tiny_model import make_tiny_package

SIZE = (20, 22, 24)
TOUCHING = np.ones((3, 3, 3))


@pytest.fixture
def more(panel):
    """The panel with the section More open."""
    if panel.ui.moreCollapsibleButton.collapsed:
        click(panel.ui.moreCollapsibleButton)
    return panel


@pytest.fixture
def result(more):
    """(panel, volume, segmentation node) after a run."""
    volume = scenes.add_volume(scenes.texture(SIZE), "scan", scenes.oblique())
    return more, volume, scenes.segmented(more, volume)


def direct(models, output):
    """What the engine itself says of the volume of ``result``: (..., K, J, I), 0 to 1."""
    from prosma.image.geometry import Image
    from prosma.inference.segmenter import Segmenter

    image = Image(scenes.texture(SIZE).transpose(2, 1, 0)[None], scenes.oblique())
    found = getattr(Segmenter(models.tiny, "cpu").segment(image, (output,)), output)
    return found.swapaxes(-3, -1) / 255


def create(panel, kind, segment_id=None):
    """Choose an output, click Create volume, and wait. Returns the new node, or what the panel says."""
    import slicer

    before = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")}
    panel.ui.outputKindComboBox.setCurrentIndex(panel.ui.outputKindComboBox.findData(kind))
    if segment_id:
        panel.ui.outputSegmentComboBox.setCurrentIndex(panel.ui.outputSegmentComboBox.findData(segment_id))
    click(panel.ui.createVolumeButton)
    settle(panel)
    new = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n.GetID() not in before]
    return new[0] if new else panel.ui.outputVolumeLabel.text


def settle(panel):
    processEvents(until=lambda: not panel._outputs._tasks and panel._outputs.job is None, timeout=60)


def shown(node):
    """(R, A, S of the first voxel's and last voxel's centres, voxels) of a volume, and what its display is set to."""
    import slicer

    display = node.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (1, 0.5, 0)
    assert display.GetColorNode() is not None and display.GetColorNodeID() != "vtkMRMLColorTableNodeGrey"
    layers = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert layers.GetForegroundVolumeID() == node.GetID() and 0 < layers.GetForegroundOpacity() < 1
    return slicer.util.arrayFromVolume(node)


def test_volumes_of_probability_and_uncertainty_are_those_of_the_run(result, models):
    import slicer

    panel, volume, node = result
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetAndObserveTransformNodeID(transform.GetID())
    probabilities = direct(models, "probabilities")
    for label, segment_id in enumerate(scenes.segment_ids(node), start=1):
        output = create(panel, "probability", segment_id)
        assert np.allclose(shown(output), probabilities[label], atol=1e-6)
        assert output.GetTransformNodeID() == transform.GetID()
        assert scenes.names(node)[label - 1] in output.GetName()
        geometry = [slicer.util.vtkMatrixFromArray(np.eye(4)) for _each in range(2)]
        for each, matrix in zip((output, volume), geometry, strict=True):
            each.GetIJKToRASMatrix(matrix)
        assert np.allclose(*map(slicer.util.arrayFromVTKMatrix, geometry))
    assert np.abs(shown(create(panel, "entropy")) - direct(models, "uncertainty")).max() < 0.03
    ordered = np.sort(probabilities, axis=0)
    assert np.allclose(shown(create(panel, "margin")), 1 - (ordered[-1] - ordered[-2]), atol=1e-6)
    assert np.allclose(
        slicer.util.arrayFromVolume(panel.logic.outputVolume("margin", node)), 1 - ordered[-1] + ordered[-2]
    )


def test_the_gate_map_comes_from_a_run_that_writes_no_segmentation(result, models, tmp_path):
    import slicer

    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    panel, volume, _node = result
    output = create(panel, "gate")
    assert np.allclose(shown(output), direct(models, "gate_map"), atol=1e-6)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    assert panel.logic.activeJobs == []
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    roi.SetCenterWorld((bounds[::2] + bounds[1::2]) / 2)
    roi.SetSizeWorld((bounds[1::2] - bounds[::2]) * 0.4)
    part = slicer.util.arrayFromVolume(panel.logic.gateMap(volume, "tiny", roi))
    assert 0 < np.count_nonzero(part) < part.size / 2
    volumes = len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [4, 8, 8], "skip": "plain"}
    plain = make_tiny_package(tmp_path / "plain", id="plain", network=network)
    with pytest.raises(ProSMAError, match="no proximal gates"):
        panel.logic.gateMap(volume, plain)
    scenes.choose(panel, "slow")
    big = scenes.add_volume(scenes.texture((96, 96, 96)), "big")
    scenes.select(panel, big)
    panel.ui.outputKindComboBox.setCurrentIndex(3)
    click(panel.ui.createVolumeButton)
    assert panel.ui.createVolumeButton.text == "Cancel"
    click(panel.ui.createVolumeButton)
    assert "cancelled" in panel.ui.outputVolumeLabel.text
    click(panel.ui.createVolumeButton)
    slicer.mrmlScene.RemoveNode(big)
    settle(panel)
    assert "was removed" in panel.ui.outputVolumeLabel.text
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == volumes


def parts(voxels):
    """Sizes of the connected parts, largest first."""
    numbers, _count = ndimage.label(voxels, TOUCHING)
    return sorted(np.bincount(numbers.ravel())[1:], reverse=True)


def largest(panel):
    click(panel.ui.largestPartButton)
    settle(panel)
    return panel.ui.largestPartLabel.text


def islands(node, volume):
    """The label map of the run: the random model fills the volume with label 1, and strews label 2 into it."""
    labels = scenes.label_map(node, volume)
    assert len(parts(labels == 1)) == 1
    assert len(parts(labels == 2)) > 3
    return labels


def test_the_largest_part_stays_as_one_undo_step_and_still_is_prosmas(result):
    panel, volume, node = result
    labels = islands(node, volume)
    sizes = parts(labels == 2)
    editor = panel.ui.segmentEditor
    click(panel.ui.show3DButton)
    untouched = scenes.surface(node, scenes.segment_ids(node)[0])
    text = largest(panel)
    assert f"{sum(sizes[1:])} voxels of 'structure 2'" in text and "structure 1" not in text
    after = scenes.label_map(node, volume)
    assert parts(after == 2) == sizes[:1]
    assert np.array_equal(after == 1, labels == 1)
    assert (labels[after == 2] == 2).all()
    assert scenes.surface(node, scenes.segment_ids(node)[0]) is untouched, "only the changed segment's is made anew"
    scenes.assert_surfaces_are_current(node)
    click(panel.ui.show3DButton)
    assert "nothing to take out" in largest(panel)
    editor.undo()
    assert np.array_equal(scenes.label_map(node, volume), labels)
    editor.redo()
    assert np.array_equal(scenes.label_map(node, volume), after)
    scenes.click_segment(panel)
    assert len(scenes.segment_ids(node)) == 2, "the run replaced what nobody had edited"
    assert np.array_equal(scenes.label_map(node, volume), labels)


def test_edits_and_protected_segments_keep_their_islands(result):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
    from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities
    from ProSMASegmentationLib.Results.SegmentStatus import setLocked

    panel, volume, node = result
    first, second = scenes.segment_ids(node)
    labels = islands(node, volume)
    where = tuple(np.argwhere(ndimage.minimum_filter(labels == 1, 5, mode="constant"))[0])
    hole = tuple(slice(index - 2, index + 3) for index in where)
    change(node, first, volume, hole, 0)
    change(node, second, volume, where, 1)
    holed = scenes.voxels(node, first, volume).copy()
    setLocked(node.GetSegmentation().GetSegment(second), True)
    assert "nothing to take out" in largest(panel)
    with pytest.raises(ProSMAError, match="locked"):
        panel.logic.keepLargestPart(node, second)
    setLocked(node.GetSegmentation().GetSegment(second), False)
    assert "structure 2" in largest(panel)
    after = scenes.voxels(node, second, volume).copy()
    assert parts(after) == [parts(labels == 2)[0], 1] and after[where] == 1, "what was painted stays"
    assert np.array_equal(scenes.voxels(node, first, volume), holed)
    mine = node.GetSegmentation().AddEmptySegment("", "mine")
    with pytest.raises(ProSMAError, match="not made by ProSMA"):
        panel.logic.keepLargestPart(node, mine)
    scenes.click_segment(panel)
    assert np.array_equal(scenes.voxels(node, second, volume), after), "an edited segment is never replaced"
    KeptProbabilities.shared().clear()
    with pytest.raises(ProSMAError, match="not known any more"):
        panel.logic.keepLargestPart(node, second)
    untouched = scenes.segment_ids(node)[-1]
    assert panel.logic.keepLargestPart(node, untouched) == {"structure 2 (2)": sum(parts(labels == 2)[1:])}
    assert parts(scenes.voxels(node, untouched, volume)) == parts(labels == 2)[:1]


def change(node, segment_id, volume, where, value):
    """Paint or erase, as the Segment Editor does."""
    import slicer

    voxels = scenes.voxels(node, segment_id, volume).copy()
    voxels[where] = value
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment_id, volume)


def test_it_can_be_done_after_each_run_and_is_off_by_default(more):
    volume = scenes.add_volume(scenes.texture(SIZE), "scan", scenes.oblique())
    assert not more.ui.keepLargestCheckBox.checked
    node = scenes.segmented(more, volume)
    labels = islands(node, volume)
    click(more.ui.keepLargestCheckBox)
    assert more._parameters.keepLargestPart
    scenes.click_segment(more)
    settle(more)
    assert parts(scenes.label_map(node, volume) == 2) == parts(labels == 2)[:1]
    more.ui.segmentEditor.undo()
    assert np.array_equal(scenes.label_map(node, volume), labels), "the run itself is a step of its own"


def ball(shape, centre, radius):
    distance = sum((axis - c) ** 2 for axis, c in zip(np.ogrid[tuple(map(slice, shape))], centre, strict=True))
    return (distance <= radius**2).astype(np.uint8)


def drawn(volume, name, **segments):
    """A segmentation with these voxels."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for title, voxels in segments.items():
        segment_id = node.GetSegmentation().AddEmptySegment("", title)
        slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment_id, volume)
    return node


def test_a_table_of_volume_surface_and_agreement(more):
    import slicer

    shape = (40, 40, 40)
    volume = scenes.add_volume(scenes.texture(shape), ijk_to_ras=np.diag([2.0, 2.0, 2.0, 1.0]))
    one, two = ball(shape, (20, 20, 20), 12), ball(shape, (20, 20, 24), 12)
    node = drawn(volume, "mine", ball=one, other=ball(shape, (5, 5, 5), 3), empty=np.zeros(shape, np.uint8))
    coarse = scenes.add_volume(scenes.texture((20, 20, 20)), "coarse", np.diag([4.0, 4.0, 4.0, 1.0]))
    reference = drawn(volume, "theirs", Ball=two)
    more.ui.inputVolumeSelector.setCurrentNode(volume)
    more.ui.outputSelector.setCurrentNode(node)
    more.ui.referenceSelector.setCurrentNode(reference)
    click(more.ui.measureButton)
    settle(more)
    tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
    assert len(tables) == 1 and f"'{tables[0].GetName()}'" in more.ui.measuresLabel.text
    content = tables[0].GetTable()
    titles = [content.GetColumnName(column) for column in range(content.GetNumberOfColumns())]
    assert titles == ["Segment", "Volume (ml)", "Surface (mm2)", "Dice with theirs"]
    rows = [[content.GetValue(row, column) for column in range(4)] for row in range(3)]
    assert [row[0].ToString() for row in rows] == ["ball", "other", "empty"]
    assert rows[0][1].ToDouble() == pytest.approx(one.sum() * 8 / 1000)
    assert rows[0][2].ToDouble() == pytest.approx(4 * np.pi * 24**2, rel=0.05)
    assert rows[0][3].ToDouble() == pytest.approx(2 * (one & two).sum() / (one.sum() + two.sum()))
    assert np.isnan(rows[1][3].ToDouble()) and rows[2][1].ToDouble() == rows[2][2].ToDouble() == 0
    assert more.ui.measuresTable.item(0, 3).text() == f"{rows[0][3].ToDouble():.3f}"
    assert more.ui.measuresTable.item(1, 3).text() == "-"
    assert not node.GetSegmentation().ContainsRepresentation("Closed surface")
    same = drawn(coarse, "coarse one", ball=ball((20, 20, 20), (9.75, 9.75, 9.75), 6))
    table = more.logic.measure(node, same).GetTable()
    assert 0.85 < table.GetValue(0, 3).ToDouble() < 1
    plain = more.logic.measure(node)
    assert plain.GetTable().GetNumberOfColumns() == 3


def test_what_is_not_there_is_said_in_words(more, tmp_path):
    import slicer

    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
    from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities

    for kind in ("entropy", "probability"):
        assert "Segment a volume first" in create(more, kind)
    assert "No volume is chosen" in create(more, "gate")
    assert "Segment a volume first" in largest(more)
    click(more.ui.measureButton)
    assert "Segment a volume first" in more.ui.measuresLabel.text
    volume = scenes.add_volume(scenes.texture(SIZE), "scan", scenes.oblique())
    node = scenes.segmented(more, volume)
    with pytest.raises(ProSMAError, match="agrees with itself"):
        more.logic.measure(node, node)
    with pytest.raises(ProSMAError, match="no output 'colour'"):
        more.logic.outputVolume("colour", node)
    slicer.mrmlScene.RemoveNode(volume)
    entropy = more.logic.outputVolume("entropy", node)
    assert slicer.util.arrayFromVolume(entropy).any(), "the volume itself is not needed"
    processEvents(until=lambda: more.ui.inputVolumeSelector.currentNode() is entropy)
    more.ui.outputSelector.setCurrentNode(node)
    processEvents()
    more.ui.measureButton.click()  # no events are processed before the node is gone
    slicer.mrmlScene.RemoveNode(node)
    settle(more)
    assert "was removed while" in more.ui.measuresLabel.text
    assert slicer.util.getNodesByClass("vtkMRMLTableNode") == []
    node = more.logic.segment(entropy, "tiny")
    KeptProbabilities.shared().clear()
    more.ui.outputSelector.setCurrentNode(node)
    processEvents()
    assert "not saved with the scene" in create(more, "margin")
    click(more.ui.createVolumeButton)
    headless_slicer.closeScene()
    processEvents()
    assert more.ui.outputSegmentComboBox.count == 0
