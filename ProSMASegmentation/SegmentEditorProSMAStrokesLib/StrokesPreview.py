import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Results.SegmentLabelmap import BINARY_LABELMAP

COLORS = {"added": (0.2, 0.85, 0.3), "removed": (0.95, 0.25, 0.2)}
OPACITY = 0.6


class StrokesPreview:
    """Shows in all views what would be added to a segment and removed from it, as a segmentation of its own.

    The node is in no selector and is not saved with the scene.
    """

    def __init__(self):
        self._node = None
        self._images = {}

    @property
    def node(self):
        """The preview's node, or None if nothing is shown."""
        return self._node if self._node is not None and self._node.GetScene() is not None else None

    def show(self, segmentationNode, images):
        """Show {"added": vtkOrientedImageData, "removed": vtkOrientedImageData} over a segmentation."""
        if self.node is None:
            self._create()
        for name, image in images.items():
            self._images[name].ShallowCopy(image)
            self._images[name].Modified()
        self._node.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())

    def clear(self):
        if self.node is not None:
            slicer.mrmlScene.RemoveNode(self._node)
        self._node, self._images = None, {}

    def _create(self):
        """A node that gets its segments before it gets into the scene: hidden nodes have no subject hierarchy item."""
        self._node = slicer.vtkMRMLSegmentationNode()
        self._node.SetName("ProSMA Strokes preview")
        self._node.SetHideFromEditors(True)
        self._node.SetSaveWithScene(False)
        for name, title in (("added", _("Will be added")), ("removed", _("Will be removed"))):
            segment = slicer.vtkSegment()
            segment.SetName(title)
            segment.SetColor(COLORS[name])
            self._images[name] = slicer.vtkOrientedImageData()
            segment.AddRepresentation(BINARY_LABELMAP, self._images[name])
            self._node.GetSegmentation().AddSegment(segment, name)
        slicer.mrmlScene.AddNode(self._node)
        self._node.CreateDefaultDisplayNodes()
        display = self._node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetOpacity2DFill(OPACITY)
