import slicer

from prosma.image import tags
from prosma.image.box import grown, overlap, placed, shape_of, slices, start_of
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Results.SegmentStatus import tag

SAME_GRID_MM = 1e-3


class RefineStroke:
    """Refines a mask around a stroke with ``prosma.correct.refine``, and the network's probabilities where they are kept.

    :param node: the segmentation node. :param segment: its segment to refine.
    :param matrix: vtkMatrix4x4 from i, j, k to mm of the grid. :param extent: of the grid, six integers.
    """

    def __init__(self, node, segment, matrix, extent):
        from ProSMASegmentationLib.Results.KeptProbabilities import (
            KeptProbabilities,  # the panel's, also after its reload
        )

        self._extent = extent
        self._kept = self._label = None
        kept = KeptProbabilities.shared().of(node, segment)
        if kept is not None and sameMatrix(kept.imageToWorld, matrix):
            self._kept, self._label = kept, int(tag(segment, tags.LABEL))

    def refine(self, mask, channels, stroke, belongs, radius, earlier, spacing):
        """Decide the border anew around a stroke.

        :param mask: (K, J, I) boolean array. :param channels: (C, K, J, I) array of the image.
        :param stroke: (box along K, J, I; boolean array of its voxels). :param belongs: what it says.
        :param radius: of its brush in mm. :param earlier: (K, J, I) array, not 0 where earlier strokes were.
        :param spacing: in mm along K, J, I.
        :return: (box along K, J, I of the part that may have changed, boolean array of that part).
        :raises ProSMAError: ``bad_input``, with the engine's reason.
        """
        import numpy

        from prosma.correct.refine import StrokeError, reach_of, refine

        place, covered = stroke
        reach = reach_of(radius, mask.shape, spacing)
        box = grown(place, [int(reach / size) + 2 for size in spacing], mask.shape)
        inside = slices(box)
        here = numpy.zeros(shape_of(box), bool)
        here[slices(place, start_of(box))] = covered
        add, remove = (here, None) if belongs else (None, here)
        try:
            result = refine(
                mask[inside],
                channels[(slice(None), *inside)],
                add,
                remove,
                spacing,
                probability=self._probability(box),
                radius_mm=reach,
                fixed=earlier[inside] != 0,
            )
        except StrokeError as error:
            raise ProSMAError(error.code, error.message, error.remedy) from error
        return box, result.on(mask[inside])

    def _probability(self, box):
        """The network's probability of the segment in a box of the grid, 0 to 255, or None if it is not known."""
        import numpy

        if self._kept is None or self._kept.probabilities is None:
            return None
        shift = self._extent[4::-2]  # of the grid's first voxel from the volume's, along K, J, I
        start = [first - own for first, own in zip(self._kept.offset[::-1], shift, strict=True)]
        found = numpy.zeros(shape_of(box), numpy.uint8)
        known = overlap(box, placed(start, self._kept.probabilities.shape[1:]))
        if known is not None:
            source = (self._label, *slices(known, start))
            found[slices(known, start_of(box))] = self._kept.probabilities[source]
        return found


def sameMatrix(one, other):
    """Whether two vtkMatrix4x4 are those of one grid."""
    import numpy

    return numpy.allclose(slicer.util.arrayFromVTKMatrix(one), slicer.util.arrayFromVTKMatrix(other), atol=SAME_GRID_MM)
