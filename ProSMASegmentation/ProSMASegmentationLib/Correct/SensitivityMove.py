import slicer
from slicer.i18n import tr as _

from prosma.image import tags
from prosma.image.box import slices_kji, start_of
from prosma.steps import finish
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Results.FingerprintSteps import fingerprintsOfLabels
from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities
from ProSMASegmentationLib.Results.SegmentEditors import SegmentEditors
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import tag, whyProtected
from ProSMASegmentationLib.Results.ShownSurfaces import ShownSurfaces, surfaceOf
from ProSMASegmentationLib.Volumes.VolumeReader import slabs


class SensitivityMove:
    """One movement of a segment's sensitivity: from the press on the slider to its release.

    The segment's border moves in the kept probabilities, without a new run. Voxels that a person changed, and voxels of
    other segments, stay as they are. While the slider moves only the segment's own labelmap is written; the release
    makes it one undo step. Sensitivities are shifts of the log odds, see ``prosma.correct.sensitivity``.

    :raises ProSMAError: ``no_probabilities``, ``protected`` or ``bad_output``, if the segment cannot be moved.
    """

    def __init__(self, node, segmentId):
        from prosma.correct import sensitivity

        self._sensitivity = sensitivity
        self._node = node
        self._segmentId = segmentId
        self._segment = segment = segmentOf(node, segmentId)
        self._kept = keptOf(node, segment)
        self._value = segment.GetLabelValue()
        self._start = sensitivityOf(segment)
        self._surfaces = ShownSurfaces(node.GetSegmentation())
        self._prepare(int(tag(segment, tags.LABEL)))

    def _prepare(self, label):
        """Everything that does not depend on where the slider is: after this a step is a comparison and two copies.

        Slab by slab, so that what is needed for a moment only stays in the processor's cache.
        """
        import numpy

        kept, box = self._kept, self._kept.reach[label - 1]
        self._layer, self._image = SegmentLabelmap.writable(self._segment, box, kept.imageToWorld)
        self._box = box
        self._original = self._layer.copy()
        self._rest = self._original.copy()
        self._edits = numpy.empty(self._layer.shape, bool)
        self._levels = numpy.empty(self._layer.shape, numpy.int8)
        others = self._otherImages()
        for slab, present, edits in kept.comparisons(self._segment):
            part = slices_kji(slab, start_of(box))
            self._edits[part] = edits
            numpy.copyto(self._rest[part], 0, where=present)
            fixed = edits | (self._rest[part] != 0)
            for image in others:
                fixed |= SegmentLabelmap.occupied(image, slab, kept.imageToWorld)
            levels = self._sensitivity.entry_levels(kept.probabilitiesIn(slab), kept.labelsIn(slab), label)
            numpy.copyto(levels, self._sensitivity.NEVER, where=fixed)
            numpy.copyto(levels, self._sensitivity.ALWAYS, where=fixed & present)
            self._levels[part] = levels
        self._written = self._image.GetMTime()

    def _otherImages(self):
        """The labelmaps of the other segments that are not on this segment's own."""
        segmentation = self._node.GetSegmentation()
        images = []
        for segmentId in segmentation.GetSegmentIDs():
            image = SegmentLabelmap.of(segmentation.GetSegment(segmentId))
            if image is not None and not any(image is other for other in (self._image, *images)):
                images.append(image)
        return images

    @property
    def isValid(self):
        """Whether nobody else has changed the segment since the last step."""
        segment = self._node.GetSegmentation().GetSegment(self._segmentId) if self._node.GetScene() else None
        return segment is self._segment and self._image.GetMTime() == self._written

    def to(self, value):
        """Show the border at a sensitivity. No undo step, no tags."""
        import numpy

        inside = self._levels <= self._sensitivity.level_of(value)
        numpy.copyto(self._layer, self._rest)
        numpy.copyto(self._layer, self._value, where=inside)
        self._touch()
        return inside

    def cancel(self):
        """Leave everything as it was."""
        self._layer[...] = self._original
        self._touch()

    def finish(self, value):
        """Write the border at a sensitivity for good, as one undo step. Returns whether anything was written.

        The fingerprint has to be renewed afterwards, see ``renewFingerprint``.
        """
        level_of = self._sensitivity.level_of
        if level_of(value) == level_of(self._start):
            self.cancel()
            return False
        self._layer[...] = self._original
        self._touch()
        SegmentEditors.saveStateForUndo(self._node)
        inside = self.to(value)
        segment = self._segment
        segment.SetTag(tags.SENSITIVITY, f"{level_of(value) / self._sensitivity.STEPS_PER_UNIT:g}")
        segment.SetTag(tags.STATE, self._kept.remember(inside, self._edits))
        segment.SetTag(tags.FINGERPRINT, tags.EDITED)
        self._finalState = tag(segment, tags.STATE)
        self._inside = inside
        if self._surfaces:
            segmentation = self._node.GetSegmentation()
            self._surfaces.replace(self._segmentId, finish(surfaceOf(segmentation, self._segmentId)))
            self._surfaces.restore()
        self._node.Modified()
        return True

    def renewFingerprint(self):
        """Steps (for EventLoopTask) that let the segment count as untouched, if nobody has edited it."""
        import numpy

        array = SegmentLabelmap.array(self._image)
        present, inBox = 0, int(numpy.count_nonzero(self._inside))
        for slab in slabs(array):
            present += int(numpy.count_nonzero(slab == self._value))
            yield
        if self._edits.any() or present != inBox:
            return
        array, offset = self._inside.view(numpy.uint8), start_of(self._box)
        found = yield from fingerprintsOfLabels(array, offset, self._kept.imageToWorld)
        if tag(self._segment, tags.STATE) == self._finalState:  # else undo or another movement came in between
            self._segment.SetTag(tags.FINGERPRINT, found.get(1, tags.EMPTY))

    def _touch(self):
        self._image.Modified()
        self._surfaces.restore()
        self._written = self._image.GetMTime()


