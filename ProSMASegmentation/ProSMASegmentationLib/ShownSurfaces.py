import slicer

from ProSMASegmentationLib.SegmentLabelmap import BINARY_LABELMAP, CLOSED_SURFACE


class ShownSurfaces:
    """The surfaces of a segmentation (Show 3D) while the voxels of one segment change.

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

    def restore(self):
        """Show the surfaces as they were. That of the changed segment is behind its voxels until it is renewed."""
        for segmentId, surface in self._surfaces.items():
            segment = self._segmentation.GetSegment(segmentId)
            if segment is not None and segment.GetRepresentation(CLOSED_SURFACE) is not surface:
                segment.AddRepresentation(CLOSED_SURFACE, surface)

    def renew(self, segmentId):
        """Make the surface of one segment anew; the others stay."""
        if not self._surfaces:
            return
        surface = surfaceOf(self._segmentation, segmentId)
        if surface is not None:
            self._surfaces[segmentId] = surface
        self.restore()


def surfaceOf(segmentation, segmentId):
    """The surface of a segment's present voxels (vtkPolyData), made for this segment alone; None if there is none."""
    single = slicer.vtkSegmentation()
    single.SetSourceRepresentationName(BINARY_LABELMAP)
    single.CopyConversionParameters(segmentation)
    single.CopySegmentFromSegmentation(segmentation, segmentId)
    single.GetSegment(segmentId).RemoveRepresentation(CLOSED_SURFACE)
    single.CreateRepresentation(CLOSED_SURFACE)
    return single.GetSegment(segmentId).GetRepresentation(CLOSED_SURFACE)
