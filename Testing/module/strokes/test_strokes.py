"""The effect ProSMA Strokes through the panel. No window sends mouse events here: strokes are put into the views' real VTK
interactors (headless_slicer.strokes); everything from there on is as in Slicer, masking and undo on its real logic."""

import numpy as np
import pytest
import scenes
from phantom import MISSING, OUTSIDE, Ball, assert_better_than_a_brush, shown

from headless_slicer import click, processEvents, strokes


def test_the_segment_editor_offers_the_effect(ball):
    import slicer

    assert "ProSMA Strokes" in ball.editor.availableEffectNames()
    assert slicer.modules.segmenteditorprosmastrokes.hidden
    effect = ball.start()
    assert not effect.icon().isNull()
    assert "belongs" in effect.helpText()
    assert ball.ui.strokesButton.checked
    click(ball.ui.strokesButton)
    assert ball.editor.activeEffect() is None


def test_a_stroke_is_previewed_then_applied_as_one_undo_step(ball):
    effect = ball.start()
    assert not effect.applyButton.enabled
    ball.draw(*MISSING)
    assert np.array_equal(ball.voxels(), ball.cut), "a preview writes nothing"
    added, removed = shown(ball, "added"), shown(ball, "removed")
    click(effect.applyButton)
    after = ball.voxels()
    assert np.array_equal(added, after & ~ball.cut)
    assert np.array_equal(removed, ball.cut & ~after)
    assert_better_than_a_brush(ball, effect)
    assert after[18, 14, 15:18].all(), "what was drawn is in the segment"
    assert ball.preview() == []
    assert not effect.applyButton.enabled
    ball.editor.undo()
    assert np.array_equal(ball.voxels(), ball.cut)
    ball.editor.redo()
    assert np.array_equal(ball.voxels(), after)


def test_cancel_leaves_the_segment_as_it_is(ball):
    effect = ball.start()
    ball.draw(*MISSING)
    click(effect.cancelButton)
    assert ball.preview() == []
    assert np.array_equal(ball.voxels(), ball.cut)
    assert not effect.applyButton.enabled


def test_shift_and_the_choice_of_the_other_kind_take_voxels_out(ball):
    effect = ball.start()
    ball.draw((15, 14, 8), shift=True)
    click(effect.applyButton)
    assert not ball.voxels()[8, 14, 15]
    click(effect.excludeButton)
    ball.draw((15, 10, 13))
    click(effect.applyButton)
    assert not ball.voxels()[13, 10, 15]
    ball.draw((15, 10, 13), shift=True)
    click(effect.applyButton)
    assert ball.voxels()[13, 10, 15]


def test_strokes_before_are_honoured_by_later_ones(ball):
    effect = ball.start()
    effect.radiusSlider.value = 1.0
    ball.draw((13, 14, 17), shift=True)
    ball.draw((17, 14, 17))
    click(effect.applyButton)
    assert not ball.voxels()[17, 14, 13]
    assert ball.voxels()[17, 14, 17]
    ball.draw((11, 14, 17))  # beyond what the stroke before has reached
    click(effect.applyButton)
    assert not ball.voxels()[17, 14, 13]
    assert ball.voxels()[17, 14, 17]


def test_applied_at_once_each_stroke_is_an_undo_step(ball):
    effect = ball.start()
    click(effect.atOnceCheckBox)
    ball.draw(*MISSING)
    first = ball.voxels()
    assert first.sum() > ball.cut.sum()
    assert ball.preview() == []
    ball.draw((15, 14, 8), shift=True, view="Green")
    assert not ball.voxels()[8, 14, 15]
    ball.editor.undo()
    assert np.array_equal(ball.voxels(), first)
    ball.editor.undo()
    assert np.array_equal(ball.voxels(), ball.cut)


def test_the_same_strokes_give_the_same_segment(ball):
    effect = ball.start()
    results = []
    for _ in range(2):
        ball.draw(*MISSING)
        ball.draw(OUTSIDE, shift=True)
        click(effect.applyButton)
        results.append(ball.voxels())
        ball.editor.undo()
    assert np.array_equal(*results)


def test_the_brush_grows_and_shrinks_and_is_kept_with_the_editor(ball):
    effect = ball.start()
    before = effect.radiusSlider.value
    strokes.key("plus")
    strokes.wheel(shift=True)
    assert effect.radiusSlider.value == pytest.approx(before * 1.44, abs=0.06)
    strokes.key("minus")
    strokes.wheel(forward=False, shift=True)
    assert effect.radiusSlider.value == pytest.approx(before, abs=0.06)
    effect.radiusSlider.value = 7.5
    assert ball.editor.mrmlSegmentEditorNode().GetAttribute("ProSMA Strokes.BrushRadiusMm") == "7.5"


def test_a_disc_stays_in_its_slice_and_a_sphere_does_not(ball):
    effect = ball.start()
    click(effect.excludeButton)
    effect.radiusSlider.value = 4.0
    ball.draw((15, 14, 10))
    marks = effect._session._marks
    disc = marks.any(axis=(1, 2)).sum()
    click(effect.cancelButton)
    click(effect.sphereCheckBox)
    ball.draw((15, 14, 10))
    assert effect._session._marks.any(axis=(1, 2)).sum() > disc
    click(effect.sphereCheckBox)
    click(effect.cancelButton)


def test_it_works_under_a_transform(panel):
    ball = Ball(panel, scenes.quarter_turn())
    effect = ball.start()
    ball.draw(*MISSING)
    click(effect.applyButton)
    assert ball.voxels()[18, 14, 15:18].all()
    assert_better_than_a_brush(ball, effect)


def test_a_segment_on_another_grid_is_refined_too(ball):
    """The Segment Editor edits on the segmentation's reference grid, which need not be that of the labelmap."""
    import slicer

    coarse = slicer.util.addVolumeFromArray(
        ball.cut[::2, ::2, ::2].astype(np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode"
    )
    matrix = scenes.oblique()
    matrix[:3, :3] *= 2
    coarse.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(coarse, ball.node)
    other = scenes.segment_ids(ball.node)[-1]
    ball.node.SetReferenceImageGeometryParameterFromVolumeNode(ball.volume)
    ball.editor.setCurrentSegmentID(other)
    processEvents()
    effect = ball.start()
    ball.draw(*MISSING)
    click(effect.applyButton)
    assert ball.voxels(other)[18, 14, 15:18].all()
