from prosma.image import tags
from prosma.image.box import moved, overlap, placed, shape_of, slices, start_of, whole
from ProSMASegmentationLib.Results.SegmentStatus import tag
from SegmentEditorProSMAStrokesLib.EditedGrid import sameMatrix


class ModelOdds:
    """The class probabilities that a run has left for a segment, on the grid that is edited; nothing where there are none.

    :param node: the segmentation node. :param segment: its segment. :param grid: the EditedGrid.
    """

    def __init__(self, node, segment, grid):
        from ProSMASegmentationLib.Results.KeptProbabilities import (
            KeptProbabilities,  # the panel's, also after its reload
        )

        self._grid = grid
        self._kept = self._label = self._part = None
        kept = KeptProbabilities.shared().of(node, segment)
        if kept is not None and sameMatrix(kept.imageToWorld, grid.matrix):
            self._kept, self._label = kept, int(tag(segment, tags.LABEL))

    @property
    def isKnown(self):
        return self._kept is not None and self._kept.probabilities is not None

    def probability(self, box):
        """The model's probability of the segment in a box of the grid, 0 to 255, or None if it is not known."""
        import numpy

        if not self.isKnown:
            return None
        start = self._start(self._kept.offset)
        found = numpy.zeros(shape_of(box), numpy.uint8)
        known = overlap(box, placed(start, self._kept.probabilities.shape[1:]))
        if known is not None:
            found[slices(known, start_of(box))] = self._kept.probabilities[(self._label, *slices(known, start))]
        return found

    def part(self):
        """(box along K, J, I; log odds as float16) where the model saw the segment at all, or None if it is not known."""
        import numpy

        from prosma.correct.stroke_features import log_odds

        reach = self._kept.reach[self._label - 1] if self.isKnown else None
        if reach is None:
            return None
        if self._part is None:
            box = overlap(moved(reach[::-1], self._start((0, 0, 0))), whole(self._grid.shape))
            if box is None:
                return None
            self._part = (box, log_odds(self.probability(box)).astype(numpy.float16))
        return self._part

    def _start(self, offset):
        """Where a voxel i, j, k of the volume lies on the grid, along K, J, I."""
        return [first - own for first, own in zip(offset[::-1], self._grid.extent[4::-2], strict=True)]
