from slicer.i18n import tr as _

from prosma.image import tags
from prosma.image.box import moved, overlap, shape_of, slabs, slices_kji, start_of
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Correct.Components import VOXELS_PER_STEP, Components
from ProSMASegmentationLib.Correct.SensitivityMove import segmentOf
from ProSMASegmentationLib.Results.FingerprintSteps import fingerprintsOfImage, fingerprintsOfLabels, isUnchanged
from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities
from ProSMASegmentationLib.Results.SegmentEditors import SegmentEditors
from ProSMASegmentationLib.Results.SegmentLabelmap import CLOSED_SURFACE, SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import tag, whyProtected
from ProSMASegmentationLib.Results.ShownSurfaces import ShownSurfaces, surfaceSteps


class LargestPart:
    """Takes the small islands out of segments that ProSMA made: of each, the largest connected part stays.

    Parts in which a person has added voxels stay too, and locked or completed segments are not touched. Everything
    together is one undo step.

    :param node: the segmentation. :param segmentIds: the segments; by default all that may be changed.
    :raises ProSMAError: ``protected``, ``bad_output`` or ``no_probabilities``, if a segment that was named cannot be.
    """

    def __init__(self, node, segmentIds=None):
        self._node = node
        if node is None or not node.IsA("vtkMRMLSegmentationNode") or node.GetScene() is None:
            raise ProSMAError("bad_output", _("There is no segmentation to change."), _("Segment a volume first."))
        if segmentIds is None:
            every = node.GetSegmentation().GetSegmentIDs()
            segmentIds = [each for each in every if not self._whyNot(segmentOf(node, each))]
        for segmentId in segmentIds:
            why = self._whyNot(segmentOf(node, segmentId))
            if why:
                raise ProSMAError("protected", why)
        self._segmentIds = list(segmentIds)

    @staticmethod
    def _whyNot(segment):
        if not tag(segment, tags.LABEL).isdigit():
            return _(
                "'{name}' was not made by ProSMA. Clean it with the Segment Editor, whose effect is Islands."
            ).format(name=segment.GetName())
        return whyProtected(segment)

    def steps(self):
        """Steps (for EventLoopTask) that change the segments at the end, all at once. Returns {name: voxels removed}.

        Their surfaces, where they are shown in 3D, are made before, each in a step of its own.
        """
        changes = []
        for segmentId in self._segmentIds:
            self._checkStillThere(segmentId)
            change = _Change(self._node, segmentId)
            for _step in change.find():
                yield
                self._checkStillThere(segmentId)
            if change.removed:
                yield from change.makeSurface()
                changes.append(change)
        for change in changes:
            self._checkStillThere(change.segmentId)
        if any(not change.isCurrent for change in changes):
            raise ProSMAError(
                "bad_output",
                _("The segmentation was changed meanwhile; nothing was taken out of it."),
                _("Do it again."),
            )
        if changes:
            SegmentEditors.saveStateForUndo(self._node)
            surfaces = ShownSurfaces(self._node.GetSegmentation())
            for change in changes:
                change.write(surfaces)
            for change in changes:
                change.accept()
            surfaces.complete()
            self._node.Modified()
        for change in changes:
            yield from change.renewFingerprint()
        return {change.name: change.removed for change in changes}

    def _checkStillThere(self, segmentId):
        if self._node.GetScene() is None or self._node.GetSegmentation().GetSegment(segmentId) is None:
            raise ProSMAError(
                "bad_output", _("The result was removed meanwhile."), _("Segment the volume again, and do it again.")
            )


class _Change:
    """What goes from the segment ``segmentId``.

    ``removed``: how many voxels; ``isCurrent``: nobody has changed the segment since.
    """

    def __init__(self, node, segmentId):
        self._node = node
        self.segmentId = segmentId
        self._segment = segment = segmentOf(node, segmentId)
        self._image = SegmentLabelmap.of(segment)
        self._kept = KeptProbabilities.shared().of(node, segment)
        self._reach = self._kept.reach[int(tag(segment, tags.LABEL)) - 1] if self._kept is not None else None
        self._edits = None  # (K, J, I) in the reach: voxels that a person has changed
        self._surface = None
        self.name = segment.GetName()
        self.removed = 0

    @property
    def isCurrent(self):
        segment = self._node.GetSegmentation().GetSegment(self.segmentId) if self._node.GetScene() else None
        return segment is self._segment and self._image.GetMTime() == self._time

    def find(self):
        """Steps that find the voxels to remove."""
        import numpy

        array, value = SegmentLabelmap.array(self._image), self._segment.GetLabelValue()
        if array.size == 0:
            return
        self._time = self._image.GetMTime()
        self._grid = self._kept.imageToWorld if self._kept is not None else SegmentLabelmap.geometry(self._image)[1]
        corner = start_of(SegmentLabelmap.box(self._image, self._grid))
        reach = yield from SegmentLabelmap.reach(array, value)
        if reach is None:
            return
        self._box = moved(reach, corner)
        self._present = numpy.empty(shape_of(self._box)[::-1], bool)
        for slices, part in self._slabs():
            self._present[slices] = SegmentLabelmap.mask(self._segment, part, self._grid)
            yield
        added = yield from self._added()
        components = Components(self._present)
        yield from components.steps()
        stay = numpy.zeros(len(components.sizes), bool)
        stay[components.sizes.argmax()] = True
        stay[components.numbers[added]] = True
        stay[0] = True
        self._islands = numpy.empty_like(self._present)
        for slices, _part in self._slabs():
            self._islands[slices] = ~stay[components.numbers[slices]]
            yield
        self.removed = int(numpy.count_nonzero(self._islands))

    def _slabs(self):
        """Pairs (slices of the arrays, box in the grid) that together are the whole box."""
        for part in slabs(self._box, VOXELS_PER_STEP):
            yield slices_kji(part, start_of(self._box)), part

    def _added(self):
        """Steps that return where in the box a person has added voxels; also finds out whether the segment is untouched."""
        import numpy

        if self._kept is None:
            yield from self._refuseIfEdited()
            self._untouched = True
            return numpy.zeros(self._present.shape, bool)
        added = self._present.copy()  # out of the run's reach everything is a person's
        if self._reach is not None:
            self._edits = numpy.zeros(shape_of(self._reach)[::-1], bool)
            for box, now, edits in self._kept.comparisons(self._segment):
                self._edits[slices_kji(box, start_of(self._reach))] = edits
                common = overlap(box, self._box)
                if common is not None:
                    inBox = slices_kji(common, start_of(box))
                    added[slices_kji(common, start_of(self._box))] = (now & edits)[inBox]
                yield
        self._untouched = not added.any() and (self._edits is None or not self._edits.any())
        return added

    def _refuseIfEdited(self):
        found = yield from fingerprintsOfImage(self._image)
        if not isUnchanged(found.get(self._segment.GetLabelValue(), tags.EMPTY), tag(self._segment, tags.FINGERPRINT)):
            raise ProSMAError(
                "no_probabilities",
                _("It is not known any more which voxels of '{name}' a person has added.").format(name=self.name),
                _("Segment the volume again, or use the Segment Editor's effect Islands."),
            )

    def makeSurface(self):
        """Steps that make the surface of what stays, if the segment is shown in 3D."""
        segmentation = self._node.GetSegmentation() if self.isCurrent else None
        if segmentation is not None and self._segment.GetRepresentation(CLOSED_SURFACE) is not None:
            offset = start_of(self._box)
            self._surface = yield from surfaceSteps(segmentation, self._staying(), 1, offset, self._grid)
            yield

    def _staying(self):
        import numpy

        return (self._present & ~self._islands).view(numpy.uint8)

    def write(self, surfaces):
        """Take the voxels out, and say that it was ProSMA who did it. The new surface goes into ``surfaces``."""
        layer, image = SegmentLabelmap.writable(self._segment, self._box, self._grid)
        layer[self._islands] = 0
        image.Modified()
        if surfaces:
            surfaces.replace(self.segmentId, self._surface)
        if self._edits is not None:
            present = SegmentLabelmap.mask(self._segment, self._reach, self._grid)
            self._segment.SetTag(tags.STATE, self._kept.remember(present, self._edits))
        self._segment.SetTag(tags.FINGERPRINT, tags.EDITED)

    def accept(self):
        """The segment is current as it is now; several may share an image."""
        self._time = self._image.GetMTime()

    def renewFingerprint(self):
        """Steps that let the segment count as untouched, if it did before."""
        if not self._untouched:
            return
        found = yield from fingerprintsOfLabels(self._staying(), start_of(self._box), self._grid)
        if self.isCurrent:  # else undo or an edit came in between
            self._segment.SetTag(tags.FINGERPRINT, found.get(1, tags.EMPTY))
