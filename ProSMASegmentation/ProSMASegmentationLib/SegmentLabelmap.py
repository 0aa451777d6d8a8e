import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

BINARY_LABELMAP = "Binary labelmap"
CLOSED_SURFACE = "Closed surface"


class SegmentLabelmap:
    """Access to the label image behind a segment, without copies."""

    @staticmethod
    def create(offset, shape, wide, imageToWorld):
        """A new vtkOrientedImageData and the (K, J, I) array of its voxels, which are not initialised.

        :param offset: i, j, k of the first voxel. :param shape: K, J, I. :param wide: 16 instead of 8 bits.
        """
        image = slicer.vtkOrientedImageData()
        extent = []
        for start, size in zip(offset, reversed(shape), strict=True):
            extent += [int(start), int(start) + int(size) - 1]
        image.SetExtent(extent)
        image.AllocateScalars(vtk.VTK_UNSIGNED_SHORT if wide else vtk.VTK_UNSIGNED_CHAR, 1)
        image.SetImageToWorldMatrix(imageToWorld)
        return image, SegmentLabelmap.array(image)

    @staticmethod
    def array(image):
        """The voxels of a vtkOrientedImageData as a view (K, J, I); an empty image gives an empty array."""
        import numpy

        scalars = image.GetPointData().GetScalars() if image is not None else None
        if scalars is None or image.GetNumberOfPoints() == 0:
            return numpy.zeros((0, 0, 0), numpy.uint8)
        return vtk_to_numpy(scalars).reshape(tuple(reversed(image.GetDimensions())))

    @staticmethod
    def geometry(image):
        """(offset i, j, k; vtkMatrix4x4 from i, j, k to mm) of a vtkOrientedImageData."""
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        return image.GetExtent()[::2], matrix

    @staticmethod
    def of(segment):
        """The vtkOrientedImageData behind a segment, or None. Several segments may share it."""
        return segment.GetRepresentation(BINARY_LABELMAP)
