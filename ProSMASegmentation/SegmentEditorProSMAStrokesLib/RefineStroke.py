from prosma.image.box import grown, shape_of, slices, start_of
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError


class RefineStroke:
    """Refines a mask around a stroke with ``prosma.correct.refine``, and a model's probabilities where they are kept.

    :param odds: the segment's ModelOdds. :param grid: the EditedGrid.
    """

    def __init__(self, odds, grid):
        self._odds, self._grid = odds, grid

    def refine(self, mask, channels, stroke, belongs, radius, earlier):
        """Decide the border anew around a stroke.

        :param mask: (K, J, I) boolean array. :param channels: (C, K, J, I) array of the image.
        :param stroke: (box along K, J, I; boolean array of its voxels). :param belongs: what it says.
        :param radius: of its brush in mm. :param earlier: (K, J, I) array, not 0 where earlier strokes were.
        :return: (box along K, J, I of the part that may have changed, boolean array of that part).
        :raises ProSMAError: ``bad_input``, with the engine's reason.
        """
        import numpy

        from prosma.correct.refine import StrokeError, reach_of, refine

        place, covered = stroke
        spacing = self._grid.spacing
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
                probability=self._odds.probability(box),
                radius_mm=reach,
                fixed=earlier[inside] != 0,
            )
        except StrokeError as error:
            raise ProSMAError(error.code, error.message, error.remedy) from error
        return box, result.on(mask[inside])
