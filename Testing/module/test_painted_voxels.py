"""Voxels that a person painted or declared finished survive everything, bit for bit.

Strokes are put into the views' VTK interactors, as no window sends the mouse here (headless_slicer.strokes). Painting goes
through vtkSlicerSegmentEditorLogic with the editor's node, which is what Slicer's effect Paint calls.
"""

import numpy as np
import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents, strokes

SHAPE = (26, 28, 30)
MASK_MODES = (
    "Everywhere",
    "InsideAllSegments",
    "InsideVisibleSegments",
    "OutsideAllSegments",
    "OutsideVisibleSegments",
)


class Case:
    """A result of the model ``tiny`` whose first segment, A, a person painted in."""

    def __init__(self, panel):
        self.panel, self.editor = panel, panel.ui.segmentEditor
        self.volume = scenes.add_volume(scenes.texture(SHAPE))
        self.node = scenes.segmented(panel, self.volume)
        self.a, self.b = scenes.segment_ids(self.node)
        self.mine = np.zeros(SHAPE, bool)
        self.mine[3:11, 4:12, 5:13] = True
        self.paint(self.a, self.mine)
        self.painted = self.voxels(self.a)
        assert self.painted[self.mine].all()

    def voxels(self, segment_id):
        return scenes.voxels(self.node, segment_id, self.volume).astype(bool)

    def paint(self, segment_id, where):
        """Paint voxels, as the Segment Editor's effects do."""
        import slicer
        from vtk.util.numpy_support import vtk_to_numpy

        self.editor.setCurrentSegmentID(segment_id)
        logic = slicer.vtkSlicerSegmentEditorLogic()
        logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        logic.SetMRMLScene(slicer.mrmlScene)
        logic.SetSegmentEditorNode(self.editor.mrmlSegmentEditorNode())
        logic.ResetModifierLabelmapToDefault()
        labelmap = logic.GetModifierLabelmap()
        vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(SHAPE)[:] = where
        self.editor.saveStateForUndo()
        logic.ModifySegmentByLabelmap(self.node, segment_id, labelmap, logic.ModificationModeAdd, True, False)
        processEvents()

    def refine(self, segment_id, *voxels, shift=False):
        """Select a segment, draw a stroke and apply it. Returns the effect's message."""
        ui = self.panel.ui
        self.editor.setCurrentSegmentID(segment_id)
        processEvents()
        scenes.open_correct(self.panel, "editor")
        if not ui.strokesButton.checked:
            click(ui.strokesButton)
        effect = self.editor.activeEffect().self()
        strokes.draw(list(voxels), shift=shift)  # i, j, k are the RAS coordinates of these volumes
        if effect.applyButton.enabled:
            click(effect.applyButton)
        return effect.messageLabel.text

    def way_into(self, segment_id):
        """Two voxels: one near the painted ones, and from there the nearest one of a segment, in its largest slice."""
        voxels = self.voxels(segment_id)
        k = int(voxels.sum(axis=(1, 2)).argmax())
        inside = np.argwhere(voxels[k])
        j, i = inside[((inside - (7, 8)) ** 2).sum(axis=1).argmin()]
        return (8, 7, k), (int(i), int(j), k)

    def newest_b(self):
        """The segment that the last run wrote for B: B itself, or one beside it."""
        return [i for i in scenes.segment_ids(self.node) if scenes.tag(self.node, i, "ProSMA.label") == "2"][-1]

    def move(self, segment_id, position):
        """Drag a segment's sensitivity slider to a position."""
        section = self.panel._sensitivity
        processEvents(until=lambda: scenes.is_settled(section))
        slider = section.slider(segment_id)
        assert slider.enabled, slider.toolTip
        slider.setSliderDown(True)
        slider.setValue(position)
        slider.setSliderDown(False)
        processEvents(until=lambda: section._task._ended)

    def run(self):
        job = scenes.click_segment(self.panel)
        assert job.state == job.FINISHED, str(job.error)
        assert job.segmentationNode is self.node


@pytest.fixture
def case(panel):
    return Case(panel)


def finish(case, how):
    import slicer

    segment = case.node.GetSegmentation().GetSegment(case.a)
    if how == "completed":
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        logic.SetSegmentStatus(segment, logic.Completed)
    else:
        case.editor.setCurrentSegmentID(case.a)
        processEvents()
        scenes.open_correct(case.panel, "editor")
        click(case.panel.ui.lockCheckBox)


def mask_modes(case):
    """Each mask mode in turn, the last one inside the segment A."""
    node = case.editor.mrmlSegmentEditorNode()
    for name in MASK_MODES:
        node.SetMaskMode(getattr(case.node, f"EditAllowed{name}"))
        yield name
    node.SetMaskSegmentID(case.a)
    node.SetMaskMode(case.node.EditAllowedInsideSingleSegment)
    yield "inside A"
    node.SetMaskMode(case.node.EditAllowedEverywhere)
    low, high = case.volume.GetImageData().GetScalarRange()
    node.SetSourceVolumeIntensityMaskRange(low, (low + high) / 2)
    node.SetSourceVolumeIntensityMask(True)
    yield "intensity"
    node.SetSourceVolumeIntensityMask(False)


