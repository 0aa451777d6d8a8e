import hashlib

from ProSMASegmentationLib.VolumeReader import slabs

EMPTY = "empty"
CORNER_TOLERANCE_MM = 0.02


class Fingerprint:
    """A short text that tells whether the voxels of a segment are still the ones that were written.

    It does not depend on how the voxels are stored (extent, label value, layer), so it survives saving and loading:
    a digest of the smallest box around the voxels, and where in space that box begins.
    """

    @classmethod
    def ofLabels(cls, array, offset, imageToWorld, values):
        """Steps (for EventLoopTask) that return {value: fingerprint}.

        :param array: labels in the order (K, J, I).
        :param offset: i, j, k of the array's first voxel.
        :param imageToWorld: vtkMatrix4x4 from i, j, k to mm.
        """
        boxes = yield from cls._boxes(array)
        fingerprints = {}
        for value in values:
            box = boxes.get(value)
            if box is None:
                fingerprints[value] = EMPTY
                continue
            digest = yield from cls._digest(array, value, box)
            first = [start + shift for (start, _stop), shift in zip(reversed(box), offset, strict=True)]
            corner = imageToWorld.MultiplyPoint([*first, 1])[:3]
            fingerprints[value] = digest + "@" + ",".join(f"{mm:.4f}" for mm in corner)
        return fingerprints

    @staticmethod
    def match(one, other):
        """Whether two fingerprints are of the same voxels at the same place."""
        digest, _at, corner = one.partition("@")
        otherDigest, _at, otherCorner = other.partition("@")
        if digest != otherDigest or bool(corner) != bool(otherCorner):
            return False
        if not corner:
            return True
        pairs = zip(corner.split(","), otherCorner.split(","), strict=True)
        return all(abs(float(a) - float(b)) <= CORNER_TOLERANCE_MM for a, b in pairs)

    @staticmethod
    def _boxes(array):
        """{value: [[k0, k1], [j0, j1], [i0, i1]]} of all values above 0, found in one pass."""
        from scipy.ndimage import find_objects

        boxes = {}
        start = 0
        for slab in slabs(array):
            for value, found in enumerate(find_objects(slab), start=1):
                if found is None:
                    continue
                here = [[axis.start, axis.stop] for axis in found]
                here[0] = [here[0][0] + start, here[0][1] + start]
                before = boxes.get(value, here)
                boxes[value] = [[min(a[0], b[0]), max(a[1], b[1])] for a, b in zip(before, here, strict=True)]
            start += slab.shape[0]
            yield
        return boxes

    @staticmethod
    def _digest(array, value, box):
        import numpy

        cropped = array[tuple(slice(start, stop) for start, stop in box)]
        digest = hashlib.blake2b(repr(cropped.shape).encode(), digest_size=16)
        for slab in slabs(cropped):
            digest.update(numpy.packbits((slab == value).reshape(slab.shape[0], -1), axis=1).tobytes())
            yield
        return digest.hexdigest()
