VOXELS_PER_STEP = 1 << 19


class Components:
    """The connected parts of a mask: voxels that touch, also at a corner, belong together.

    Public, complete after ``steps``: ``numbers`` (K, J, I; int32), each voxel's part, 0 outside; ``sizes``, voxels of the
    part of each number, 0 for numbers that are no part.
    """

    def __init__(self, mask):
        import numpy

        self._mask = mask
        self._parents = [0]  # of numbers that were found to be one part, as a forest
        self.numbers = numpy.zeros(mask.shape, numpy.int32)
        self.sizes = None

    def steps(self):
        """Steps (for EventLoopTask): slabs that have one slice in common are looked at in turn."""
        import numpy

        depth = len(self._mask)
        step = max(1, VOXELS_PER_STEP // max(1, self._mask[:1].size))
        for start in range(0, max(1, depth - 1), step):
            self._number(start, min(start + step + 1, depth))
            yield
        roots = numpy.array([self._root(number) for number in range(len(self._parents))])
        self.sizes = numpy.zeros(len(roots), numpy.int64)
        for start in range(0, depth, step):
            slab = self.numbers[start : start + step]
            slab[...] = roots[slab]
            self.sizes += numpy.bincount(slab.ravel(), minlength=len(roots))
            yield
        self.sizes[0] = 0

    def _number(self, start, stop):
        import numpy
        import SimpleITK

        image = SimpleITK.GetImageFromArray(self._mask[start:stop].astype(numpy.uint8))
        found = SimpleITK.GetArrayFromImage(SimpleITK.ConnectedComponent(image, True)).astype(numpy.int32)
        base, count = len(self._parents) - 1, int(found.max(initial=0))
        found[found > 0] += base
        self._parents += range(base + 1, base + count + 1)
        common = self.numbers[start] > 0
        pairs = numpy.stack([self.numbers[start][common], found[0][common]])
        for one, other in numpy.unique(pairs, axis=1).T:
            self._parents[self._root(int(one))] = self._root(int(other))
        self.numbers[start:stop] = found

    def _root(self, number):
        while self._parents[number] != number:
            number = self._parents[number]
        return number