@pytest.mark.parametrize(
    ("overwrite", "how"),
    [
        ("OverwriteAllSegments", "locked"),
        pytest.param("OverwriteAllSegments", "completed", marks=pytest.mark.slow),
        pytest.param("OverwriteVisibleSegments", "completed", marks=pytest.mark.slow),
        pytest.param("OverwriteVisibleSegments", "locked", marks=pytest.mark.slow),
        pytest.param("OverwriteNone", "completed", marks=pytest.mark.slow),
        pytest.param("OverwriteNone", "locked", marks=pytest.mark.slow),
    ],
)
def test_finish_a_then_run_and_refine_and_move_b_and_a_is_unchanged(case, overwrite, how):
    """In every mask mode: the strokes lie in A and beside it, and say both that B is there and that it is not; then B's
    slider goes to both ends."""
    finish(case, how)
    node = case.editor.mrmlSegmentEditorNode()
    node.SetOverwriteMode(getattr(node, overwrite))
    b, changes = case.b, 0
    for mode in mask_modes(case):
        before = case.voxels(b)
        case.refine(b, (8, 7, 6), (14, 7, 6))
        assert np.array_equal(case.voxels(case.a), case.painted), f"B belongs, {mode}"
        case.refine(b, *case.way_into(b), shift=True)
        changes += not np.array_equal(case.voxels(b), before)
        assert np.array_equal(case.voxels(case.a), case.painted), f"B does not belong, {mode}"
        case.run()
        newest = case.newest_b()
        before = case.voxels(newest)
        for position in (100, -100):
            case.move(newest, position)
            assert np.array_equal(case.voxels(case.a), case.painted), f"slider at {position}, {mode}"
        assert not np.array_equal(case.voxels(newest), before), f"the slider moves B, {mode}"
        assert np.array_equal(case.voxels(case.a), case.painted), f"run, {mode}"
    assert changes, "the strokes can change B"


def test_painted_voxels_survive_a_run_and_refining_elsewhere(case):
    case.run()
    assert np.array_equal(case.voxels(case.a), case.painted)
    case.refine(case.a, (25, 24, 22))
    case.refine(case.b, (25, 24, 4))
    changed = case.voxels(case.a) ^ case.painted
    assert changed.any()
    assert not changed[:12, :13, :14].any(), "the strokes were elsewhere"


def test_painted_voxels_survive_undo_and_redo_of_what_came_later(case):
    original = case.voxels(case.b)
    case.refine(case.b, (25, 24, 22), shift=bool(original[22, 24, 25]))
    a, refined = case.voxels(case.a), case.voxels(case.b)
    assert not np.array_equal(refined, original)
    assert a[case.mine].all()
    case.run()
    case.editor.undo()
    assert np.array_equal(case.voxels(case.a), a)
    assert np.array_equal(case.voxels(case.b), refined)
    case.editor.undo()
    assert np.array_equal(case.voxels(case.a), case.painted)
    assert np.array_equal(case.voxels(case.b), original)
    case.editor.redo()
    case.editor.redo()
    assert np.array_equal(case.voxels(case.a), a)
    assert np.array_equal(case.voxels(case.b), refined)
    assert len(scenes.segment_ids(case.node)) == 4


@pytest.mark.parametrize("extension", [".seg.nrrd", ".mrb"])
def test_painted_and_refined_voxels_survive_saving_and_reloading_and_the_next_run(case, tmp_path, extension):
    import slicer

    case.refine(case.b, (25, 24, 22))
    names = scenes.names(case.node)
    expected = [case.voxels(case.a), case.voxels(case.b)]
    path = str(tmp_path / f"saved{extension}")
    if extension == ".mrb":
        slicer.util.saveScene(path)
        headless_slicer.closeScene()
        slicer.util.loadScene(path)
        case.node = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
        case.volume = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")[0]
    else:
        slicer.util.saveNode(case.node, path)
        slicer.mrmlScene.RemoveNode(case.node)
        case.node = slicer.util.loadSegmentation(path)
    processEvents()
    scenes.select(case.panel, case.volume)
    case.panel.ui.outputSelector.setCurrentNode(case.node)
    processEvents()
    case.a, case.b = scenes.segment_ids(case.node)
    assert scenes.names(case.node) == names
    for _ in range(2):
        assert [np.array_equal(case.voxels(i), old) for i, old in zip((case.a, case.b), expected, strict=True)] == [
            True
        ] * 2
        case.run()
    assert len(scenes.segment_ids(case.node)) == 4, "two results beside the edited segments"
