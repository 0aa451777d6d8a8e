import hashlib

from ProSMASegmentationLib.Volumes.VolumeReader import slabs

EMPTY = "empty"
BYTES_PER_SLAB = 1 << 18  # looked through in a few ms
TOLERANCE_MM = 0.02  # file formats round the geometry


class Fingerprint:
    """A short text that tells whether the voxels of a segment are still the ones that were written.

    It does not depend on how the voxels are stored (extent, label value, layer), so it survives saving and loading: a
    digest of the runs of voxels along the rows, seen from the first one, and where in space that first voxel is.
    """

    @staticmethod
    def ofLabels(array, offset, imageToWorld):
        """Steps (for EventLoopTask) that return {value: fingerprint} for the values above 0 that occur.

        :param array: labels in the order (K, J, I).
        :param offset: i, j, k of the array's first voxel.
        :param imageToWorld: vtkMatrix4x4 from i, j, k to mm.
        """
        firsts, digests = {}, {}
        start = 0
        for slab in slabs(array, BYTES_PER_SLAB):
            for value, runs in _runsByValue(slab, start):
                first = firsts.setdefault(value, runs[0, :3].copy())
                runs[:, :3] -= first
                digests.setdefault(value, hashlib.blake2b(digest_size=16)).update(runs.tobytes())
            start += slab.shape[0]
            yield
        return {
            value: f"{digest.hexdigest()}@{_place(firsts[value], offset, imageToWorld)}"
            for value, digest in digests.items()
        }

    @staticmethod
    def match(one, other):
        """Whether two fingerprints are of the same voxels at the same place."""
        digest, _at, place = one.partition("@")
        otherDigest, _at, otherPlace = other.partition("@")
        if digest != otherDigest or bool(place) != bool(otherPlace):
            return False
        if not place:
            return True
        pairs = zip(place.split(","), otherPlace.split(","), strict=True)
        return all(abs(float(a) - float(b)) <= TOLERANCE_MM for a, b in pairs)


def _runsByValue(slab, start):
    """Pairs (value, runs) of a slab whose first slice is number ``start``; a run is k, j, i of its begin, and length."""
    import numpy

    begins = numpy.ones(slab.shape, bool)
    numpy.not_equal(slab[..., 1:], slab[..., :-1], out=begins[..., 1:])
    flat = numpy.flatnonzero(begins)
    lengths = numpy.diff(flat, append=slab.size)
    values = slab.reshape(-1)[flat]
    inside = values > 0
    flat, lengths, values = flat[inside], lengths[inside], values[inside]
    k, j, i = numpy.unravel_index(flat, slab.shape)
    runs = numpy.stack([k + start, j, i, lengths], axis=1).astype("<i4")
    order = numpy.argsort(values, kind="stable")
    found, begin = numpy.unique(values[order], return_index=True)
    for value, part in zip(found, numpy.split(order, begin[1:]), strict=False):
        yield int(value), runs[part]


def _place(first, offset, imageToWorld):
    """Where the voxel k, j, i of the array is, in mm."""
    index = [int(number) + shift for number, shift in zip(reversed(first), offset, strict=True)]
    return ",".join(f"{mm:.4f}" for mm in imageToWorld.MultiplyPoint([*index, 1])[:3])
