"""What strokes are refused for, and that they are answered once a person has done what the refusal says."""

import sys

import pytest
import scenes
from phantom import MISSING

from headless_slicer import click, processEvents
from remedies import tries


def applied(ball, effect):
    """Draw in the part that is missing, and apply: the segment grows."""
    before = ball.voxels().sum()
    ball.draw(*MISSING)
    processEvents(until=lambda: not effect.isBusy, timeout=120)
    assert effect.applyButton.enabled, effect.messageLabel.text
    click(effect.applyButton)
    assert ball.voxels().sum() > before


@tries("StrokesSession.py: ProSMAError('bad_input', why)")
@pytest.mark.parametrize(
    "why", ["locked", pytest.param("completed", marks=pytest.mark.slow), pytest.param("volume", marks=pytest.mark.slow)]
)
def test_something_that_may_not_be_changed_or_is_not_there(ball, why):
    import slicer

    effect, statuses = ball.start(), slicer.vtkSlicerSegmentationsModuleLogic
    if why == "locked":
        click(ball.ui.lockCheckBox)
    elif why == "completed":
        statuses.SetSegmentStatus(ball.segment(), statuses.Completed)
    else:
        ball.editor.setSourceVolumeNode(None)
    effect.stroke([ball.ras(*voxel) for voxel in MISSING])
    said = {
        "locked": "Unlock it to change it.",
        "completed": "Change its status to change it.",
        "volume": "Choose a source volume.",
    }
    assert said[why] in effect.messageLabel.text and not effect.applyButton.enabled
    if why == "locked":
        click(ball.ui.lockCheckBox)
    elif why == "completed":
        statuses.SetSegmentStatus(ball.segment(), statuses.InProgress)
    else:
        ball.editor.setSourceVolumeNode(ball.volume)
    applied(ball, effect)


@tries("StrokesSession.py: Boxes and lassos need a model for strokes", "StrokesSession.py: There is no segment to take")
def test_strokes_that_need_a_model_or_a_segment(ball, install):
    install()
    effect = ball.start()
    click(effect.toolButtons["Box"])
    scenes.keep_models_for_strokes(ball.panel)  # the model is removed, and Check again clicked
    ball.draw((8, 8, 18), (20, 20, 18))
    assert effect.messageLabel.text == "Boxes and lassos need a model for strokes. Paint a stroke instead."
    click(effect.toolButtons["Brush"])
    applied(ball, effect)
    ball.node.GetSegmentation().RemoveSegment(ball.a)
    processEvents()
    ball.draw(*MISSING, shift=True)
    assert "Select one, or say first what belongs to it." in effect.messageLabel.text
    ball.draw(*MISSING)
    click(effect.applyButton)
    (new,) = list(ball.node.GetSegmentation().GetSegmentIDs())
    grown = ball.voxels(new).sum()
    ball.draw(MISSING[0], shift=True)
    click(effect.applyButton)
    assert 0 < ball.voxels(new).sum() < grown


@pytest.mark.slow
@tries("Base/OwnedFolder.py: A temporary file could not be written")
@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
def test_a_full_disk(ball, install, small_files):
    install()
    effect = ball.start()
    with small_files():
        ball.draw(*MISSING)
        processEvents(until=lambda: not effect.isBusy, timeout=120)
    assert "Free some space in" in effect.messageLabel.text and "try again" in effect.messageLabel.text
    applied(ball, effect)


def test_the_other_kind_of_image_for_a_model_of_strokes(panel, install):
    packages = {dimension: install(dimension) for dimension in (2, 3)}
    images = {
        dimension: scenes.add_volume(scenes.texture((1 if dimension == 2 else 20, 20, 20))) for dimension in (2, 3)
    }
    for dimension, words in ((2, "Choose the one for pictures."), (3, "Choose the one for volumes.")):
        scenes.choose(panel, packages[5 - dimension].id)
        scenes.select(panel, images[dimension])
        assert words in panel.ui.fitLabel.text and not panel.ui.segmentButton.enabled
        scenes.choose(panel, packages[dimension].id)
        processEvents(until=lambda: panel.ui.segmentButton.enabled, timeout=60)
        assert panel.ui.segmentButton.text == "Start strokes"
