"""The Segment Editor's stand-in on the real logic: effects, strokes, masking, undo, keys, and editors that share a node."""

from pathlib import Path

import numpy as np
import pytest

import headless_slicer
from headless_slicer import click, qt, strokes

MODULE = Path(__file__).parent / "module" / "Stamper.py"
IN_RED, IN_GREEN, IN_NONE = (40, 40, 45), (70, 40, 45), (55, 15, 45)  # RAS points of the fixture's two balls


@pytest.fixture
def editor(slicer, volume, segmentation):
    """An editor of two balls with the example effect."""
    assert headless_slicer.loadModule(MODULE) is None, "a hidden module has no panel"
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setParent(slicer.util.mainWindow(), qt.Qt.Window)
    editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setMRMLScene(slicer.mrmlScene)
    editor.setSegmentationNode(segmentation)
    editor.show()
    yield editor
    editor.setActiveEffect(None)
    editor.uninstallKeyboardShortcuts()
    editor.deleteLater()
    headless_slicer.unloadModule("Stamper")


@pytest.fixture
def voxels(slicer, volume, segmentation):
    return lambda name: slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, name, volume).copy()


def start(editor):
    click(editor.findChild(qt.QToolButton, "Stamp"))
    return editor.activeEffect().self()


def test_the_source_volume_and_first_segment_are_chosen_with_the_segmentation(editor, volume):
    assert editor.sourceVolumeNode() is volume
    assert editor.currentSegmentID() == "red"
    assert "Stamp" in editor.availableEffectNames()


def test_a_stroke_reaches_the_active_effect_and_can_be_undone(editor, voxels):
    before = voxels("red")
    strokes.draw([IN_NONE])
    assert np.array_equal(voxels("red"), before), "no effect is active"
    effect = start(editor)
    strokes.draw([IN_NONE])
    after = voxels("red")
    assert after.sum() == before.sum() + 6**3
    click(editor.findChild(qt.QToolButton, "UndoButton"))
    assert np.array_equal(voxels("red"), before)
    click(editor.findChild(qt.QToolButton, "RedoButton"))
    assert np.array_equal(voxels("red"), after)
    click(editor.findChild(qt.QToolButton, "NULL"))
    assert effect.seen == ["activate", "deactivate"]


def test_overwriting_is_that_of_the_real_logic(editor, voxels, segmentation):
    start(editor)
    green = voxels("green")
    box = editor.findChild(qt.QComboBox, "OverwriteModeComboBox")
    box.setCurrentIndex(box.findText("Allow overlap"))
    strokes.draw([IN_GREEN])
    assert np.array_equal(voxels("green"), green)
    assert (voxels("red") & green).sum() == 6**3
    box.setCurrentIndex(box.findText("Overwrite visible"))
    segmentation.GetDisplayNode().SetSegmentVisibility("green", False)
    strokes.draw([IN_GREEN])
    assert np.array_equal(voxels("green"), green)
    box.setCurrentIndex(box.findText("Overwrite all"))
    strokes.draw([IN_GREEN])
    assert green.sum() - voxels("green").sum() == 6**3


def test_masking_is_that_of_the_real_logic(editor, voxels):
    start(editor)
    red, green = voxels("red"), voxels("green")
    mode = editor.findChild(qt.QComboBox, "MaskModeComboBox")
    mode.setCurrentIndex(mode.findText("OutsideAllSegments"))
    strokes.draw([IN_GREEN])
    assert np.array_equal(voxels("red"), red)
    mode.setCurrentIndex(mode.findText("Inside green"))
    strokes.draw([IN_NONE])
    assert np.array_equal(voxels("red"), red)
    strokes.draw([IN_GREEN])
    assert green.sum() - voxels("green").sum() == 6**3
    mode.setCurrentIndex(mode.findText("Everywhere"))
    click(editor.findChild(qt.QCheckBox, "SourceVolumeIntensityMaskCheckBox"))
    editor.mrmlSegmentEditorNode().SetSourceVolumeIntensityMaskRange(1e6, 2e6)
    red = voxels("red")
    strokes.draw([IN_NONE])
    assert np.array_equal(voxels("red"), red)


def test_options_are_attributes_of_the_node(editor):
    effect = start(editor)
    assert effect.sizeBox.value == 6
    effect.sizeBox.value = 4
    node = editor.mrmlSegmentEditorNode()
    assert node.GetAttribute("Stamp.Size") == "4"
    effect.scriptedEffect.setParameter("Size", 2)
    assert effect.sizeBox.value == 2


def test_keys_work_while_they_are_installed(editor):
    assert editor.keyboardShortcuts() == ()
    editor.installKeyboardShortcuts()
    assert {"1", "Z", "Y", "Esc"} <= set(editor.keyboardShortcuts())
    editor.uninstallKeyboardShortcuts()
    assert editor.keyboardShortcuts() == ()


def test_without_a_selected_segment_the_effect_cannot_be_chosen(editor, slicer):
    start(editor)
    table = editor.findChild(slicer.qMRMLSegmentsTableView, "SegmentsTableView")
    table.setSelectedSegmentIDs([])
    headless_slicer.processEvents()
    assert editor.activeEffect() is None
    assert not editor.findChild(qt.QToolButton, "Stamp").enabled


def test_editors_that_share_a_node_activate_their_effects_together(editor, slicer):
    """A trap of Slicer's: both act on one stroke's events, and the first one stops the event."""
    other = slicer.qMRMLSegmentEditorWidget()
    other.setMRMLScene(slicer.mrmlScene)
    other.setMRMLSegmentEditorNode(editor.mrmlSegmentEditorNode())
    start(editor)
    assert other.activeEffect() is not None
    editor.setActiveEffect(None)
    assert other.activeEffect() is None
    other.deleteLater()


def test_closing_the_scene_ends_the_effect(editor, slicer):
    effect = start(editor)
    observer = slicer.mrmlScene.AddObserver(
        slicer.mrmlScene.StartCloseEvent, lambda *_: editor.setSegmentationNode(None)
    )
    headless_slicer.closeScene()  # the observer does what Slicer's own module does
    slicer.mrmlScene.RemoveObserver(observer)
    assert editor.activeEffect() is None
    assert effect.seen[-1] == "deactivate"


def test_an_exception_in_an_effect_is_reported(editor):
    effect = start(editor)
    effect.scriptedEffect.setParameter("Size", "six")
    with pytest.raises(headless_slicer.SlotError, match="six"):
        headless_slicer.processEvents()
