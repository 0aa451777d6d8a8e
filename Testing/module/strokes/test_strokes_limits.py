"""What strokes may not change, and what can go wrong meanwhile: said in words, nothing overwritten."""

import numpy as np
import pytest
from phantom import MISSING, Ball, shown

import headless_slicer
from headless_slicer import click, processEvents

# ---- what may be changed


@pytest.mark.parametrize("how", ["completed", "locked"])
def test_a_finished_segment_is_not_refined(ball, how):
    import slicer

    effect = ball.start()
    if how == "locked":
        click(ball.ui.lockCheckBox)
    else:
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        logic.SetSegmentStatus(ball.segment(), logic.Completed)
    ball.draw(*MISSING)
    assert how in effect.messageLabel.text
    assert not effect.applyButton.enabled
    assert np.array_equal(ball.voxels(), ball.cut)


def test_a_segment_that_is_locked_while_a_preview_waits_is_not_written(ball):
    effect = ball.start()
    ball.draw(*MISSING)
    click(ball.ui.lockCheckBox)
    click(effect.applyButton)
    assert "locked" in effect.messageLabel.text
    assert ball.preview() == []
    assert np.array_equal(ball.voxels(), ball.cut)


def test_the_lock_is_of_the_segment_and_saved_with_it(ball, tmp_path):
    import slicer

    b = ball.add("B", ball.truth & ~ball.cut)
    ball.start()
    if not ball.ui.lockCheckBox.checked:
        click(ball.ui.lockCheckBox)
    ball.editor.setCurrentSegmentID(b)
    processEvents()
    assert not ball.ui.lockCheckBox.checked
    path = tmp_path / "locked.seg.nrrd"
    slicer.util.saveNode(ball.node, str(path))
    slicer.mrmlScene.RemoveNode(ball.node)
    again = slicer.util.loadSegmentation(str(path))
    ball.panel.ui.outputSelector.setCurrentNode(again)
    processEvents()
    assert ball.ui.lockCheckBox.checked


def test_the_preview_shows_no_more_than_masking_lets_through(ball):
    ball.add("B", ball.truth & ~ball.cut)
    effect = ball.start()
    node = ball.editor.mrmlSegmentEditorNode()
    node.SetMaskMode(ball.node.EditAllowedOutsideAllSegments)
    effect.radiusSlider.value = 2.0
    ball.draw(*MISSING)
    assert not ball.preview() or not shown(ball, "added")[ball.truth & ~ball.cut].any()
    if effect.applyButton.enabled:
        click(effect.applyButton)
    assert not (ball.voxels() & ball.truth & ~ball.cut).any()
    node.SetMaskMode(ball.node.EditAllowedEverywhere)


def test_nothing_to_change_is_said(ball):
    effect = ball.start()
    node = ball.editor.mrmlSegmentEditorNode()
    node.SetSourceVolumeIntensityMask(True)
    node.SetSourceVolumeIntensityMaskRange(1e5, 2e5)
    ball.draw(*MISSING)
    assert "changes nothing" in effect.messageLabel.text
    assert not effect.applyButton.enabled
    node.SetSourceVolumeIntensityMask(False)


# ---- what can go wrong


def test_before_a_result_the_section_says_what_to_do(panel):
    assert not panel.ui.strokesButton.enabled
    assert "Segment a volume" in panel.ui.correctLabel.text


def test_undo_during_a_preview_discards_it_in_words(ball):
    effect = ball.start()
    ball.draw(*MISSING)
    click(effect.applyButton)
    ball.draw((15, 14, 8), shift=True)
    ball.editor.undo()
    click(effect.applyButton)
    assert "discarded" in effect.messageLabel.text
    assert np.array_equal(ball.voxels(), ball.cut)


def test_another_segment_gets_its_own_strokes(ball):
    b = ball.add("B", np.zeros_like(ball.truth))
    effect = ball.start()
    ball.draw(*MISSING)
    ball.editor.setCurrentSegmentID(b)
    processEvents()
    ball.draw((15, 14, 20))
    click(effect.applyButton)
    assert np.array_equal(ball.voxels(), ball.cut)
    assert ball.voxels(b)[20, 14, 15]


def test_a_deleted_volume_is_said(ball):
    import slicer

    effect = ball.start()
    slicer.mrmlScene.RemoveNode(ball.volume)
    processEvents()
    effect.stroke([(0, 0, 0)], True)
    assert "volume" in effect.messageLabel.text
    assert "volume is missing" in ball.ui.correctLabel.text or ball.ui.outputSelector.currentNode() is None


def test_a_removed_segmentation_or_segment_ends_the_preview(ball):
    import slicer

    effect = ball.start()
    ball.draw(*MISSING)
    ball.node.GetSegmentation().RemoveSegment(ball.a)
    processEvents()
    if effect.applyButton.enabled:
        click(effect.applyButton)
        assert effect.messageLabel.text
    slicer.mrmlScene.RemoveNode(ball.node)
    processEvents()
    assert ball.preview() == []
    assert ball.editor.activeEffect() is None
    assert not ball.ui.strokesButton.enabled


def test_closing_the_scene_during_a_stroke_leaves_nothing_behind(ball):
    ball.start()
    ball.draw(*MISSING)
    ball.draw((15, 14, 18), release=False)
    headless_slicer.closeScene()
    assert ball.preview() == []
    assert ball.editor.activeEffect() is None
    assert ball.editor.keyboardShortcuts() == ()
    again = Ball(ball.panel)
    effect = again.start()
    again.draw(*MISSING)
    click(effect.applyButton)
    assert again.voxels().sum() > again.cut.sum()


def test_a_stroke_beside_the_image_changes_nothing(ball):
    effect = ball.start()
    ball.draw((200, 14, 13))
    assert not effect.applyButton.enabled
    assert np.array_equal(ball.voxels(), ball.cut)


def test_a_hidden_segment_is_asked_about(ball):
    effect = ball.start()
    ball.node.GetDisplayNode().SetSegmentVisibility(ball.a, False)
    headless_slicer.answer("Yes")
    ball.draw(*MISSING)
    assert not effect.applyButton.enabled, "the dialog took the stroke"
    ball.draw(*MISSING)
    assert effect.applyButton.enabled


def test_the_effect_has_a_cursor_without_a_main_window_too(ball, monkeypatch):
    import slicer

    effect = ball.start()
    assert effect.createCursor(None) is not None
    monkeypatch.setattr(slicer.util, "mainWindow", lambda *_arguments: None)
    assert effect.createCursor(None) is not None
