"""Sliders that move borders from the kept probabilities; what a person painted stays, bit for bit."""

import os
import shutil

import numpy as np
import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents, qt


@pytest.fixture
def result(panel):
    """(panel, volume, segmentation node) after a run, with the section Correct open."""
    volume = scenes.add_volume(scenes.texture((26, 28, 30)), ijk_to_ras=scenes.oblique())
    node = scenes.segmented(panel, volume)
    scenes.open_correct(panel, "sensitivity")
    return panel, volume, node


def drag(panel, segment_id, *values):
    """Press a slider's handle, move it over the values, release it. Values are shifts of log odds."""
    slider = panel._sensitivity.slider(segment_id)
    assert slider.enabled, slider.toolTip
    slider.setSliderDown(True)
    for value in values:
        slider.setValue(round(20 * value))
        processEvents()
    slider.setSliderDown(False)
    settle(panel)


def settle(panel):
    """Wait for the fingerprint of the segment that was moved and for the sliders."""
    task = panel._sensitivity._task
    processEvents(until=lambda: task is None or task._ended)
    processEvents(until=lambda: scenes.is_settled(panel._sensitivity))


def drag_with_the_mouse(slider, value):
    option = qt.QStyleOptionSlider()
    slider.initStyleOption(option)
    style, kind = slider.style(), qt.QStyle.CC_Slider
    handle = style.subControlRect(kind, option, qt.QStyle.SC_SliderHandle, slider)
    groove = style.subControlRect(kind, option, qt.QStyle.SC_SliderGroove, slider)
    way = groove.width() - handle.width()
    pixels = round(way * (20 * value - slider.value) / (slider.maximum - slider.minimum))
    start = handle.center()
    qt.QTest.mousePress(slider, qt.Qt.LeftButton, qt.Qt.NoModifier, start)
    qt.QTest.mouseMove(slider, start + qt.QPoint(pixels // 2, 0))
    qt.QTest.mouseMove(slider, start + qt.QPoint(pixels, 0))
    qt.QTest.mouseRelease(slider, qt.Qt.LeftButton, qt.Qt.NoModifier, start + qt.QPoint(pixels, 0))
    processEvents()


def test_a_drag_of_the_mouse_moves_the_border_of_one_segment_only(result):
    panel, volume, node = result
    first, other = scenes.segment_ids(node)
    before, kept = scenes.voxels(node, first, volume).copy(), scenes.voxels(node, other, volume).copy()
    slider = panel._sensitivity.slider(first)
    drag_with_the_mouse(slider, -3)
    settle(panel)
    assert slider.value < -20
    assert float(scenes.tag(node, first, "ProSMA.sensitivity")) == pytest.approx(slider.value / 20)
    shrunk = scenes.voxels(node, first, volume).copy()
    assert shrunk.sum() < before.sum()
    assert (shrunk <= before).all()
    assert np.array_equal(scenes.voxels(node, other, volume), kept)
    drag_with_the_mouse(slider, 3)
    settle(panel)
    grown = scenes.voxels(node, first, volume)
    assert slider.value > 20
    assert (grown >= before).all()
    assert np.array_equal(scenes.voxels(node, other, volume), kept)


def test_a_real_structure_grows_into_the_background_only_and_comes_back(panel):
    scenes.choose(panel, "hippocampus-mr")
    click(panel.ui.sampleButton)
    volume = panel.ui.inputVolumeSelector.currentNode()
    node = scenes.segmented(panel, volume)
    scenes.open_correct(panel, "sensitivity")
    labels = scenes.label_map(node, volume)
    for value, segment_id in enumerate(scenes.segment_ids(node), start=1):
        sizes = []
        for shift in (-4, -1, 0, 1, 4):
            drag(panel, segment_id, shift)
            inside = scenes.voxels(node, segment_id, volume) > 0
            assert not inside[(labels != 0) & (labels != value)].any()
            assert np.array_equal(scenes.label_map(node, volume)[labels == 3 - value], labels[labels == 3 - value])
            sizes.append(int(inside.sum()))
        assert sizes == sorted(set(sizes)), "more sensitive is larger"
        drag(panel, segment_id, 0)
        assert np.array_equal(scenes.label_map(node, volume), labels)


def test_the_voxels_are_those_of_the_shifted_odds_and_the_middle_is_the_run_itself(result, models):
    from prosma.correct.sensitivity import entry_levels, level_of
    from prosma.image.geometry import Image
    from prosma.inference.segmenter import Segmenter

    panel, volume, node = result
    array = scenes.texture((26, 28, 30))
    direct = Segmenter(models.tiny, "cpu").segment(
        Image(array.transpose(2, 1, 0)[None], scenes.oblique()), ("probabilities",)
    )
    for value, segment_id in enumerate(scenes.segment_ids(node), start=1):
        before = scenes.voxels(node, segment_id, volume).copy()
        levels = entry_levels(direct.probabilities, direct.labels, value).transpose(2, 1, 0)
        for shift in (1.0, -1.5, 5.0, -5.0):
            drag(panel, segment_id, shift)
            assert np.array_equal(scenes.voxels(node, segment_id, volume), levels <= level_of(shift))
        drag(panel, segment_id, 2, 0)
        assert np.array_equal(scenes.voxels(node, segment_id, volume), before)


def test_a_moved_segment_still_counts_as_untouched_so_that_a_run_replaces_it(result):
    panel, volume, node = result
    labels = scenes.label_map(node, volume)
    first = scenes.segment_ids(node)[0]
    drag(panel, first, -2)
    assert not np.array_equal(scenes.label_map(node, volume), labels)
    assert scenes.click_segment(panel).state == "finished"
    assert len(scenes.segment_ids(node)) == 2
    assert np.array_equal(scenes.label_map(node, volume), labels)
    processEvents(until=lambda: panel._sensitivity.slider(first).value == 0)


def paint(node, segment_id, volume):
    """Add a block and take another away. Returns where, and what is there then."""
    import slicer

    voxels = scenes.voxels(node, segment_id, volume).copy()
    painted = np.zeros(voxels.shape, bool)
    painted[3:9, 3:9, 3:9] = painted[15:22, 15:22, 15:22] = True
    inside = np.zeros(voxels.shape, np.uint8)
    inside[3:9, 3:9, 3:9] = 1
    edited = painted & (inside != voxels)
    voxels[painted] = inside[painted]
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment_id, volume)
    processEvents()
    return edited, inside[edited]


def test_painted_voxels_stay_bit_for_bit_wherever_the_slider_goes(result):
    panel, volume, node = result
    first = scenes.segment_ids(node)[0]
    edited, values = paint(node, first, volume)
    assert edited.sum() > 50
    before = scenes.voxels(node, first, volume).copy()
    for shifts in ((1, 3), (-4,), (5,), (-5, 2), (0,)):
        drag(panel, first, *shifts)
        assert np.array_equal(scenes.voxels(node, first, volume)[edited], values)
    assert np.array_equal(scenes.voxels(node, first, volume), before)
    assert scenes.click_segment(panel).state == "finished"
    assert len(scenes.segment_ids(node)) == 3, "an edited segment is never replaced, moved or not"
    assert np.array_equal(scenes.voxels(node, first, volume), before)


def test_a_segment_does_not_grow_into_others_on_whatever_layer(result):
    import slicer

    panel, volume, node = result
    first = scenes.segment_ids(node)[0]
    drag(panel, first, -5)
    mine = node.GetSegmentation().AddEmptySegment("", "mine")
    block = np.zeros((26, 28, 30), np.uint8)
    block[4:20, 4:20, 4:20] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(block, node, mine, volume)
    was = scenes.voxels(node, first, volume)[block > 0].copy()
    drag(panel, first, 5)
    assert np.array_equal(scenes.voxels(node, mine, volume), block)
    assert np.array_equal(scenes.voxels(node, first, volume)[block > 0], was)


def test_a_segment_does_not_grow_into_one_on_a_coarser_grid(result):
    import slicer
    import vtk

    from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap

    panel, volume, node = result
    first = scenes.segment_ids(node)[0]
    drag(panel, first, -5)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    double = vtk.vtkMatrix4x4()
    double.DeepCopy([2, 0, 0, 0.5, 0, 2, 0, 0.5, 0, 0, 2, 0.5, 0, 0, 0, 1])  # each voxel covers 8 of the volume's
    vtk.vtkMatrix4x4.Multiply4x4(matrix, double, matrix)
    image, array = SegmentLabelmap.create((2, 2, 2), (8, 8, 8), False, matrix)
    array[...] = 1
    segment = slicer.vtkSegment()
    segment.SetName("coarse")
    segment.AddRepresentation("Binary labelmap", image)
    node.GetSegmentation().AddSegment(segment, "coarse")
    covered = (slice(4, 20),) * 3
    before = scenes.voxels(node, first, volume).copy()
    drag(panel, first, 5)
    now = scenes.voxels(node, first, volume)
    assert np.array_equal(now[covered], before[covered])
    assert now.sum() > before.sum()
    assert (SegmentLabelmap.array(image) == 1).all()


def test_a_release_is_one_undo_step_that_takes_the_slider_along(result):
    import slicer

    panel, volume, node = result
    first = scenes.segment_ids(node)[0]
    editor = panel.ui.segmentEditor
    assert editor.segmentationNode() is node
    start = scenes.voxels(node, first, volume).copy()
    drag(panel, first, 1, 2, 3)
    grown = scenes.voxels(node, first, volume).copy()
    editor.saveStateForUndo()
    edited, values = paint(node, first, volume)
    painted = scenes.voxels(node, first, volume).copy()
    drag(panel, first, -2)
    shrunk = scenes.voxels(node, first, volume).copy()
    drag(panel, first, 1, -2)  # back to where it was: no step
    slider = panel._sensitivity.slider(first)
    for expected, position in ((painted, 60), (grown, 60), (start, 0)):
        editor.undo()
        settle(panel)
        assert np.array_equal(scenes.voxels(node, first, volume), expected)
        processEvents(until=lambda position=position: slider.value == position)
    for expected, position in ((grown, 60), (painted, 60), (shrunk, -40)):
        editor.redo()
        settle(panel)
        assert np.array_equal(scenes.voxels(node, first, volume), expected)
        processEvents(until=lambda position=position: slider.value == position)
    drag(panel, first, 4)
    assert np.array_equal(scenes.voxels(node, first, volume)[edited], values)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_the_sensitivity_is_saved_with_the_scene_and_the_slider_says_that_probabilities_are_gone(result, tmp_path):
    import slicer

    panel, _volume, _node = result
    volume = scenes.add_volume(scenes.texture((26, 28, 30)), "right-handed, so that files keep the order of its voxels")
    node = scenes.segmented(panel, volume)
    settle(panel)
    first = scenes.segment_ids(node)[0]
    edited, values = paint(node, first, volume)
    drag(panel, first, 2.5)
    expected = scenes.voxels(node, first, volume).copy()
    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    headless_slicer.closeScene()
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    processEvents()
    node, volume = panel.ui.outputSelector.currentNode(), panel.ui.inputVolumeSelector.currentNode()
    found = scenes.voxels(node, first, volume)
    assert np.array_equal(found, expected)
    assert np.array_equal(found[edited], values)
    settle(panel)
    slider = panel._sensitivity.slider(first)
    assert slider.value == 50
    assert not slider.enabled
    assert "not saved with the scene" in panel.ui.sensitivityLabel.text
    assert_refused(panel, node, first, "no_probabilities", "not saved with the scene")


def assert_refused(panel, node, segment_id, code, text):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    before = scenes.serialised()
    with pytest.raises(ProSMAError, match=text) as refused:
        panel.logic.setSensitivity(node, segment_id, 1)
    assert refused.value.code == code
    assert scenes.serialised() == before


def test_shown_surfaces_stay_while_the_slider_moves_and_that_of_the_segment_follows(result):
    panel, _volume, node = result
    node.CreateClosedSurfaceRepresentation()
    first, other = scenes.segment_ids(node)
    kept = scenes.surface(node, other)
    before = scenes.surface(node, first)
    slider = panel._sensitivity.slider(first)
    slider.setSliderDown(True)
    slider.setValue(-40)
    assert scenes.surface(node, first) is before and scenes.surface(node, other) is kept
    slider.setSliderDown(False)
    settle(panel)
    assert scenes.surface(node, other) is kept, "only one is made anew"
    shrunk = scenes.surface(node, first)
    assert shrunk is not before
    node.RemoveClosedSurfaceRepresentation()
    node.CreateClosedSurfaceRepresentation()
    assert np.array_equal(scenes.points(shrunk), scenes.points(scenes.surface(node, first)))
    drag(panel, first, 1, -2)
    assert np.array_equal(scenes.points(shrunk), scenes.points(scenes.surface(node, first))), "back to where it was"


@pytest.mark.parametrize("gone", ["segment", "node", "scene"])
def test_what_goes_away_under_a_held_slider_leaves_the_rest_whole(result, gone):
    import slicer

    panel, volume, node = result
    first, other = scenes.segment_ids(node)
    kept = scenes.voxels(node, other, volume).copy()
    slider = panel._sensitivity.slider(first)
    slider.setSliderDown(True)
    slider.setValue(-20)
    if gone == "segment":
        node.GetSegmentation().RemoveSegment(first)
    elif gone == "node":
        slicer.mrmlScene.RemoveNode(node)
    else:
        headless_slicer.closeScene()
    processEvents()
    assert (panel._sensitivity.slider(first) is slider) == (gone == "segment")
    if gone == "segment":
        slider.setValue(20)
        slider.setSliderDown(False)
        settle(panel)
        assert scenes.segment_ids(node) == [other]
        assert panel._sensitivity.slider(first) is None
        assert np.array_equal(scenes.voxels(node, other, volume), kept)
        drag(panel, other, 1)
        assert (scenes.voxels(node, other, volume) >= kept).all()
    else:
        assert "Segment a volume first" in panel.ui.sensitivityLabel.text
        assert kept_folders() == []


def test_python_moves_segments_as_the_slider_does(result):
    panel, volume, node = result
    first = scenes.segment_ids(node)[0]
    drag(panel, first, 1.5)
    expected = scenes.voxels(node, first, volume).copy()
    panel.logic.setSensitivity(node, first, 0)
    assert panel.logic.sensitivity(node, first) == 0
    panel.logic.setSensitivity(node, first, 1.5)
    assert panel.logic.sensitivity(node, first) == 1.5
    assert np.array_equal(scenes.voxels(node, first, volume), expected)
    assert scenes.tag(node, first, "ProSMA.fingerprint") != "edited"


def test_locked_and_completed_segments_and_those_of_others_are_left_alone(result):
    import slicer

    from ProSMASegmentationLib.Results.SegmentStatus import setLocked

    panel, _volume, node = result
    first, second = scenes.segment_ids(node)
    segmentation, logic = node.GetSegmentation(), slicer.vtkSlicerSegmentationsModuleLogic
    setLocked(segmentation.GetSegment(first), True)
    logic.SetSegmentStatus(segmentation.GetSegment(second), logic.Completed)
    mine = segmentation.AddEmptySegment("", "mine")
    settle(panel)
    assert not panel._sensitivity.slider(first).enabled
    assert not panel._sensitivity.slider(second).enabled
    assert panel._sensitivity.slider(mine) is None
    assert_refused(panel, node, first, "protected", "locked")
    assert_refused(panel, node, second, "protected", "completed")
    assert_refused(panel, node, mine, "no_probabilities", "not made by ProSMA")
    assert_refused(panel, node, "nonsense", "bad_output", "no segment")


def test_without_a_result_the_section_says_what_to_do(panel):
    scenes.open_correct(panel, "sensitivity")
    assert panel.ui.sensitivityTable.rowCount == 0
    assert "Segment a volume first" in panel.ui.sensitivityLabel.text
    assert not panel.ui.resetSensitivityButton.enabled


def test_neither_volume_nor_model_is_needed_any_more(panel, models):
    import slicer

    folder = models.home / "models" / "short-lived"
    shutil.copytree(models.tiny.folder, folder)
    (folder / "model.json").write_text((folder / "model.json").read_text().replace('"id": "tiny"', '"id": "short"'))
    panel.logic.library.refresh()
    volume = scenes.add_volume(scenes.texture((24, 24, 24)))
    node = panel.logic.segment(volume, model="short")
    shutil.rmtree(folder)
    panel.logic.library.refresh()
    slicer.mrmlScene.RemoveNode(volume)
    first = scenes.segment_ids(node)[0]
    image = node.GetSegmentation().GetSegment(first).GetRepresentation("Binary labelmap")
    before = image.GetMTime()
    panel.logic.setSensitivity(node, first, 2)
    assert image.GetMTime() > before
    assert panel.logic.reviewRegions(node)


def test_the_button_puts_all_sliders_back(result):
    panel, volume, node = result
    labels = scenes.label_map(node, volume)
    for segment_id in scenes.segment_ids(node):
        drag(panel, segment_id, -2)
    click(panel.ui.show3DButton)
    click(panel.ui.resetSensitivityButton)
    processEvents(until=lambda: panel._sensitivity._resetting._ended)
    settle(panel)
    scenes.assert_surfaces_are_current(node)
    assert np.array_equal(scenes.label_map(node, volume), labels)
    assert not panel.ui.resetSensitivityButton.enabled


def kept_folders():
    import slicer

    return [name for name in os.listdir(slicer.app.temporaryPath) if name.startswith("prosma-kept-")]


def test_probabilities_lie_on_disk_as_long_as_their_segmentation(result):
    import slicer

    panel, volume, node = result
    assert len(kept_folders()) == 1
    second = panel.logic.segment(volume, model="tiny")
    assert len(kept_folders()) == 2
    slicer.mrmlScene.RemoveNode(second)
    processEvents()
    assert len(kept_folders()) == 1
    first = scenes.segment_ids(node)[0]
    drag(panel, first, 1)
    headless_slicer.closeScene()
    assert kept_folders() == []


def test_a_key_moves_the_border_too_and_the_wheel_only_when_the_slider_was_chosen(result):
    panel, _volume, node = result
    first = scenes.segment_ids(node)[0]
    slider = panel._sensitivity.slider(first)
    qt.QTest.keyClick(slider, qt.Qt.Key_Right)
    settle(panel)
    assert panel.logic.sensitivity(node, first) == pytest.approx(0.1)
    slider.clearFocus()
    wheel = qt.QWheelEvent(
        qt.QPointF(5, 5),
        qt.QPointF(5, 5),
        qt.QPoint(),
        qt.QPoint(0, 120),
        qt.Qt.NoButton,
        qt.Qt.NoModifier,
        qt.Qt.NoScrollPhase,
        False,
    )
    qt.QApplication.sendEvent(slider, wheel)
    assert slider.value == 2
