import slicer

from prosma.image.box import shape_of, slices
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import whyProtected


class EditMask:
    """Where the Segment Editor's settings let the selected segment be changed: masking, overwriting, protected segments.

    :param effect: what C++ gives to the effect. :param grid: the EditedGrid.
    """

    def __init__(self, effect, grid):
        self._parameters = effect.parameterSetNode()
        self._grid = grid

    def allowed(self, box, before, result):
        """``result`` in a box of the grid where it may be; elsewhere ``before``. Boolean arrays."""
        import numpy

        editable = self._editable(box)
        added = result & ~before & editable
        removed = before & ~result & self._removable(box, editable)
        for segment in self._overwritten():
            if whyProtected(segment):
                added &= ~self._grid.voxelsOf(segment, box)
        return numpy.where(added | removed, result, before)

    def _editable(self, box):
        """Where masking allows changes: editable area and editable intensity range."""
        import numpy

        parameters, node = self._parameters, self._parameters.GetSegmentationNode()
        editable = numpy.ones(shape_of(box), bool)
        if parameters.GetMaskMode() != node.EditAllowedEverywhere:
            mask, reference = slicer.vtkOrientedImageData(), self._grid.newImage(box)[0]
            selected, single = parameters.GetSelectedSegmentID() or "", parameters.GetMaskSegmentID() or ""
            node.GenerateEditMask(mask, parameters.GetMaskMode(), reference, selected, single)
            editable &= SegmentLabelmap.array(mask) == 0
        if parameters.GetSourceVolumeIntensityMask():
            low, high = parameters.GetSourceVolumeIntensityMaskRange()
            image = self._grid.image()[slices(box)]
            editable &= (image >= low) & (image <= high)
        return editable

    def _removable(self, box, editable):
        """Where voxels may be taken out. Inside a single segment, Slicer gives what is removed to that segment."""
        import numpy

        parameters, node = self._parameters, self._parameters.GetSegmentationNode()
        if parameters.GetMaskMode() != node.EditAllowedInsideSingleSegment:
            return editable
        segmentation = node.GetSegmentation()
        receiver = segmentation.GetSegment(parameters.GetMaskSegmentID() or "")
        own = segmentation.GetSegment(parameters.GetSelectedSegmentID() or "")
        if receiver is not None and receiver is not own and whyProtected(receiver):
            return numpy.zeros(shape_of(box), bool)
        return numpy.ones(shape_of(box), bool)

    def _overwritten(self):
        """The other segments that lose the voxels that this one gains."""
        parameters, node = self._parameters, self._parameters.GetSegmentationNode()
        mode, display = parameters.GetOverwriteMode(), node.GetDisplayNode()
        for segmentId in node.GetSegmentation().GetSegmentIDs():
            visible = display is not None and display.GetSegmentVisibility(segmentId)
            overwritten = mode == parameters.OverwriteAllSegments or (
                mode == parameters.OverwriteVisibleSegments and visible
            )
            if overwritten and segmentId != parameters.GetSelectedSegmentID():
                yield node.GetSegmentation().GetSegment(segmentId)