def segmentOf(node, segmentId):
    """:raises ProSMAError: ``bad_output``, if there is no such segment."""
    segment = node.GetSegmentation().GetSegment(segmentId) if _isSegmentation(node) else None
    if segment is None:
        raise ProSMAError(
            "bad_output",
            _("There is no segment '{id}' to move.").format(id=segmentId),
            _("Segment a volume first, or choose another segment."),
        )
    return segment


def sensitivityOf(segment):
    """The sensitivity that a segment was written with; 0 is the model's own border."""
    try:
        return float(tag(segment, tags.SENSITIVITY) or 0)
    except ValueError:
        return 0.0


def whyNotMovable(node, segmentId):
    """Why a segment's border cannot be moved, and the way out; an empty text if it can."""
    try:
        keptOf(node, segmentOf(node, segmentId))
    except ProSMAError as error:
        return str(error)
    return ""


def keptOf(node, segment):
    """The KeptResult to move a segment in.

    :raises ProSMAError: ``no_probabilities`` or ``protected``, if it cannot be moved.
    """
    why = whyProtected(segment)
    if why:
        raise ProSMAError("protected", why)
    kept = KeptProbabilities.shared().of(node, segment)
    label = tag(segment, tags.LABEL)
    if not label.isdigit():
        raise ProSMAError(
            "no_probabilities",
            _("'{name}' was not made by ProSMA.").format(name=segment.GetName()),
            _("Change it with the Segment Editor."),
        )
    if kept is None:
        raise ProSMAError(
            "no_probabilities",
            _("The class probabilities of '{name}' are not there any more; they are not saved with the scene.").format(
                name=segment.GetName()
            ),
            _("Segment the volume again, in an ROI if it is very large."),
        )
    if kept.reach[int(label) - 1] is None:
        raise ProSMAError(
            "no_probabilities",
            _("The model sees no trace of '{name}' in this image.").format(name=segment.GetName()),
            _("Draw it with the Segment Editor, or segment with another model."),
        )
    return kept


def _isSegmentation(node):
    return node is not None and node.IsA("vtkMRMLSegmentationNode") and node.GetScene() is slicer.mrmlScene
