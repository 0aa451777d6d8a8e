import slicer
import vtk
from slicer.i18n import tr as _

from prosma.image import tags
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Volumes.VolumeReader import slabs

LEAST_SHOWN = 0.02  # what is about zero is transparent, so that the image shows through
OPACITY = 0.6


class ScalarOutput:
    """A new scalar volume of shares from 0 to 1, which is filled piece by piece and then shown over the image.

    :param name: of the node. :param color: id of the colour table's node.
    :param dimensions: I, J, K. :param imageToWorld: vtkMatrix4x4 from i, j, k to mm.
    :param hidesNothing: whether values about zero are made transparent.

    Public: ``array``, float32 (K, J, I), to be filled after ``clear``.
    """

    def __init__(self, name, color, dimensions, imageToWorld, hidesNothing=True):
        from vtk.util.numpy_support import vtk_to_numpy

        self._name = name
        self._color = color
        self._matrix = imageToWorld
        self._hidesNothing = hidesNothing
        self._image = vtk.vtkImageData()
        self._image.SetDimensions(*dimensions)
        try:
            self._image.AllocateScalars(vtk.VTK_FLOAT, 1)
            scalars = self._image.GetPointData().GetScalars()
        except MemoryError:
            scalars = None
        if scalars is None:
            raise ProSMAError(
                "out_of_memory", _("There is not enough memory for another volume."), _("Close other volumes.")
            )
        self.array = vtk_to_numpy(scalars).reshape(tuple(reversed(dimensions)))

    def clear(self):
        """Steps (for EventLoopTask) that make all values zero."""
        for slab in slabs(self.array):
            slab[...] = 0
            yield

    def add(self, beside):
        """Add the volume to the scene, with the transform and the folder of the node ``beside``, and show it."""
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self._name))
        node.SetAttribute(tags.NODE_OUTPUT, "1")
        node.SetIJKToRASMatrix(self._matrix)
        node.SetAndObserveImageData(self._image)
        slicer.mrmlScene.AddNode(node)
        node.SetAndObserveTransformNodeID(beside.GetTransformNodeID())
        node.CreateDefaultDisplayNodes()
        self._show(node.GetDisplayNode())
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        items = [hierarchy.GetItemByDataNode(each) if hierarchy is not None else 0 for each in (node, beside)]
        if all(items):
            hierarchy.SetItemParent(items[0], hierarchy.GetItemParent(items[1]))
        slicer.util.setSliceViewerLayers(foreground=node, foregroundOpacity=OPACITY)
        return node

    def _show(self, display):
        display.SetAndObserveColorNodeID(self._color)
        display.AutoWindowLevelOff()
        display.SetWindowLevel(1, 0.5)
        display.AutoThresholdOff()
        display.SetThreshold(LEAST_SHOWN, 1)
        display.SetApplyThreshold(self._hidesNothing)
