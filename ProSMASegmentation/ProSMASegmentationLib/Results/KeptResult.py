import shutil
import zlib

import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Results.ResultWriter import TAG_LABEL, TAG_RUN, TAG_STATE
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import tag

COMPRESSION = 1  # fast; masks are mostly long runs
VOXELS_PER_SLAB = 1 << 20


class KeptResult:
    """What a run leaves for corrections: the class probabilities and the model's own labels, memory-mapped from disk.

    Also remembers which voxels ProSMA wrote in each state of a segment, so that a person's edits are told apart from
    them. The states have names, kept as a tag of the segment: undo brings the tag back, and with it what it stands for.

    Public: ``run``, ``nodeId``, ``imageToWorld`` (vtkMatrix4x4 from the volume's i, j, k to mm), ``probabilities``
    (classes, K, J, I; 0 to 255), ``offset`` (i, j, k of their first voxel), ``reach`` (for each label its box
    [[i0, i1], [j0, j1], [k0, k1]] in the volume, or None), ``folder``, ``file`` (of the probabilities).
    """

    def __init__(self, run, nodeId, imageToWorld, folder, result):
        import numpy

        found, labels = result["volumes"]["probabilities"], result["labels"]
        self.run = run
        self.nodeId = nodeId
        self.imageToWorld = imageToWorld
        self.folder = folder
        self.file = folder / found["file"]
        self.offset = [int(number) for number in found["offset"]]
        self.reach = found["reach"]
        self.probabilities = numpy.load(self.file, mmap_mode="r")
        self._labels = numpy.load(folder / labels["file"], mmap_mode="r") if labels["file"] else None
        self._labelsOffset = labels["offset"]
        self._states = {}  # name: compressed bits of the mask that ProSMA wrote, and of the edits, in the label's reach

    def close(self):
        """Let go of the files and remove them."""
        self.probabilities = self._labels = None
        self._states.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def node(self):
        return slicer.mrmlScene.GetNodeByID(self.nodeId)

    def segmentIds(self):
        """The segments of the node that still come from this run."""
        segmentation = self.node.GetSegmentation()
        return [
            segmentId
            for segmentId in segmentation.GetSegmentIDs()
            if tag(segmentation.GetSegment(segmentId), TAG_RUN) == self.run
        ]

    # ---- arrays, all in the order (K, J, I)

    @property
    def box(self):
        """The box of the probabilities in the volume: [[i0, i1], [j0, j1], [k0, k1]]."""
        sizes = reversed(self.probabilities.shape[1:])
        return [[start, start + size] for start, size in zip(self.offset, sizes, strict=True)]

    def probabilitiesIn(self, box):
        """(classes, K, J, I) view of a box that lies in ``self.box``."""
        return self.probabilities[(slice(None), *slicesOf(box, self.offset))]

    def labelsIn(self, box):
        """The model's own labels in a box, as a new array."""
        import numpy

        shape = [high - low for low, high in reversed(box)]
        if self._labels is None:
            return numpy.zeros(shape, numpy.uint8)
        result = numpy.zeros(shape, self._labels.dtype)
        sizes = list(reversed(self._labels.shape))
        common = [
            [max(low, start), min(high, start + size)]
            for (low, high), start, size in zip(box, self._labelsOffset, sizes, strict=True)
        ]
        if all(low < high for low, high in common):
            source = self._labels[slicesOf(common, self._labelsOffset)]
            result[slicesOf(common, [low for low, _high in box])] = source
        return result

    def written(self, segment):
        """(mask that ProSMA wrote, mask of the edits known then) in the reach of the segment's label, as bool arrays.

        :raises ProSMAError: ``no_probabilities``, if the segment is in a state that this run knows nothing about.
        """
        import numpy

        value, state = int(tag(segment, TAG_LABEL)), tag(segment, TAG_STATE)
        box = self.reach[value - 1]
        if not state:
            mask = self.labelsIn(box) == value
            return mask, numpy.zeros(mask.shape, bool)
        if state not in self._states:
            raise ProSMAError(
                "no_probabilities",
                _("It is not known any more what ProSMA wrote into the segment '{name}'.").format(
                    name=segment.GetName()
                ),
                _("Segment the volume again."),
            )
        shape = tuple(high - low for low, high in reversed(box))
        return tuple(_unpacked(bits, shape) for bits in self._states[state])

    def remember(self, mask, edits):
        """Keep what was written now. Returns the state's name."""
        name = str(len(self._states) + 1)
        self._states[name] = (_packed(mask), _packed(edits))
        return name

    def comparisons(self, segment):
        """Slabs of the reach of a segment's label: (box, the segment's voxels now, those that a person has changed)."""
        value = int(tag(segment, TAG_LABEL))
        (i, j, (first, last)) = self.reach[value - 1]
        masks = self.written(segment) if tag(segment, TAG_STATE) else None
        step = max(1, VOXELS_PER_SLAB // ((i[1] - i[0]) * (j[1] - j[0])))
        for start in range(first, last, step):
            box = [i, j, [start, min(start + step, last)]]
            present = SegmentLabelmap.mask(segment, box, self.imageToWorld)
            if masks is None:
                edits = present != (self.labelsIn(box) == value)
            else:
                written, known = (mask[start - first : start - first + step] for mask in masks)
                edits = known | (present != written)
            yield box, present, edits


def slicesOf(box, offset):
    """A box of the volume as slices (K, J, I) of an array whose first voxel is at ``offset`` (i, j, k)."""
    pairs = reversed(list(zip(box, offset, strict=True)))
    return tuple(slice(low - start, high - start) for (low, high), start in pairs)


def _packed(mask):
    import numpy

    return zlib.compress(numpy.packbits(mask).tobytes(), COMPRESSION)


def _unpacked(bits, shape):
    import numpy

    flat = numpy.unpackbits(numpy.frombuffer(zlib.decompress(bits), numpy.uint8), count=int(numpy.prod(shape)))
    return flat.reshape(shape).view(bool)
