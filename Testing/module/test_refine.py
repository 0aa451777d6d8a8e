"""The effect ProSMA Refine through the panel. No window sends mouse events here: strokes are put into the views' real VTK
interactors (headless_slicer.strokes); everything from there on is as in Slicer, masking and undo on its real logic."""

import numpy as np
import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents, strokes

CENTRE, RADIUS = np.array([15, 14, 13]), 8  # i, j, k of the phantom's ball, and voxels


@pytest.fixture
def ball(panel):
    """A volume with a bright ball, and a segment of it that lacks the top."""
    return Ball(panel)


class Ball:
    SHAPE = (26, 28, 30)

    def __init__(self, panel, transform=None):
        import slicer

        self.panel, self.ui, self.editor = panel, panel.ui, panel.ui.segmentEditor
        k, j, i = np.indices(self.SHAPE)
        self.truth = (i - CENTRE[0]) ** 2 + (j - CENTRE[1]) ** 2 + (k - CENTRE[2]) ** 2 <= RADIUS**2
        noise = np.random.default_rng(0).normal(0, 8, self.SHAPE)
        self.volume = scenes.add_volume((100 + 200 * self.truth + noise).astype(np.int16), "ball", scenes.oblique())
        self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        self.node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        self.node.CreateDefaultDisplayNodes()
        if transform is not None:
            self.volume.SetAndObserveTransformNodeID(transform.GetID())
            self.node.SetAndObserveTransformNodeID(transform.GetID())
        self.transform = transform
        self.cut = self.truth & (k <= CENTRE[2] + 3)
        self.a = self.add("A", self.cut)
        scenes.select(panel, self.volume)
        panel.ui.outputSelector.setCurrentNode(self.node)
        processEvents()

    def add(self, name, mask):
        import slicer

        segment_id = self.node.GetSegmentation().AddEmptySegment(name, name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), self.node, segment_id, self.volume)
        return segment_id

    def segment(self, segment_id=None):
        return self.node.GetSegmentation().GetSegment(segment_id or self.a)

    def voxels(self, segment_id=None):
        return scenes.voxels(self.node, segment_id or self.a, self.volume).astype(bool)

    def ras(self, i, j, k):
        """World coordinates of a voxel."""
        import slicer
        import vtk

        matrix = vtk.vtkMatrix4x4()
        self.volume.GetIJKToRASMatrix(matrix)
        point = matrix.MultiplyPoint([i, j, k, 1])[:3]
        if self.transform is None:
            return point
        to_world = vtk.vtkGeneralTransform()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(self.transform, None, to_world)
        return to_world.TransformDoublePoint(*point)

    def start(self):
        """Open the section, click Refine, and return the effect's Python object."""
        if self.ui.correctCollapsibleButton.collapsed:
            click(self.ui.correctCollapsibleButton)
        if not self.ui.refineButton.checked:
            click(self.ui.refineButton)
        return self.editor.activeEffect().self()

    def draw(self, *voxels, **how):
        strokes.draw([self.ras(*voxel) for voxel in voxels], **how)

    def preview(self):
        import slicer

        return [
            node
            for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
            if node.GetName() == "ProSMA Refine preview"
        ]


def shown(ball, name):
    """The voxels that the preview shows as added or removed."""
    return scenes.voxels(ball.preview()[0], name, ball.volume).astype(bool)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def assert_better_than_a_brush(ball, effect):
    """The segment is nearer to the truth than it would be if the stroke alone had been painted into it."""
    painted = ball.cut | (effect._session._marks == 1)
    assert dice(ball.voxels(), ball.truth) > dice(painted, ball.truth) + 0.005
    assert painted.sum() > ball.cut.sum()


MISSING = (15, 14, 18), (17, 14, 18)  # in the part that the segment lacks
OUTSIDE = (3, 3, 20)


def test_the_segment_editor_offers_the_effect(ball):
    import slicer

    assert "ProSMA Refine" in ball.editor.availableEffectNames()
    assert slicer.modules.segmenteditorprosmarefine.hidden
    effect = ball.start()
    assert not effect.icon().isNull()
    assert "belongs" in effect.helpText()
    assert ball.ui.refineButton.checked
    click(ball.ui.refineButton)
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
    assert ball.editor.mrmlSegmentEditorNode().GetAttribute("ProSMA Refine.BrushRadiusMm") == "7.5"


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
    import slicer

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    matrix[:3, 3] = 20, -30, 10
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    ball = Ball(panel, transform)
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
    click(ball.ui.lockCheckBox) if not ball.ui.correctCollapsibleButton.collapsed else ball.start()
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
    assert not panel.ui.refineButton.enabled
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
    effect.refine([(0, 0, 0)], True)
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
    assert not ball.ui.refineButton.enabled


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


# ---- the embedded Segment Editor


def test_the_editor_follows_the_result_and_shares_the_applications_node(panel):
    import slicer

    volume = scenes.add_volume(scenes.texture((26, 28, 30)))
    node = scenes.segmented(panel, volume)
    editor = panel.ui.segmentEditor
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
