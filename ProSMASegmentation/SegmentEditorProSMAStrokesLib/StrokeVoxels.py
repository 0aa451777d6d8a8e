"""Which voxels a stroke of a round brush covers."""

from prosma.image.box import shape_of, slices, start_of


def strokeVoxels(points, radius, imageToWorld, shape, normal=None, thickness=0.0):
    """The voxels under a stroke.

    :param points: (n, 3) array, where the middle of the brush was, in mm.
    :param radius: of the brush in mm. The voxels under its middle always belong to the stroke, however small it is.
    :param imageToWorld: (4, 4) array from i, j, k to mm.
    :param shape: K, J, I of the image.
    :param normal: unit vector of the slice that was drawn in; the brush is then a disc, else a ball.
    :param thickness: of that disc in mm.
    :return: (box along K, J, I; boolean array of its voxels), or None if the stroke missed the image.
    """
    import numpy

    worldToImage = numpy.linalg.inv(imageToWorld)
    points = numpy.asarray(points, float)
    middles = points @ worldToImage[:3, :3].T + worldToImage[:3, 3]
    reach = radius * numpy.sqrt((worldToImage[:3, :3] ** 2).sum(axis=1)) + 0.5  # voxels
    box = _box(middles, reach, shape)
    if box is None:
        return None
    covered = numpy.zeros(shape_of(box), bool)
    for start, end in zip(points, numpy.concatenate([points[1:], points[-1:]]), strict=True):
        ends = numpy.stack([start, end]) @ worldToImage[:3, :3].T + worldToImage[:3, 3]
        part = _box(ends, reach, shape)
        if part is not None:
            covered[slices(part, start_of(box))] |= _near(start, end, radius, imageToWorld, part, normal, thickness)
        _coverLine(covered, ends, box)
    return (box, covered) if covered.any() else None


def _box(middles, reach, shape):
    """The box along K, J, I of the voxels within reach of points (i, j, k) in the image, or None."""
    import numpy

    low = numpy.maximum(numpy.floor(middles.min(axis=0) - reach), 0).astype(int)
    high = numpy.minimum(numpy.ceil(middles.max(axis=0) + reach) + 1, shape[::-1]).astype(int)
    if (low >= high).any():
        return None
    return tuple((int(low[axis]), int(high[axis])) for axis in (2, 1, 0))


def _near(start, end, radius, imageToWorld, box, normal, thickness):
    """Which voxels of a box are under the brush while it moves from start to end."""
    import numpy

    k, j, i = numpy.ogrid[slices(box)]
    offset = [
        row[0] * i + row[1] * j + row[2] * k + row[3] - first
        for row, first in zip(imageToWorld[:3], start, strict=True)
    ]
    way = numpy.subtract(end, start)
    length = float(way @ way)
    along = sum(part * step for part, step in zip(offset, way, strict=True)) / length if length else 0.0
    along = numpy.clip(along, 0.0, 1.0)
    offset = [part - along * step for part, step in zip(offset, way, strict=True)]
    distance = sum(part**2 for part in offset)
    if normal is None:
        return distance <= radius**2
    height = sum(part * step for part, step in zip(offset, normal, strict=True))
    return (distance - height**2 <= radius**2) & (numpy.abs(height) <= thickness / 2)


def _coverLine(covered, ends, box):
    """Cover the voxels on the line between two points (i, j, k)."""
    import numpy

    count = int(2 * numpy.abs(ends[1] - ends[0]).max()) + 1
    line = numpy.rint(numpy.linspace(ends[0], ends[1], count))[:, ::-1].astype(int)
    line = line - start_of(box)
    line = line[((line >= 0) & (line < covered.shape)).all(axis=1)]
    covered[tuple(line.T)] = True


def regionVoxels(corners, imageToWorld, shape, normal, thickness):
    """The voxels inside a closed line on a slice.

    :param corners: (n, 3) array of the line's points in mm. :param normal: unit vector of the slice.
    :param thickness: of the slice in mm. The other parameters and the result are as of ``strokeVoxels``.
    """
    import numpy

    corners, normal = numpy.asarray(corners, float), numpy.asarray(normal, float)
    worldToImage = numpy.linalg.inv(imageToWorld)
    ends = corners @ worldToImage[:3, :3].T + worldToImage[:3, 3]
    reach = thickness / 2 * numpy.abs(worldToImage[:3, :3] @ normal) + 0.5
    box = _box(ends, reach, shape)
    if box is None:
        return None
    places = numpy.stack(numpy.meshgrid(*(numpy.arange(low, high) for low, high in box), indexing="ij"), -1)[..., ::-1]
    offsets = places @ imageToWorld[:3, :3].T + imageToWorld[:3, 3] - corners[0]
    inSlice = numpy.abs(offsets @ normal) <= thickness / 2
    across = numpy.cross(normal, [1, 0, 0] if abs(normal[0]) < 0.9 else [0, 1, 0])
    plane = numpy.stack([across / numpy.linalg.norm(across), numpy.cross(normal, across / numpy.linalg.norm(across))])
    covered = numpy.zeros(shape_of(box), bool)
    covered[inSlice] = _inPolygon(offsets[inSlice] @ plane.T, (corners - corners[0]) @ plane.T)
    return (box, covered) if covered.any() else None


def _inPolygon(points, corners):
    """Which of the points (n, 2) lie inside a polygon (m, 2), by the even-odd rule."""
    import numpy

    inside = numpy.zeros(len(points), bool)
    x, y = points.T
    for (x0, y0), (x1, y1) in zip(corners, numpy.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside
