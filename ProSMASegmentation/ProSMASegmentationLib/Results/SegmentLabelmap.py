import math

import slicer
import vtk
from slicer.i18n import tr as _

from prosma.image.box import moved, overlap, placed, shape_of, slices_kji, span, start_of, union
from prosma.image.constants import MM3_PER_ML
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Volumes.VolumeReader import slabs

LARGEST_MISFIT = 1e-2  # of a voxel, between two grids that count as the same
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
        from vtk.util.numpy_support import vtk_to_numpy

        scalars = image.GetPointData().GetScalars() if image is not None else None
        if scalars is None or image.GetNumberOfPoints() == 0:
            return numpy.zeros((0, 0, 0), numpy.uint8)
        return vtk_to_numpy(scalars).reshape(tuple(reversed(image.GetDimensions())))

    @staticmethod
    def reach(array, value):
        """Steps (for EventLoopTask) that return the box of a label in an array, or None: ((i0, i1), (j0, j1), (k0, k1))."""
        import numpy

        found = [numpy.zeros(size, bool) for size in array.shape]
        first = 0
        for slab in slabs(array):
            inside = slab == value
            flat = inside.any(axis=0)
            found[0][first : first + len(slab)] = inside.any(axis=(1, 2))
            found[1] |= flat.any(axis=1)
            found[2] |= flat.any(axis=0)
            first += len(slab)
            yield
        return tuple(span(axis) for axis in reversed(found)) if found[0].any() else None

    @staticmethod
    def hasVoxels(segment):
        """Whether a segment has any voxel."""
        return bool((SegmentLabelmap.array(SegmentLabelmap.of(segment)) == segment.GetLabelValue()).any())

    @staticmethod
    def millilitres(segment):
        """Steps (for EventLoopTask) that return the volume of a segment's voxels in ml."""
        import numpy

        image = SegmentLabelmap.of(segment)
        voxels = 0
        for slab in slabs(SegmentLabelmap.array(image)):
            voxels += int(numpy.count_nonzero(slab == segment.GetLabelValue()))
            yield
        return voxels * math.prod(image.GetSpacing()) / MM3_PER_ML if voxels else 0.0

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

    # ---- boxes of a volume's grid: ((i0, i1), (j0, j1), (k0, k1)), half open, in the voxels of imageToWorld

    @staticmethod
    def box(image, imageToWorld):
        """The box that an image occupies. :raises ProSMAError: ``bad_output``, if it lies on another grid."""
        return moved(_extentBox(image), _shiftOrRefuse(image, imageToWorld))

    @staticmethod
    def mask(segment, box, imageToWorld):
        """The segment's voxels in a box as a new bool array (K, J, I).

        :raises ProSMAError: ``bad_output``, if the segment lies on another grid.
        """
        image = SegmentLabelmap.of(segment)
        return _voxelsIn(image, box, _shiftOrRefuse(image, imageToWorld)) == segment.GetLabelValue()

    @staticmethod
    def occupied(image, box, imageToWorld):
        """Where in a box an image is not 0, as a new bool array (K, J, I); images on other grids are resampled."""
        return _onGrid(image, box, imageToWorld) != 0

    @staticmethod
    def resampledMask(segment, box, imageToWorld):
        """As ``mask``, but a segment on another grid is resampled (nearest neighbour)."""
        return _onGrid(SegmentLabelmap.of(segment), box, imageToWorld) == segment.GetLabelValue()

    @staticmethod
    def writable(segment, box, imageToWorld):
        """(view (K, J, I) of the box in the image behind the segment, that image), which is enlarged where needed.

        :raises ProSMAError: ``bad_output``, if the segment lies on another grid.
        """
        image = SegmentLabelmap.of(segment)
        if image is None:
            image = slicer.vtkOrientedImageData()
            segment.AddRepresentation(BINARY_LABELMAP, image)
        if SegmentLabelmap.array(image).size == 0:
            image.SetImageToWorldMatrix(imageToWorld)
            image.SetExtent(0, -1, 0, -1, 0, -1)
        shift = _shiftOrRefuse(image, imageToWorld)
        inImage = moved(box, [-step for step in shift])
        _enlarge(image, inImage)
        return SegmentLabelmap.array(image)[slices_kji(inImage, image.GetExtent()[::2])], image


def _shiftOrRefuse(image, imageToWorld):
    shift = _gridShift(image, imageToWorld)
    if shift is None:
        raise ProSMAError(
            "bad_output",
            _("The segment lies on another voxel grid than the result that it comes from."),
            _("Segment the volume again."),
        )
    return shift


def _gridShift(image, imageToWorld):
    """What to add to the image's i, j, k to get the grid's; None if the grids do not coincide. Empty images do."""
    import numpy

    if SegmentLabelmap.array(image).size == 0:
        return (0, 0, 0)
    _offset, matrix = SegmentLabelmap.geometry(image)
    ours, grid = slicer.util.arrayFromVTKMatrix(matrix), slicer.util.arrayFromVTKMatrix(imageToWorld)
    relative = numpy.linalg.solve(grid, ours)
    shift = numpy.rint(relative[:3, 3])
    far = numpy.abs(relative[:3, :3] - numpy.eye(3)).max() * max(image.GetDimensions())
    if far > LARGEST_MISFIT or numpy.abs(relative[:3, 3] - shift).max() > LARGEST_MISFIT:
        return None
    return tuple(int(number) for number in shift)


def _onGrid(image, box, imageToWorld):
    """The voxels of a box of any grid as a new array (K, J, I)."""
    shift = _gridShift(image, imageToWorld)
    if shift is None:
        image, shift = _resampled(image, box, imageToWorld), (0, 0, 0)
    return _voxelsIn(image, box, shift)


def _voxelsIn(image, box, shift):
    """The voxels of a box as a new array (K, J, I), 0 where the image does not reach."""
    import numpy

    array = SegmentLabelmap.array(image)
    result = numpy.zeros(shape_of(box)[::-1], array.dtype)
    own = moved(_extentBox(image), shift) if array.size else None
    common = overlap(box, own) if own is not None else None
    if common is not None:
        result[slices_kji(common, start_of(box))] = array[slices_kji(common, start_of(own))]
    return result


def _extentBox(image):
    """The box of an image in its own voxels."""
    return placed(image.GetExtent()[::2], image.GetDimensions())


def _enlarge(image, box):
    """Let an image reach over a box of its own voxels; what it has not had is 0."""
    old = SegmentLabelmap.array(image)
    extent = _extentBox(image) if old.size else None
    wanted = union([extent, box])
    if extent == wanted:
        return
    old, kind = old.copy(), image.GetScalarType() if old.size else vtk.VTK_UNSIGNED_CHAR
    image.SetExtent([number for low, high in wanted for number in (low, high - 1)])
    image.AllocateScalars(kind, 1)
    new = SegmentLabelmap.array(image)
    new[...] = 0
    if extent is not None:
        new[slices_kji(extent, start_of(wanted))] = old


def _resampled(image, box, imageToWorld):
    """The image's voxels on another grid, nearest neighbour."""
    reference = slicer.vtkOrientedImageData()
    reference.SetImageToWorldMatrix(imageToWorld)
    reference.SetExtent([number for low, high in box for number in (low, high - 1)])
    result = slicer.vtkOrientedImageData()
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    resample(image, reference, result, False)
    return result
