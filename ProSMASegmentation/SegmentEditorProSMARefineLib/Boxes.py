"""Boxes of voxels, as slices along K, J, I with a start and a stop."""


def relative(inner, outer):
    """A box as slices of an array that covers the box ``outer``, in which it lies."""
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))


def overlap(box, start, shape):
    """What a box and an array that begins at ``start`` have in common: slices of the box, and of the array."""
    here, there = [], []
    for part, first, size in zip(box, start, shape, strict=True):
        low = max(part.start, first)
        high = max(min(part.stop, first + size), low)
        here.append(slice(low - part.start, high - part.start))
        there.append(slice(low - first, high - first))
    return tuple(here), tuple(there)


def union(one, other):
    """The box around two boxes; the first may be None."""
    if one is None:
        return other
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))


def grown(box, margins, shape):
    """A box with so many voxels more on each side along each axis, within the shape."""
    parts = zip(box, margins, shape, strict=True)
    return tuple(slice(max(part.start - more, 0), min(part.stop + more, size)) for part, more, size in parts)


def shapeOf(box):
    """K, J, I."""
    return tuple(part.stop - part.start for part in box)
