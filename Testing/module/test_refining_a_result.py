"""Strokes on a result of the bundled model make it better, and better than a brush with the same strokes.

The strokes are put into the views' VTK interactors, as no window sends the mouse here (headless_slicer.strokes).
"""

import numpy as np
import pytest
import scenes

from headless_slicer import click, processEvents, strokes

STROKES = 3
HOLE_MM, BRUSH_MM = 5.0, 2.0
SHARE_MENDED = 0.8


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture
def sample(panel):
    """(volume, segmentation node, {segment id: truth}) of the bundled sample, segmented by the bundled model."""
    import slicer

    from ProSMASegmentationLib.Volumes.SampleVolumes import SampleVolumes

    scenes.choose(panel, "hippocampus-mr")
    click(panel.ui.sampleButton)
    volume = panel.ui.inputVolumeSelector.currentNode()
    job = scenes.click_segment(panel)
    assert job.state == job.FINISHED, str(job.error)
    reference = slicer.util.loadLabelVolume(str(SampleVolumes.forModel("hippocampus-mr")["referencePath"]))
    labels = slicer.util.arrayFromVolume(reference).copy()
    slicer.mrmlScene.RemoveNode(reference)
    node = job.segmentationNode
    truth = {each: labels == int(scenes.tag(node, each, "ProSMA.label")) for each in scenes.segment_ids(node)}
    return volume, node, truth


class Refining:
    """The first segment of the sample, its truth, and a person who draws strokes on it with a sphere as brush."""

    def __init__(self, panel, sample):
        import slicer
        import vtk

        self.volume, self.node, truth = sample
        self.editor = panel.ui.segmentEditor
        self.segment_id = scenes.segment_ids(self.node)[0]
        self.truth = truth[self.segment_id]
        matrix = vtk.vtkMatrix4x4()
        self.volume.GetIJKToRASMatrix(matrix)
        self.to_ras = matrix
        self.spacing = self.volume.GetSpacing()
        self.editor.setCurrentSegmentID(self.segment_id)
        processEvents()
        scenes.open_correct(panel, "editor")
        click(panel.ui.strokesButton)
        self.effect = self.editor.activeEffect().self()
        click(self.effect.sphereCheckBox)
        assert slicer.mrmlScene.GetNodeByID(self.node.GetID()) is self.node

    def voxels(self):
        return scenes.voxels(self.node, self.segment_id, self.volume) > 0

    def stroke(self, place, radius, belongs):
        """A click in the middle of a voxel k, j, i, applied."""
        self.effect.radiusSlider.value = radius
        k, j, i = (int(index) for index in place)
        strokes.draw([self.to_ras.MultiplyPoint([i, j, k, 1])[:3]], shift=not belongs)
        click(self.effect.applyButton)

    def ball(self, place, radius):
        squares = [
            ((index - middle) * size) ** 2
            for index, middle, size in zip(np.indices(self.truth.shape), place, self.spacing[::-1], strict=True)
        ]
        return sum(squares) <= radius**2


@pytest.fixture
def refining(panel, sample):
    refining = Refining(panel, sample)
    yield refining
    click(refining.effect.sphereCheckBox)


def largest_mistake(found, truth, spacing):
    """(voxel k, j, i in the middle of the largest wrong region, mm from there to its border, whether it belongs)."""
    import SimpleITK as sitk

    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.GetImageFromArray((found ^ truth).astype(np.uint8))))
    region = sitk.GetImageFromArray((sitk.GetArrayFromImage(parts) == 1).astype(np.uint8))
    region.SetSpacing(spacing)
    depth = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(region, True, False, True))
    place = np.unravel_index(depth.argmax(), depth.shape)
    return place, float(depth[place]), bool(truth[place])


def test_each_stroke_in_a_mistake_of_the_model_makes_the_result_better(refining):
    original = refining.voxels()
    scores = [dice(original, refining.truth)]
    for _ in range(STROKES):
        place, depth, belongs = largest_mistake(refining.voxels(), refining.truth, refining.spacing)
        refining.stroke(place, max(depth, 0.5), belongs)
        assert refining.voxels()[place] == belongs
        scores.append(dice(refining.voxels(), refining.truth))
    assert scores == sorted(set(scores)), scores
    for _ in range(STROKES):
        refining.editor.undo()
    assert np.array_equal(refining.voxels(), original)


def test_one_stroke_mends_a_hole_from_what_the_network_saw_there(refining):
    import slicer

    whole = refining.voxels()
    middle = np.argwhere(whole & refining.truth).mean(axis=0)
    inside = np.argwhere(whole & refining.truth)
    place = inside[((inside - middle) ** 2).sum(axis=1).argmin()]
    holed = whole & ~refining.ball(place, HOLE_MM)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        holed.astype(np.uint8), refining.node, refining.segment_id, refining.volume
    )
    refining.stroke(place, BRUSH_MM, True)
    lost = dice(whole, refining.truth) - dice(holed, refining.truth)
    won = dice(refining.voxels(), refining.truth) - dice(holed, refining.truth)
    painted = dice(holed | refining.ball(place, BRUSH_MM), refining.truth) - dice(holed, refining.truth)
    assert won > SHARE_MENDED * lost > 4 * painted
