import slicer

from prosma.image.box import moved, slices_kji, start_of
from ProSMASegmentationLib.Results.SegmentLabelmap import BINARY_LABELMAP, CLOSED_SURFACE, SegmentLabelmap
from ProSMASegmentationLib.Volumes.VolumeReader import slabs


class ShownSurfaces:
    """The surfaces of a segmentation (Show 3D) while voxels of some segments change.

    Slicer drops the surfaces of all segments at each change, and making all of them takes seconds on a large volume.

    :param segmentation: vtkSegmentation. Without surfaces nothing here has an effect.
    """

    def __init__(self, segmentation):
        self._segmentation = segmentation
        self._surfaces = {}
        for segmentId in segmentation.GetSegmentIDs():
            surface = segmentation.GetSegment(segmentId).GetRepresentation(CLOSED_SURFACE)
            if surface is not None:
                self._surfaces[segmentId] = surface

    def __bool__(self):
        """Whether there are any."""
        return bool(self._surfaces)

    def replace(self, segmentId, surface):
        """Give a segment, which may be a new one, another surface (vtkPolyData). None: it is made by ``complete``."""
        self._surfaces[segmentId] = surface

    def restore(self):
        """Show the surfaces as they were. That of a changed segment is behind its voxels until it is replaced."""
        for segmentId, surface in self._surfaces.items():
            segment = self._segmentation.GetSegment(segmentId)
            if None not in (segment, surface) and segment.GetRepresentation(CLOSED_SURFACE) is not surface:
                segment.AddRepresentation(CLOSED_SURFACE, surface)

    def complete(self):
        """As ``restore``, and make the surfaces that are missing, at once."""
        if self._surfaces:
            self.restore()
            self._segmentation.CreateRepresentation(CLOSED_SURFACE)


def surfaceOf(segmentation, segmentId):
    """Steps (for EventLoopTask) that return the surface of a segment's present voxels, None if it has none.

    See ``surfaceSteps``.
    """
    segment = segmentation.GetSegment(segmentId)
    image = SegmentLabelmap.of(segment)
    if image is None:
        return None
    offset, imageToWorld = SegmentLabelmap.geometry(image)
    array, value = SegmentLabelmap.array(image), segment.GetLabelValue()
    surface = yield from surfaceSteps(segmentation, array, value, offset, imageToWorld)
    return surface


def surfaceSteps(segmentation, array, value, offset, imageToWorld):
    """Steps (for EventLoopTask) that return the surface of a label, as the segmentation would make it (vtkPolyData).

    The last step is the work of Slicer's converter, which cannot be divided. It is done on no more than the voxels
    around the label, because the converter looks at all that it is given several times.

    :param array: labels (K, J, I), which must not change meanwhile. :param value: the label.
    :param offset: i, j, k of the array's first voxel. :param imageToWorld: vtkMatrix4x4 from i, j, k to mm.
    """
    box = yield from SegmentLabelmap.reach(array, value)
    part = array[slices_kji(box)] if box is not None else array[:0, :0, :0]
    corner = start_of(moved(box, offset)) if box is not None else offset
    image, voxels = SegmentLabelmap.create(corner, part.shape, False, imageToWorld)
    for target, source in zip(slabs(voxels), slabs(part), strict=True):
        target[...] = source == value
        yield
    segment = slicer.vtkSegment()
    segment.AddRepresentation(BINARY_LABELMAP, image)
    segment.SetLabelValue(1)
    single = slicer.vtkSegmentation()
    single.SetSourceRepresentationName(BINARY_LABELMAP)
    single.CopyConversionParameters(segmentation)
    single.AddSegment(segment, "single")
    single.CreateRepresentation(CLOSED_SURFACE)
    return segment.GetRepresentation(CLOSED_SURFACE)
