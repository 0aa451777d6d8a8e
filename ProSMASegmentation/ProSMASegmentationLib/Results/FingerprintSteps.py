"""Fingerprints of segments, slab by slab for the event loop; the rule is ``prosma.image.edited_segments``."""

import slicer

from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap
from ProSMASegmentationLib.Volumes.VolumeReader import slabs

BYTES_PER_SLAB = 1 << 18  # looked through in a few ms


def fingerprintsOfLabels(array, offset, imageToWorld):
    """Steps (for EventLoopTask) that return {value: fingerprint} for the values above 0 that occur.

    :param array: labels in the order (K, J, I).
    :param offset: i, j, k of the array's first voxel.
    :param imageToWorld: vtkMatrix4x4 from i, j, k to mm.
    """
    from prosma.image.edited_segments import Fingerprints

    found = Fingerprints()
    for slab in slabs(array, BYTES_PER_SLAB):
        found.add(slab)
        yield
    return found.texts(slicer.util.arrayFromVTKMatrix(imageToWorld), offset)


def fingerprintsOfImage(image):
    """Steps (for EventLoopTask) that return {label value: fingerprint} of the present voxels of a segments' image."""
    array = SegmentLabelmap.array(image)
    if array.size == 0:
        return {}
    fingerprints = yield from fingerprintsOfLabels(array, *SegmentLabelmap.geometry(image))
    return fingerprints


def isUnchanged(now, written):
    """Whether two fingerprints are of the same voxels at the same place."""
    from prosma.image.edited_segments import same_fingerprint

    return same_fingerprint(now, written)
