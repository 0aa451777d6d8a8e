"""A later run never changes what a person has made."""

import numpy as np
import pytest
import scenes

from headless_slicer import click, processEvents


@pytest.fixture
def result(panel):
    """(panel, volume, segmentation node) after a first run."""
    volume = scenes.add_volume(scenes.texture((26, 28, 30)))
    return panel, volume, scenes.segmented(panel, volume)


def run_again(panel, node):
    """Segment into the same node; returns ids of segments that are new."""
    before = scenes.segment_ids(node)
    assert panel.ui.outputSelector.currentNode() is node
    job = scenes.click_segment(panel)
    assert job.state == job.FINISHED, str(job.error)
    assert job.segmentationNode is node
    return [segment_id for segment_id in scenes.segment_ids(node) if segment_id not in before]


def paint(node, segment_id, volume):
    """Draw a block into a segment, as an effect of the Segment Editor does. Returns the segment's voxels afterwards."""
    import slicer

    painted = scenes.voxels(node, segment_id, volume).copy()
    painted[2:9, 2:9, 2:9] = 1
    painted[20:, 20:, 20:] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted, node, segment_id, volume)
    return scenes.voxels(node, segment_id, volume).copy()


def test_untouched_segments_are_replaced_in_place_and_keep_name_and_colour(result):
    panel, volume, node = result
    first = scenes.segment_ids(node)[0]
    segment = node.GetSegmentation().GetSegment(first)
    segment.SetName("my name")
    segment.SetColor(0.1, 0.2, 0.3)
    labels = scenes.label_map(node, volume)
    assert run_again(panel, node) == []
    assert scenes.names(node)[0] == "my name"
    assert segment.GetColor() == (0.1, 0.2, 0.3)
    assert np.array_equal(scenes.label_map(node, volume), labels)


def test_an_edited_segment_stays_bit_for_bit_and_the_new_result_comes_beside_it(result):
    panel, volume, node = result
    edited, other = scenes.segment_ids(node)
    expected_new = scenes.voxels(node, edited, volume).copy()
    painted = paint(node, edited, volume)
    expected_other = scenes.label_map(node, volume)
    new = run_again(panel, node)
    assert len(new) == 1
    assert np.array_equal(scenes.voxels(node, edited, volume), painted)
    assert scenes.names(node) == ["structure 1", "structure 2", "structure 1 (2)"]
    assert np.array_equal(scenes.voxels(node, new[0], volume), expected_new)
    assert scenes.voxels(node, other, volume).any()
    assert expected_other.shape == painted.shape
    assert run_again(panel, node) == [], "the segment beside it is ours and untouched, so it takes the next result"


def test_an_edit_on_the_layer_that_segments_share_is_noticed(result):
    """The Segment Editor changes the voxels that several segments have in common, in place."""
    import slicer

    panel, volume, node = result
    first, _second = scenes.segment_ids(node)
    array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, first)
    array[array == 1] = 0
    array.flat[:50] = 1
    node.GetSegmentation().GetSegment(first).GetRepresentation("Binary labelmap").Modified()
    painted = scenes.voxels(node, first, volume).copy()
    assert len(run_again(panel, node)) >= 1
    assert np.array_equal(scenes.voxels(node, first, volume), painted)


def test_a_segment_marked_as_completed_is_never_changed(result):
    import slicer

    panel, volume, node = result
    first = scenes.segment_ids(node)[0]
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetSegmentStatus(node.GetSegmentation().GetSegment(first), logic.Completed)
    image = node.GetSegmentation().GetSegment(first).GetRepresentation("Binary labelmap")
    before = scenes.voxels(node, first, volume).copy()
    assert len(run_again(panel, node)) == 1
    assert np.array_equal(scenes.voxels(node, first, volume), before)
    assert node.GetSegmentation().GetSegment(first).GetRepresentation("Binary labelmap") is image


def test_segments_from_elsewhere_and_from_other_models_are_left_alone(panel):
    import slicer

    volume = scenes.add_volume(scenes.texture((26, 28, 30)))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    mine = node.GetSegmentation().AddEmptySegment("", "structure 1")
    painted = paint(node, mine, volume)
    scenes.select(panel, volume)
    panel.ui.outputSelector.setCurrentNode(node)
    processEvents()
    assert len(run_again(panel, node)) == 2
    assert np.array_equal(scenes.voxels(node, mine, volume), painted)
    assert scenes.names(node) == ["structure 1", "structure 1 (2)", "structure 2"]
    before = {each: scenes.voxels(node, each, volume).copy() for each in scenes.segment_ids(node)}
    scenes.choose(panel, "coarse")
    assert len(run_again(panel, node)) == 2
    assert all(np.array_equal(scenes.voxels(node, each, volume), old) for each, old in before.items())


def test_a_segmentation_of_another_place_is_refused_in_words(result):
    import slicer

    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    panel, volume, node = result
    node.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    before = scenes.serialised()
    with pytest.raises(ProSMAError, match="another transform") as refused:
        panel.logic.segment(volume, model="tiny", outputSegmentation=node)
    assert refused.value.code == "bad_output"
    assert scenes.serialised() == before


def test_a_result_is_one_undo_step_of_the_segment_editor(result):
    import slicer

    panel, volume, node = result
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setParent(slicer.util.mainWindow())
    editor.setMRMLScene(slicer.mrmlScene)
    editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setSegmentationNode(node)
    try:
        paint(node, scenes.segment_ids(node)[0], volume)
        before_ids = scenes.segment_ids(node)
        before = [scenes.voxels(node, each, volume).copy() for each in before_ids]
        run_again(panel, node)
        assert scenes.segment_ids(node) != before_ids
        editor.undo()
        assert scenes.segment_ids(node) == before_ids
        after = [scenes.voxels(node, each, volume) for each in before_ids]
        assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
        editor.redo()
        assert len(scenes.segment_ids(node)) == 3
    finally:
        editor.setSegmentationNode(None)
        editor.deleteLater()


def test_shown_surfaces_follow_the_new_result(result):
    """Also that of an edited segment, which stays, and of the new one beside it. They are those that Slicer makes."""
    panel, volume, node = result
    first = scenes.segment_ids(node)[0]
    paint(node, first, volume)
    click(panel.ui.show3DButton)
    edited = scenes.surface(node, first)
    stages = set()
    click(panel.ui.segmentButton)
    job = panel.job
    job.onProgress.append(lambda job: stages.add(job.stage))
    processEvents(until=lambda: not job.isActive, timeout=60)
    assert job.state == job.FINISHED, str(job.error)
    assert "Making surfaces" in stages
    assert len(scenes.segment_ids(node)) == 3
    assert scenes.surface(node, first) is edited
    scenes.assert_surfaces_are_current(node)


def test_surfaces_that_are_switched_on_or_off_during_a_run_are_right_at_its_end(result):
    panel, _volume, node = result
    for shown in (True, False):
        click(panel.ui.segmentButton)
        job = panel.job
        job.onProgress.append(lambda job: job.stage == "Making surfaces" and node.RemoveClosedSurfaceRepresentation())
        if shown:
            write = job._writer._intoOutput
            job._writer._intoOutput = lambda *given, write=write: (
                node.CreateClosedSurfaceRepresentation(),
                write(*given),
            )[1]
        processEvents(until=lambda job=job: not job.isActive, timeout=60)
        assert job.state == job.FINISHED, str(job.error)
        assert node.GetSegmentation().ContainsRepresentation("Closed surface") == shown
        if shown:
            scenes.assert_surfaces_are_current(node)
