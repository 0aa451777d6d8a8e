import vtk
from slicer.i18n import tr as _

from prosma.image import tags
from prosma.image.box import overlap, shape_of, slabs, slices_kji, start_of, whole
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities
from ProSMASegmentationLib.Results.SegmentStatus import tag
from ProSMASegmentationLib.Volumes.ScalarOutput import ScalarOutput

PROBABILITY, ENTROPY, MARGIN, GATE = "probability", "entropy", "margin", "gate"
COLORS = {
    PROBABILITY: "vtkMRMLColorTableNodeOcean",
    ENTROPY: "vtkMRMLColorTableNodeIron",
    MARGIN: "vtkMRMLColorTableNodeIron",
}
NUMBERS_PER_STEP = 1 << 18  # voxels times classes
FULL = 255  # the value of certainty in the kept probabilities


class OutputVolume:
    """A volume node of what a run left: no new run is needed. All values are from 0 to 1.

    ``probability`` of a segment's label; ``entropy`` of all classes, over its highest value; ``margin``: 1 minus the
    difference of the two most likely classes. The last two are high where the model is not sure.

    :param node: the segmentation. :param kind: one of these. :param segmentId: for ``probability``.
    :raises ProSMAError: ``bad_output`` or ``no_probabilities``, if there is nothing to make it of.
    """

    def __init__(self, node, kind, segmentId=None):
        if node is None or not node.IsA("vtkMRMLSegmentationNode") or node.GetScene() is None:
            raise ProSMAError("bad_output", _("There is no result of ProSMA's yet."), _("Segment a volume first."))
        self._node = node
        self._kind = kind
        segment = node.GetSegmentation().GetSegment(segmentId) if segmentId else None
        if kind == PROBABILITY and segment is None:
            raise ProSMAError("bad_output", _("No segment is chosen."), _("Choose the segment."))
        shared = KeptProbabilities.shared()
        self._kept = shared.of(node, segment) if kind == PROBABILITY else shared.latest(node)
        if self._kept is None:
            raise ProSMAError(
                "no_probabilities",
                _("The class probabilities of this result are not there any more; they are not saved with the scene."),
                _("Segment the volume again, in an ROI if it is very large."),
            )
        self._label = int(tag(segment, tags.LABEL)) if kind == PROBABILITY else None
        what = {
            PROBABILITY: _("probability of {name}").format(name=segment.GetName() if segment is not None else ""),
            ENTROPY: _("uncertainty (entropy)"),
            MARGIN: _("uncertainty (margin)"),
        }
        self._name = f"{node.GetName()} - {what[kind]}"

    def steps(self):
        """Steps (for EventLoopTask) that make the volume and return its node."""
        kept = self._kept
        self._checkStillThere()
        dimensions, offset, matrix = self._grid()
        output = ScalarOutput(self._name, COLORS[self._kind], dimensions, matrix)
        yield from output.clear()
        self._checkStillThere()
        for box in slabs(kept.box, NUMBERS_PER_STEP // len(kept.probabilities)):
            self._checkStillThere()
            output.array[slices_kji(box, offset)] = self._values(kept.probabilitiesIn(box))
            yield
        self._checkStillThere()
        return output.add(self._node)

    def _checkStillThere(self):
        if self._kept.probabilities is None or self._node.GetScene() is None:
            raise ProSMAError(
                "bad_output",
                _("The result was removed meanwhile; there is no new volume."),
                _("Segment the volume again."),
            )

    def _values(self, probabilities):
        """float32 (K, J, I) of class probabilities (classes, K, J, I; 0 to 255)."""
        import numpy

        if self._kind == PROBABILITY:
            return probabilities[self._label] / numpy.float32(FULL)
        if self._kind == MARGIN:
            second, best = numpy.partition(probabilities, (-2, -1), axis=0)[-2:].astype(numpy.float32)
            return 1 - (best - second) / FULL
        shares = probabilities / numpy.maximum(probabilities.sum(axis=0, dtype=numpy.float32), 1)
        logs = numpy.log(shares, out=numpy.zeros_like(shares), where=shares > 0)
        return -(shares * logs).sum(axis=0) / numpy.float32(numpy.log(len(probabilities)))

    def _grid(self):
        """(dimensions, i j k of the first voxel in the run's grid, matrix): of the volume, or of the box if it is gone."""
        kept = self._kept
        volume = self._node.GetNodeReference(self._node.GetReferenceImageGeometryReferenceRole())
        image = volume.GetImageData() if volume is not None else None
        sizes = image.GetDimensions() if image is not None else (0, 0, 0)
        if overlap(kept.box, whole(sizes)) == kept.box:
            return sizes, (0, 0, 0), kept.imageToWorld
        offset = start_of(kept.box)
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(kept.imageToWorld)
        for row, mm in enumerate(kept.imageToWorld.MultiplyPoint([*offset, 1])[:3]):
            matrix.SetElement(row, 3, mm)
        return shape_of(kept.box), offset, matrix
