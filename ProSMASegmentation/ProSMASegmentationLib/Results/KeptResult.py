import zlib

import slicer
from slicer.i18n import tr as _

from prosma.image import tags
from prosma.image.box import overlap, placed, shape_of, slabs, slices_kji, start_of
from ProSMASegmentationLib.Base import OwnedFolder
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
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
    ((i0, i1), (j0, j1), (k0, k1)) in the volume, or None), ``folder``, ``file`` (of the probabilities).
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
        OwnedFolder.remove(self.folder)

    @property
    def node(self):
        return slicer.mrmlScene.GetNodeByID(self.nodeId)

    def segmentIds(self):
        """The segments of the node that still come from this run."""
        segmentation = self.node.GetSegmentation()
        return [
            segmentId
            for segmentId in segmentation.GetSegmentIDs()
            if tag(segmentation.GetSegment(segmentId), tags.RUN) == self.run
        ]

    # ---- arrays, all in the order (K, J, I)

    @property
    def box(self):
        """The box of the probabilities in the volume: ((i0, i1), (j0, j1), (k0, k1))."""
        return placed(self.offset, self.probabilities.shape[:0:-1])

    def probabilitiesIn(self, box):
        """(classes, K, J, I) view of a box that lies in ``self.box``."""
        return self.probabilities[(slice(None), *slices_kji(box, self.offset))]

    def labelsIn(self, box):
        """The model's own labels in a box, as a new array."""
        import numpy

        shape = shape_of(box)[::-1]
        if self._labels is None:
            return numpy.zeros(shape, numpy.uint8)
        result = numpy.zeros(shape, self._labels.dtype)
        common = overlap(box, placed(self._labelsOffset, self._labels.shape[::-1]))
        if common is not None:
            source = self._labels[slices_kji(common, self._labelsOffset)]
            result[slices_kji(common, start_of(box))] = source
        return result

    def written(self, segment):
        """(mask that ProSMA wrote, mask of the edits known then) in the reach of the segment's label, as bool arrays.

        :raises ProSMAError: ``no_probabilities``, if the segment is in a state that this run knows nothing about.
        """
        import numpy

        value, state = int(tag(segment, tags.LABEL)), tag(segment, tags.STATE)
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
        shape = shape_of(box)[::-1]
        return tuple(_unpacked(bits, shape) for bits in self._states[state])

    def remember(self, mask, edits):
        """Keep what was written now. Returns the state's name."""
        name = str(len(self._states) + 1)
        self._states[name] = (_packed(mask), _packed(edits))
        return name

    def comparisons(self, segment):
        """Slabs of the reach of a segment's label: (box, the segment's voxels now, those that a person has changed)."""
        value = int(tag(segment, tags.LABEL))
        reach = self.reach[value - 1]
        masks = self.written(segment) if tag(segment, tags.STATE) else None
        for box in slabs(reach, VOXELS_PER_SLAB):
            present = SegmentLabelmap.mask(segment, box, self.imageToWorld)
            if masks is None:
                edits = present != (self.labelsIn(box) == value)
            else:
                written, known = (mask[slices_kji(box, start_of(reach))] for mask in masks)
                edits = known | (present != written)
            yield box, present, edits


def _packed(mask):
    import numpy

    return zlib.compress(numpy.packbits(mask).tobytes(), COMPRESSION)


def _unpacked(bits, shape):
    import numpy

    flat = numpy.unpackbits(numpy.frombuffer(zlib.decompress(bits), numpy.uint8), count=int(numpy.prod(shape)))
    return flat.reshape(shape).view(bool)
