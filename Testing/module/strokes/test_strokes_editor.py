"""The Segment Editor inside the panel: it follows the result and gives back what it shares."""

import numpy as np
import scenes
from phantom import MISSING, Ball

from headless_slicer import click, processEvents


def test_the_editor_follows_the_result_and_shares_the_applications_node(panel):
    import slicer

    volume = scenes.add_volume(scenes.texture((26, 28, 30)))
    node = scenes.segmented(panel, volume)
    editor = panel.ui.segmentEditor
    scenes.open_correct(panel, "editor")
    assert editor.segmentationNode() is node
    assert editor.sourceVolumeNode() is volume
    shared = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    assert editor.mrmlSegmentEditorNode() is shared
    assert editor.keyboardShortcuts()
    panel.ui.outputSelector.setCurrentNode(None)
    processEvents()
    assert editor.mrmlSegmentEditorNode() is not shared
    assert shared.GetSegmentationNode() is node, "the application's editor keeps its segmentation"


def test_leaving_the_panel_gives_the_node_and_the_keys_back(ball):
    import slicer

    ball.start()
    ball.draw(*MISSING)
    shared = ball.editor.mrmlSegmentEditorNode()
    ball.panel.exit()
    assert ball.editor.keyboardShortcuts() == ()
    assert not ball.editor.viewsObserved()
    assert ball.editor.activeEffect() is None
    assert ball.editor.mrmlSegmentEditorNode() is not shared
    assert ball.preview() == []
    assert slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode") is shared
    ball.panel.enter()
    assert ball.editor.mrmlSegmentEditorNode() is shared
    assert ball.editor.segmentationNode() is ball.node


def test_the_applications_editor_does_not_act_on_the_panels_strokes(panel):
    """Two editors on one node both activate their effects; the undo step would land in the hidden one."""
    import slicer

    panel.exit()
    application = slicer.qMRMLSegmentEditorWidget()
    application.setParent(slicer.util.mainWindow())
    application.setMRMLScene(slicer.mrmlScene)
    shared = slicer.vtkMRMLSegmentEditorNode()
    shared.SetSingletonTag("SegmentEditor")
    shared = slicer.mrmlScene.AddNode(shared)
    application.setMRMLSegmentEditorNode(shared)
    try:
        panel.enter()
        ball = Ball(panel)
        effect = ball.start()
        assert application.activeEffect() is None
        click(effect.atOnceCheckBox)
        ball.draw(*MISSING)
        assert ball.voxels().sum() > ball.cut.sum()
        ball.editor.undo()
        assert np.array_equal(ball.voxels(), ball.cut)
        panel.exit()
        assert application.mrmlSegmentEditorNode() is shared
        panel.enter()
    finally:
        application.setMRMLSegmentEditorNode(None)
        application.deleteLater()
