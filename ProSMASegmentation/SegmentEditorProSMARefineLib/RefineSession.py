import slicer
import vtk
from slicer.i18n import tr as _

from prosma.image.box import moved, overlap, placed, shape_of, slices, start_of, union, whole
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import whyProtected
from SegmentEditorProSMARefineLib.RefineStroke import RefineStroke, sameMatrix
from SegmentEditorProSMARefineLib.StrokeVoxels import strokeVoxels

BELONGS, EXCLUDED = 1, 2  # marks of voxels


class RefineSession:
    """The strokes on one segment and what they make of it, until that is applied or cancelled.

    Everything is on the voxel grid on which the Segment Editor edits. Strokes that were applied are kept, so that later
    ones honour them; they are forgotten when the segment is changed by something else, such as undo or another effect.

    :param effect: what C++ gives to the effect (qSlicerSegmentEditorScriptedEffect).
    """

    def __init__(self, effect):
        self._effect = effect
        self.clear()

    def clear(self):
        """Forget the strokes and what they would change."""
        self._refiner = None
        self._target = None  # (segmentation node, segment id, time of the last change of its voxels)
        self._mask = None  # (K, J, I) boolean array: the segment as the strokes make it
        self._marks = None  # (K, J, I) array: 0, BELONGS or EXCLUDED where strokes were
        self._changed = None  # box along K, J, I of the voxels that may differ from the segment

    @property
    def hasChanges(self):
        return self._changed is not None

    # ---- what may be refined

    def whyNot(self):
        """Why the selected segment cannot be refined, and the way out; an empty text if it can."""
        parameters = self._effect.parameterSetNode()
        node = parameters.GetSegmentationNode() if parameters is not None else None
        if node is None:
            return _("There is no segmentation to refine. Segment a volume, or choose a segmentation.")
        volume = parameters.GetSourceVolumeNode()
        if volume is None or volume.GetImageData() is None:
            return _("The segmentation's volume is missing. Choose a source volume.")
        segment = self._segment()
        if segment is None:
            return _("Select the segment to refine.")
        return whyProtected(segment)

    def _segment(self):
        parameters = self._effect.parameterSetNode()
        return parameters.GetSegmentationNode().GetSegmentation().GetSegment(parameters.GetSelectedSegmentID() or "")

    def isCurrent(self):
        """Whether the segment is still the selected one, and as the session knows it."""
        return self._target is not None and not self.whyNot() and self._target == self._currentTarget()

    def _currentTarget(self):
        parameters = self._effect.parameterSetNode()
        image = SegmentLabelmap.of(self._segment())
        changed = image.GetMTime() if image is not None else 0
        return (parameters.GetSegmentationNode(), parameters.GetSelectedSegmentID(), changed)

    # ---- strokes

    def add(self, points, radius, belongs, normal=None, thickness=0.0):
        """Take a stroke and refine the segment around it. Nothing is written.

        :param points: (n, 3) array, the brush's way in mm, in world coordinates.
        :param radius: of the brush in mm. :param belongs: what the stroke says.
        :param normal: unit vector of the slice that was drawn in, if the brush is a disc. :param thickness: in mm.
        :raises ProSMAError: ``bad_input``, if there is nothing to refine.
        """
        why = self.whyNot()
        if why:
            raise ProSMAError("bad_input", why)
        if not self.isCurrent():
            self._begin()
        points, normal = self._local(points, normal)
        stroke = strokeVoxels(points, radius, self._imageToWorld, self._mask.shape, normal, thickness)
        if stroke is None:
            return
        changed, result = self._refiner.refine(
            self._mask, self._channels(), stroke, belongs, radius, self._marks, self._spacing
        )
        box, covered = stroke
        self._marks[slices(box)][covered] = BELONGS if belongs else EXCLUDED
        self._mask[slices(changed)] = self._allowed(changed, result)
        self._changed = union([self._changed, changed])

    def _begin(self):
        import numpy

        self.clear()
        reference = self._effect.referenceGeometryImage()
        if reference is None:
            raise ProSMAError("bad_input", _("The segmentation has no voxel grid. Choose a source volume."))
        self._extent = reference.GetExtent()
        matrix = vtk.vtkMatrix4x4()
        reference.GetImageToWorldMatrix(matrix)
        self._matrix, self._spacing = matrix, reference.GetSpacing()[::-1]
        self._imageToWorld = slicer.util.arrayFromVTKMatrix(matrix)
        self._imageToWorld[:3, 3] = matrix.MultiplyPoint([*self._extent[::2], 1])[:3]
        shape = tuple(self._extent[2 * axis + 1] - self._extent[2 * axis] + 1 for axis in (2, 1, 0))
        self._mask, self._marks = numpy.zeros(shape, bool), numpy.zeros(shape, numpy.uint8)
        self._mask[:] = self._voxelsOf(self._segment(), whole(shape))
        self._target = self._currentTarget()
        self._refiner = RefineStroke(self._target[0], self._segment(), self._matrix, self._extent)

    def _local(self, points, normal):
        """Points and direction in the segmentation's own coordinates, which a transform may move."""
        import numpy

        transform = vtk.vtkGeneralTransform()
        parent = self._effect.parameterSetNode().GetSegmentationNode().GetParentTransformNode()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, parent, transform)
        moved = numpy.array([transform.TransformDoublePoint(*point) for point in points])
        if normal is None:
            return moved, None
        turned = numpy.array(transform.TransformDoublePoint(*numpy.add(points[0], normal))) - moved[0]
        return moved, turned / numpy.linalg.norm(turned)

    def _channels(self):
        """(C, K, J, I) array of the source volume: colours are seen as such, where the Segment Editor takes only red."""
        import numpy

        parameters = self._effect.parameterSetNode()
        volume, node = parameters.GetSourceVolumeNode(), parameters.GetSegmentationNode()
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        components = volume.GetImageData().GetNumberOfScalarComponents()
        onGrid = sameMatrix(matrix, self._matrix) and volume.GetImageData().GetExtent() == self._extent
        if components > 1 and onGrid and volume.GetTransformNodeID() == node.GetTransformNodeID():
            return numpy.moveaxis(slicer.util.arrayFromVolume(volume), -1, 0)
        return self._image()[None]

    def _image(self):
        """(K, J, I) array of the source volume on the grid, as the Segment Editor sees it."""
        image = self._effect.sourceVolumeImageData()
        if image is None or image.GetExtent() != self._extent:
            raise ProSMAError("bad_input", _("The source volume could not be brought onto the segmentation's grid."))
        return SegmentLabelmap.array(image)

    # ---- where editing is allowed

    def _allowed(self, box, result):
        """The refined voxels of a box where the Segment Editor lets them be changed; elsewhere the old ones."""
        import numpy

        before = self._mask[slices(box)]
        editable = self._editable(box)
        added = result & ~before & editable
        removed = before & ~result & self._removable(box, editable)
        for segment in self._overwritten():
            if whyProtected(segment):
                added &= ~self._voxelsOf(segment, box)
        return numpy.where(added | removed, result, before)

    def _editable(self, box):
        """Where masking allows changes: editable area and editable intensity range."""
        import numpy

        parameters = self._effect.parameterSetNode()
        node = parameters.GetSegmentationNode()
        editable = numpy.ones(shape_of(box), bool)
        if parameters.GetMaskMode() != node.EditAllowedEverywhere:
            mask, reference = slicer.vtkOrientedImageData(), self._newImage(box)[0]
            selected, single = parameters.GetSelectedSegmentID() or "", parameters.GetMaskSegmentID() or ""
            node.GenerateEditMask(mask, parameters.GetMaskMode(), reference, selected, single)
            editable &= SegmentLabelmap.array(mask) == 0
        if parameters.GetSourceVolumeIntensityMask():
            low, high = parameters.GetSourceVolumeIntensityMaskRange()
            image = self._image()[slices(box)]
            editable &= (image >= low) & (image <= high)
        return editable

    def _removable(self, box, editable):
        """Where voxels may be taken out. Inside a single segment, Slicer gives what is removed to that segment."""
        import numpy

        parameters = self._effect.parameterSetNode()
        node = parameters.GetSegmentationNode()
        if parameters.GetMaskMode() != node.EditAllowedInsideSingleSegment:
            return editable
        receiver = node.GetSegmentation().GetSegment(parameters.GetMaskSegmentID() or "")
        if receiver is not None and receiver is not self._segment() and whyProtected(receiver):
            return numpy.zeros(shape_of(box), bool)
        return numpy.ones(shape_of(box), bool)

    def _overwritten(self):
        """The other segments that lose the voxels that this one gains."""
        parameters = self._effect.parameterSetNode()
        node, mode = parameters.GetSegmentationNode(), parameters.GetOverwriteMode()
        display = node.GetDisplayNode()
        for segmentId in node.GetSegmentation().GetSegmentIDs():
            visible = display is not None and display.GetSegmentVisibility(segmentId)
            overwritten = mode == parameters.OverwriteAllSegments or (
                mode == parameters.OverwriteVisibleSegments and visible
            )
            if overwritten and segmentId != parameters.GetSelectedSegmentID():
                yield node.GetSegmentation().GetSegment(segmentId)

    # ---- voxels

    def _voxelsOf(self, segment, box):
        """Boolean array of a segment's voxels in a box of the grid."""
        import numpy

        found = numpy.zeros(shape_of(box), bool)
        image = SegmentLabelmap.of(segment)
        array = SegmentLabelmap.array(image)
        if array.size == 0:
            return found
        offset = self._offsetOnGrid(image)
        if offset is None:
            image = self._resampled(segment, box)
            array, offset = SegmentLabelmap.array(image), start_of(box)
        common = overlap(box, placed(offset, array.shape))
        if common is not None:
            found[slices(common, start_of(box))] = array[slices(common, offset)] == segment.GetLabelValue()
        return found

    def _offsetOnGrid(self, image):
        """Where an image's first voxel (k, j, i) is on the grid, or None if the image has another grid."""
        reference = slicer.vtkOrientedImageData()
        reference.SetImageToWorldMatrix(self._matrix)
        if not slicer.vtkOrientedImageDataResample.DoGeometriesMatch(reference, image):
            return None
        return [start - own for start, own in zip(image.GetExtent()[4::-2], self._extent[4::-2], strict=True)]

    def _resampled(self, segment, box):
        resampled = slicer.vtkOrientedImageData()
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            SegmentLabelmap.of(segment), self._newImage(box)[0], resampled, False
        )
        return resampled

    def _newImage(self, box):
        """A new vtkOrientedImageData for a box of the grid and the array of its voxels."""
        offset = start_of(moved(box[::-1], self._extent[::2]))
        return SegmentLabelmap.create(offset, shape_of(box), False, self._matrix)

    # ---- what comes of it

    def changes(self):
        """{"added": vtkOrientedImageData, "removed": ...}: what applying would do; None if nothing."""
        if self._changed is None:
            return None
        before = self._voxelsOf(self._segment(), self._changed)
        after = self._mask[slices(self._changed)]
        if not (before ^ after).any():
            return None
        images = {}
        for name, voxels in (("added", after & ~before), ("removed", before & ~after)):
            images[name], array = self._newImage(self._changed)
            array[:] = voxels
        return images

    def apply(self):
        """Write the changes into the segment, as one undo step, through the editor's masking and overwriting.

        :return: whether anything was written.
        """
        images = self.changes()
        if images is None:
            self._changed = None
            return False
        self._effect.saveStateForUndo()
        for name, mode in (
            ("removed", slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeRemove),
            ("added", slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeAdd),
        ):
            if SegmentLabelmap.array(images[name]).any():
                self._effect.modifySelectedSegmentByLabelmap(images[name], mode)
        self._mask[slices(self._changed)] = self._voxelsOf(self._segment(), self._changed)
        self._changed = None
        self._target = self._currentTarget()
        return True
