from prosma.image.box import slabs
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap

VOXELS_PER_SLAB = 1 << 20


def diceSteps(one, other, imageToWorld, box):
    """Steps (for EventLoopTask) that return the Dice coefficient of two segments, None if both are empty.

    :param one, other: vtkSegments; those on another grid than the one given are resampled to it.
    :param imageToWorld, box: the grid, and the voxels ((i0, i1), (j0, j1), (k0, k1)) of it to compare.
    """
    import numpy

    common = total = 0
    for slab in slabs(box, VOXELS_PER_SLAB):
        masks = [SegmentLabelmap.resampledMask(segment, slab, imageToWorld) for segment in (one, other)]
        common += int(numpy.count_nonzero(masks[0] & masks[1]))
        total += sum(int(numpy.count_nonzero(mask)) for mask in masks)
        yield
    return 2 * common / total if total else None
