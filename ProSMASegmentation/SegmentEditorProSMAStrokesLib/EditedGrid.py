import slicer
import vtk
from slicer.i18n import tr as _

from prosma.image.box import moved, overlap, placed, shape_of, slices, start_of, whole
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap

SAME_GRID_MM = 1e-3
COLOURS = 3  # a fourth value of a voxel is its opacity


class EditedGrid:
    """The voxel grid on which the Segment Editor edits, with the source volume and the segments on it.

    Public: ``matrix`` (vtkMatrix4x4) and ``extent`` of the reference geometry, ``imageToWorld`` ((4, 4) array from the
    indices i, j, k of arrays to mm), ``shape`` and ``spacing`` along K, J, I.

    :param effect: what C++ gives to the effect. :raises ProSMAError: ``bad_input``, if there is no grid.
    """

    def __init__(self, effect):
        self._effect = effect
        reference = effect.referenceGeometryImage()
        if reference is None:
            raise ProSMAError("bad_input", _("The segmentation has no voxel grid."), _("Choose a source volume."))
        self.extent = reference.GetExtent()
        self.matrix = vtk.vtkMatrix4x4()
        reference.GetImageToWorldMatrix(self.matrix)
        self.spacing = reference.GetSpacing()[::-1]
        self.imageToWorld = slicer.util.arrayFromVTKMatrix(self.matrix)
        self.imageToWorld[:3, 3] = self.matrix.MultiplyPoint([*self.extent[::2], 1])[:3]
        self.shape = tuple(self.extent[2 * axis + 1] - self.extent[2 * axis] + 1 for axis in (2, 1, 0))

    def local(self, points, normal=None):
        """Points and a direction in the segmentation's own coordinates, which a transform may move, as arrays."""
        import numpy

        transform = vtk.vtkGeneralTransform()
        parent = self._effect.parameterSetNode().GetSegmentationNode().GetParentTransformNode()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, parent, transform)
        there = numpy.array([transform.TransformDoublePoint(*point) for point in points])
        if normal is None:
            return there, None
        turned = numpy.array(transform.TransformDoublePoint(*numpy.add(points[0], normal))) - there[0]
        return there, turned / numpy.linalg.norm(turned)

    # ---- the source volume

    def channels(self):
        """(C, K, J, I) array of the source volume: colours are seen as such, where the Segment Editor takes only red."""
        import numpy

        volume = self._effect.parameterSetNode().GetSourceVolumeNode()
        components = volume.GetImageData().GetNumberOfScalarComponents()
        if components > 1 and self._isOfVolume():
            channels = numpy.moveaxis(slicer.util.arrayFromVolume(volume), -1, 0)
            return channels[:COLOURS] if components == COLOURS + 1 else channels
        return self.image()[None]

    def _isOfVolume(self):
        """Whether the grid is the source volume's own."""
        parameters = self._effect.parameterSetNode()
        volume, node = parameters.GetSourceVolumeNode(), parameters.GetSegmentationNode()
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        same = sameMatrix(matrix, self.matrix) and volume.GetImageData().GetExtent() == self.extent
        return same and volume.GetTransformNodeID() == node.GetTransformNodeID()

    def image(self):
        """(K, J, I) array of the source volume on the grid, as the Segment Editor sees it."""
        image = self._effect.sourceVolumeImageData()
        if image is None or image.GetExtent() != self.extent:
            raise ProSMAError(
                "bad_input",
                _("The source volume could not be brought onto the segmentation's grid."),
                _("Load it again, or choose another source volume."),
            )
        return SegmentLabelmap.array(image)

    def imageKey(self):
        """What tells whether ``channels`` are still the same."""
        volume = self._effect.parameterSetNode().GetSourceVolumeNode()
        image = volume.GetImageData() if self._isOfVolume() else self._effect.sourceVolumeImageData()
        changed = image.GetMTime() if image is not None else 0
        return volume.GetID(), changed, self.shape, tuple(self.imageToWorld.ravel())

    # ---- segments

    def boxOf(self, segment):
        """A box along K, J, I outside of which a segment has no voxels, or None if it has none."""
        image = SegmentLabelmap.of(segment)
        array = SegmentLabelmap.array(image)
        if array.size == 0:
            return None
        offset = self._offsetOf(image)
        return whole(self.shape) if offset is None else overlap(whole(self.shape), placed(offset, array.shape))

    def voxelsOf(self, segment, box):
        """Boolean array of a segment's voxels in a box of the grid."""
        import numpy

        found = numpy.zeros(shape_of(box), bool)
        image = SegmentLabelmap.of(segment)
        array = SegmentLabelmap.array(image)
        if array.size == 0:
            return found
        offset = self._offsetOf(image)
        if offset is None:
            image = self._resampled(segment, box)
            array, offset = SegmentLabelmap.array(image), start_of(box)
        common = overlap(box, placed(offset, array.shape))
        if common is not None:
            found[slices(common, start_of(box))] = array[slices(common, offset)] == segment.GetLabelValue()
        return found

    def newImage(self, box):
        """A new vtkOrientedImageData for a box of the grid and the array of its voxels."""
        offset = start_of(moved(box[::-1], self.extent[::2]))
        return SegmentLabelmap.create(offset, shape_of(box), False, self.matrix)

    def _offsetOf(self, image):
        """Where an image's first voxel (k, j, i) is on the grid, or None if the image has another grid."""
        reference = slicer.vtkOrientedImageData()
        reference.SetImageToWorldMatrix(self.matrix)
        if not slicer.vtkOrientedImageDataResample.DoGeometriesMatch(reference, image):
            return None
        return [start - own for start, own in zip(image.GetExtent()[4::-2], self.extent[4::-2], strict=True)]

    def _resampled(self, segment, box):
        resampled = slicer.vtkOrientedImageData()
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            SegmentLabelmap.of(segment), self.newImage(box)[0], resampled, False
        )
        return resampled


def sameMatrix(one, other):
    """Whether two vtkMatrix4x4 are those of one grid."""
    import numpy

    return numpy.allclose(slicer.util.arrayFromVTKMatrix(one), slicer.util.arrayFromVTKMatrix(other), atol=SAME_GRID_MM)
