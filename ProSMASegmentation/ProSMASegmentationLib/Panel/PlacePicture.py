import qt
import slicer

from prosma.image import tags
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import tag
from ProSMASegmentationLib.Volumes.VolumeReader import ijkToRasOf

SIZE = 48  # pixels
RADII = 3  # from the middle of the picture to its edge, in radii of the place
LEAST_VOXELS = 10  # and at least so many voxels
THICK = 1.5  # slices this many times as thick as the voxels in them are shown as they were taken
PLANES = (  # by the axis across (R, A, S): directions to the right and up, as in Slicer's slice views
    ((0, -1, 0), (0, 0, 1)),
    ((-1, 0, 0), (0, 0, 1)),
    ((-1, 0, 0), (0, 1, 0)),
)
DARKEST, BRIGHTEST = 2, 98  # percentiles of the grey values that are shown as black and white


def placePicture(segmentationNode, volumeNode, place, radius):
    """A small picture of the image round a place, with the outlines of ProSMA's segments, as RGB (rows, columns, 3).

    It is axial, or lies in the slices of a volume whose slices are thick. Transforms do not count: it shows the voxels
    that the model has seen.

    :param place: R, A, S in mm, in the middle. :param radius: of the place, in mm.
    """
    import numpy

    matrix = slicer.util.arrayFromVTKMatrix(ijkToRasOf(volumeNode))
    spacing = numpy.linalg.norm(matrix[:3, :3], axis=0)
    sizes = volumeNode.GetImageData().GetDimensions()
    right, up = (numpy.array(direction) for direction in PLANES[_across(matrix, spacing, sizes)])
    half = max(RADII * radius, LEAST_VOXELS * min(spacing))
    steps = (numpy.arange(SIZE) + 0.5) / SIZE * 2 * half - half
    points = numpy.array(place) + steps[None, :, None] * right - steps[:, None, None] * up
    picture = _grey(_nearest(slicer.util.arrayFromVolume(volumeNode), (0, 0, 0), matrix, points))
    segmentation = segmentationNode.GetSegmentation()
    for segmentId in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentId)
        image = SegmentLabelmap.of(segment)
        if not tag(segment, tags.LABEL) or SegmentLabelmap.array(image).size == 0:
            continue
        offset, toWorld = SegmentLabelmap.geometry(image)
        voxels, _inside = _nearest(
            SegmentLabelmap.array(image), offset, slicer.util.arrayFromVTKMatrix(toWorld), points
        )
        picture[_outline(voxels == segment.GetLabelValue())] = [round(255 * part) for part in segment.GetColor()]
    return picture


def pixmapOf(picture):
    """A QPixmap of an RGB array (rows, columns, 3)."""
    rows, columns, _rgb = picture.shape
    pixmap = qt.QPixmap()
    pixmap.loadFromData(qt.QByteArray(b"P6 %d %d 255\n" % (columns, rows) + picture.tobytes()))
    return pixmap


def iconOf(pixmap):
    """A QIcon that looks the same in a row that is selected."""
    icon = qt.QIcon(pixmap)
    icon.addPixmap(pixmap, qt.QIcon.Selected)
    return icon


def _across(matrix, spacing, sizes):
    """The anatomical axis (0: R, 1: A, 2: S) that is across the picture's plane."""
    thickness = [float("inf") if size == 1 else step for size, step in zip(sizes, spacing, strict=True)]
    axis = max(range(3), key=lambda number: thickness[number])
    if thickness[axis] < THICK * min(thickness):
        return 2
    return max(range(3), key=lambda row: abs(matrix[row, axis]))


def _nearest(array, start, matrix, points):
    """(values of the voxels (K, J, I) at the points, whether a voxel is there); ``start``: i, j, k of the first voxel."""
    import numpy

    inverse = numpy.linalg.inv(matrix)
    index = numpy.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int) - numpy.array(start)
    inside = ((index >= 0) & (index < numpy.array(array.shape[2::-1]))).all(axis=-1)
    values = numpy.zeros((*inside.shape, *array.shape[3:]), array.dtype)
    i, j, k = index[inside].T
    values[inside] = array[k, j, i]
    return values, inside


def _grey(sampled):
    """RGB of sampled voxels of an image; outside it is black."""
    import numpy

    values, inside = sampled
    if values.ndim == 3:
        values = values[..., :3].astype(float) if values.shape[-1] >= 3 else values[..., 0]
    finite = numpy.nan_to_num(values.astype(float), posinf=0, neginf=0)
    shown = finite[inside] if inside.any() else finite
    low, high = numpy.percentile(shown, [DARKEST, BRIGHTEST])
    scaled = numpy.clip((finite - low) / max(high - low, 1e-9), 0, 1) * 255
    rgb = scaled if scaled.ndim == 3 else numpy.repeat(scaled[..., None], 3, axis=2)
    rgb[~inside] = 0
    return rgb.astype(numpy.uint8)


def _outline(mask):
    """The pixels of a mask that have a neighbour outside it."""
    import numpy

    framed = numpy.pad(mask, 1, mode="edge")
    inner = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    return mask & ~inner
