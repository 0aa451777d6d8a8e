import slicer
from slicer.i18n import tr as _

from prosma.image import tags
from prosma.image.box import shape_of, slices, start_of, union
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import tag, whyProtected
from SegmentEditorProSMAStrokesLib.EditedGrid import EditedGrid
from SegmentEditorProSMAStrokesLib.EditMask import EditMask
from SegmentEditorProSMAStrokesLib.ModelOdds import ModelOdds
from SegmentEditorProSMAStrokesLib.RefineStroke import RefineStroke

BELONGS, EXCLUDED, REGION = 1, 2, 3  # what was said of voxels; a region is a box or a lasso around what belongs


class StrokesSession:
    """What was said about one segment and what that makes of it, until it is applied or cancelled.

    Everything is on the voxel grid on which the Segment Editor edits. Strokes that were applied are kept, so that later
    ones honour them; they are forgotten when the segment is changed by something else, such as undo or another effect.

    :param effect: what C++ gives to the effect (qSlicerSegmentEditorScriptedEffect).
    """

    def __init__(self, effect):
        self._effect = effect
        self._looked = None  # (target, whether it has voxels) that was looked at last
        self.clear()

    def clear(self):
        """Forget what was said and what it would change."""
        self.grid = None  # EditedGrid
        self._target = None  # (segmentation node, segment id, time of the last change of its voxels)
        self._mask = self._maskBox = None  # (K, J, I) boolean array: the segment as the answers make it, and its box
        self._marks = self._marksBox = (
            None  # (K, J, I) array: 0, BELONGS or EXCLUDED where answered strokes were; their box
        )
        self._region = None  # (box, boolean array) of the boxes and lassos so far
        self._odds = None
        self._unanswered = []  # (box, boolean array, what)
        self._steps = []  # answers since Apply: (box, mask before, mask after, (box, marks before), region before)

    # ---- what may be changed

    def whyNot(self):
        """Why nothing can be said about the selected segment, and the way out; an empty text if it can."""
        parameters = self._effect.parameterSetNode()
        node = parameters.GetSegmentationNode() if parameters is not None else None
        if node is None:
            return _("There is no segmentation to work on. Segment a volume, or choose a segmentation.")
        volume = parameters.GetSourceVolumeNode()
        if volume is None or volume.GetImageData() is None:
            return _("The segmentation's volume is missing. Choose a source volume.")
        segment = self._segment()
        return whyProtected(segment) if segment is not None else ""

    def _segment(self):
        """The selected segment, or None."""
        parameters = self._effect.parameterSetNode()
        return parameters.GetSegmentationNode().GetSegmentation().GetSegment(parameters.GetSelectedSegmentID() or "")

    def corrects(self):
        """Whether the selected segment has voxels that were not begun by strokes: a mask of a model or of a person."""
        parameters = self._effect.parameterSetNode()
        node = parameters.GetSegmentationNode() if parameters is not None else None
        segment = self._segment() if node is not None else None
        if segment is None or tag(segment, tags.STROKES):
            return False
        target = self._currentTarget()
        if self._looked is None or self._looked[0] != target:
            self._looked = (target, SegmentLabelmap.hasVoxels(segment))
        return self._looked[1]

    def isCurrent(self):
        """Whether the segment is still the selected one, and as the session knows it."""
        return self._target is not None and not self.whyNot() and self._target == self._currentTarget()

    def _currentTarget(self):
        parameters, segment = self._effect.parameterSetNode(), self._segment()
        image = SegmentLabelmap.of(segment) if segment is not None else None
        changed = image.GetMTime() if image is not None else 0
        return (parameters.GetSegmentationNode(), parameters.GetSelectedSegmentID(), changed)

    def begin(self, adds=True):
        """Look at the selected segment, unless that was done; without any segment a stroke that adds makes one.

        :raises ProSMAError: ``bad_input``, if there is nothing to work on.
        """
        import numpy

        why = self.whyNot()
        if why:
            raise ProSMAError("bad_input", why)
        if self.isCurrent():
            return
        self.clear()
        self.grid = EditedGrid(self._effect)
        if self._segment() is None:
            self._addSegment(adds)
        segment = self._segment()
        self._mask, self._marks = numpy.zeros(self.grid.shape, bool), numpy.zeros(self.grid.shape, numpy.uint8)
        self._maskBox = self.grid.boxOf(segment)
        if self._maskBox is not None:
            self._mask[slices(self._maskBox)] = self.grid.voxelsOf(segment, self._maskBox)
        self._target = self._currentTarget()
        self._odds = ModelOdds(self._target[0], segment, self.grid)

    def _addSegment(self, adds):
        parameters = self._effect.parameterSetNode()
        if not adds:
            raise ProSMAError(
                "bad_input",
                _("There is no segment to take anything from."),
                _("Select one, or say first what belongs to it."),
            )
        parameters.SetSelectedSegmentID(parameters.GetSegmentationNode().GetSegmentation().AddEmptySegment())

    # ---- saying

    def say(self, box, voxels, what):
        """Take a stroke (what: BELONGS, EXCLUDED) or a box or lasso (REGION), which waits for its answer."""
        self._unanswered.append((box, voxels, what))

    @property
    def isWaiting(self):
        """Whether something was said that is not answered."""
        return bool(self._unanswered)

    @property
    def hasRegion(self):
        """Whether a box or a lasso was said that is not answered."""
        return any(what == REGION for _box, _voxels, what in self._unanswered)

    def unsay(self):
        """Forget what was not answered. Returns whether there was something."""
        found, self._unanswered = bool(self._unanswered), []
        return found

    def refine(self, radius):
        """Answer with Refine: the border follows the image and the model's probabilities around the strokes.

        :param radius: of the brush in mm. :raises ProSMAError: ``bad_input``, with the engine's reason.
        """
        refiner = RefineStroke(self._odds, self.grid)
        hasRegion, said, self._unanswered = self.hasRegion, self._unanswered, []
        if hasRegion:
            raise ProSMAError(
                "bad_model", _("Boxes and lassos need a model for strokes."), _("Paint a stroke instead.")
            )
        for box, voxels, what in said:
            changed, result = refiner.refine(
                self._mask, self.grid.channels(), (box, voxels), what == BELONGS, radius, self._marks
            )
            self._unanswered = [(box, voxels, what)]
            self.answer(changed, result)

    def parts(self, provisional=None):
        """What a model needs for its answer: by names of the engine's request, (box along K, J, I; array) each.

        :param provisional: (box, boolean array, what) of a stroke that is being drawn.
        """
        unanswered = self._unanswered + ([provisional] if provisional is not None else [])
        painted = _painted([said for said in unanswered if said[2] != REGION])
        regions = [said for said in unanswered if said[2] == REGION]
        parts = {"region": _joined(self._region, regions), "log_odds": self._odds.part()}
        if painted is not None:
            parts["add"], parts["remove"] = ((painted[0], painted[1] == what) for what in (BELONGS, EXCLUDED))
        if self._marksBox is not None:
            marks = self._marks[slices(self._marksBox)]
            parts["earlier_add"], parts["earlier_remove"] = (
                (self._marksBox, marks == what) for what in (BELONGS, EXCLUDED)
            )
        if self._maskBox is not None:
            parts["mask"] = (self._maskBox, self._mask[slices(self._maskBox)])
        return {
            name: part for name, part in parts.items() if part is not None and (name == "log_odds" or part[1].any())
        }

    # ---- answers

    def answer(self, box, result):
        """Take the answer to what was said: ``result`` is the mask in a box, kept where the Segment Editor allows it."""
        before = self._mask[slices(box)].copy()
        after = EditMask(self._effect, self.grid).allowed(box, before, result)
        painted = _painted([said for said in self._unanswered if said[2] != REGION])
        marks = None
        if painted is not None:
            place, values = painted
            marks = (place, self._marks[slices(place)].copy())
            self._marks[slices(place)][values > 0] = values[values > 0]
            self._marksBox = union([self._marksBox, place])
        self._steps.append((box, before, after, marks, self._region))
        self._region = _joined(self._region, [said for said in self._unanswered if said[2] == REGION])
        self._unanswered = []
        self._mask[slices(box)] = after
        self._maskBox = union([self._maskBox, box])

    def takeBack(self):
        """Undo the last answer that was not applied. Returns whether there was one."""
        if not self._steps:
            return False
        box, before, _after, marks, self._region = self._steps.pop()
        self._mask[slices(box)] = before
        if marks is not None:
            self._marks[slices(marks[0])] = marks[1]
        return True

    @property
    def hasChanges(self):
        return bool(self._steps)

    def changes(self, provisional=None):
        """{"added": vtkOrientedImageData, "removed": ...}: what applying would do; None if nothing.

        :param provisional: (box, mask) of an answer to a stroke that is being drawn.
        """
        box = union([*(step[0] for step in self._steps), provisional and provisional[0]])
        if box is None:
            return None
        before, after = self.grid.voxelsOf(self._segment(), box), self._mask[slices(box)]
        if provisional is not None:
            place, result = provisional
            here = slices(place, start_of(box))
            after = after.copy()
            after[here] = EditMask(self._effect, self.grid).allowed(place, after[here], result)
        return self._images(box, before, after)

    def _images(self, box, before, after):
        """The voxels that are added to and removed from a segment, as images; None if there are none."""
        if not (before ^ after).any():
            return None
        images = {}
        for name, voxels in (("added", after & ~before), ("removed", before & ~after)):
            images[name], array = self.grid.newImage(box)
            array[:] = voxels
        return images

    def apply(self):
        """Write the changes into the segment, one undo step for each answer, through the editor's masking and overwriting.

        :return: whether anything was written.
        """
        steps, self._steps = self._steps, []
        corrects = self.corrects()
        written = [self._write(box, after) for box, _before, after, _marks, _region in steps]
        box = union(step[0] for step in steps)
        if box is not None:
            self._mask[slices(box)] = self.grid.voxelsOf(self._segment(), box)
        if any(written) and not corrects:
            self._segment().SetTag(tags.STROKES, "1")
        self._target = self._currentTarget()
        return any(written)

    def _write(self, box, after):
        images = self._images(box, self.grid.voxelsOf(self._segment(), box), after)
        if images is None:
            return False
        self._effect.saveStateForUndo()
        for name, mode in (
            ("removed", slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeRemove),
            ("added", slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeAdd),
        ):
            if SegmentLabelmap.array(images[name]).any():
                self._effect.modifySelectedSegmentByLabelmap(images[name], mode)
        return True


def _painted(strokes):
    """(box, array of the last word on each voxel, 0 for none) of strokes in their order; None for no strokes."""
    import numpy

    box = union(stroke[0] for stroke in strokes)
    if box is None:
        return None
    values = numpy.zeros(shape_of(box), numpy.uint8)
    for place, voxels, what in strokes:
        values[slices(place, start_of(box))][voxels] = what
    return box, values


def _joined(region, more):
    """(box, boolean array) of a region and further ones; None for none."""
    parts = [part for part in (region, *more) if part is not None]
    painted = _painted([(part[0], part[1], REGION) for part in parts])
    return None if painted is None else (painted[0], painted[1] > 0)
