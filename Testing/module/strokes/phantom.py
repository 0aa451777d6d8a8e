"""A bright ball and a segment of it that lacks the top, to be corrected by strokes in the views."""

import numpy as np
import scenes

from headless_slicer import click, processEvents, strokes

CENTRE, RADIUS = np.array([15, 14, 13]), 8  # i, j, k of the phantom's ball, and voxels


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
        """Open the section, click Strokes, and return the effect's Python object."""
        scenes.open_correct(self.panel, "editor")
        if not self.ui.strokesButton.checked:
            click(self.ui.strokesButton)
        return self.editor.activeEffect().self()

    def draw(self, *voxels, **how):
        strokes.draw([self.ras(*voxel) for voxel in voxels], **how)

    def preview(self):
        import slicer

        return [
            node
            for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
            if node.GetName() == "ProSMA Strokes preview"
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
