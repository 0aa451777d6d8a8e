"""What a batch does for each kind of item: volumes or image files in, segmentation nodes or files out.

A task has ``prepare()``: steps for EventLoopTask that return how the result was found (FINISHED or EDITED since; else an
empty text, and it has to be computed); ``start()``, which returns the started job; and ``finish(job)``, which takes over
what a finished job made and returns what ``prepare`` would. The first two raise ProSMAError. ``segmentationNode`` or
``output`` (a path) is the result.
"""

import json
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from prosma.batch import records
from prosma.image import tags
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Batch.SequenceResults import FrameWriter
from ProSMASegmentationLib.Engine.FileJob import FileJob
from ProSMASegmentationLib.Engine.SegmentationJob import SegmentationJob
from ProSMASegmentationLib.Models.ModelFit import ModelFit
from ProSMASegmentationLib.Results.SegmentStatus import tag
from ProSMASegmentationLib.Volumes.VolumeReader import VolumeReader, digestOf

FINISHED, EDITED = "finished", "edited"


class _VolumesTask:
    """One for volume nodes. ``owner``: the sequence that they are a frame of, or None."""

    def __init__(self, batch, volumeNodes, owner=None):
        self.segmentationNode = self.output = None
        self._batch = batch
        self._volumes = volumeNodes
        self._owner = owner
        self._readers = []
        self._digest = ""

    def prepare(self):
        self._refuseRemoved()
        self._readers = [VolumeReader(node) for node in self._volumes]
        ModelFit(self._batch.package, self._readers).check()
        self._digest = yield from digestOf(self._readers)
        found = yield from self._find()
        self._refuseRemoved()
        return found

    def _refuseRemoved(self):
        for node in [self._owner] if self._owner is not None else self._volumes:
            if node.GetScene() is not slicer.mrmlScene:
                raise ProSMAError(
                    "bad_input",
                    _("'{name}' was removed, or the scene closed, before it was its turn.").format(name=node.GetName()),
                    _("Load it again, and start the batch again."),
                )

    def _request(self):
        return {**self._batch.run, "device": self._batch.device, "outputs": []}

    def _isFromHere(self, segment):
        """Whether a segment was made from this image by this model, with these options; edited since or not."""
        if tag(segment, tags.INPUT) != self._digest or tag(segment, tags.SHA256) != self._batch.package.sha256:
            return False
        options = json.loads(tag(segment, tags.OPTIONS) or "{}")
        return all(options.get(key) == value for key, value in self._batch.run.items())

    def _takeNode(self, job):
        """Note in the new segments what they were made from."""
        self.segmentationNode = job.segmentationNode
        for segment in segmentsOf(job.segmentationNode):
            if tag(segment, tags.RUN) == job.run:
                segment.SetTag(tags.INPUT, self._digest)
        return ""


class VolumeTask(_VolumesTask):
    """Volumes of the scene, and a segmentation node beside them."""

    def _find(self):
        yield
        for node in self._results():
            if any(map(self._isFromHere, segmentsOf(node))):
                self.segmentationNode = node
                return FINISHED
        return ""

    def start(self):
        """Segments of an earlier run by the same model are replaced, if nobody edited them."""
        volume, modelId = self._volumes[0], self._batch.package.id
        earlier = [
            node
            for node in self._results()
            if node.GetTransformNodeID() == volume.GetTransformNodeID()
            and any(tag(segment, tags.INPUT) and tag(segment, tags.MODEL) == modelId for segment in segmentsOf(node))
        ]
        output = earlier[-1] if earlier else None
        batch = self._batch
        return batch.logic.segment(
            self._volumes, batch.package, output, None, batch.device, wait=False, mirror=batch.run["mirror"]
        )

    def finish(self, job):
        return self._takeNode(job)

    def _results(self):
        """The scene's segmentations of this volume."""
        return [
            node
            for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
            if node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is self._volumes[0]
        ]


class FrameTask(_VolumesTask):
    """A frame of a sequence, and a segmentation at the same place of a sequence of segmentations."""

    def __init__(self, batch, results, volumeNode, indexValue):
        super().__init__(batch, [volumeNode], results.source)
        self._results = results
        self._indexValue = indexValue

    def _find(self):
        yield
        node = self._results.at(self._indexValue)
        if node is None or not any(map(self._isFromHere, segmentsOf(node))):
            return ""
        self.segmentationNode = node
        return FINISHED

    def start(self):
        writer = FrameWriter(self._results, self._indexValue, self._volumes[0], self._batch.package, self._batch.run)
        writer.check()
        job = SegmentationJob(self._batch.logic.engine, self._batch.package, self._readers, writer, self._request())
        job.start(self._owner)
        return job

    def finish(self, job):
        return self._takeNode(job)


class VolumeFileTask(_VolumesTask):
    """Volumes of the scene or a frame of a sequence, and a file."""

    def __init__(self, batch, volumeNodes, output, owner=None):
        super().__init__(batch, volumeNodes, owner)
        self.output = output

    def _find(self):
        origin = records.origin(self._batch.package, self._batch.run, self._digest)
        state = yield from records.records_of(self.output.parent.absolute()).state(self.output.name, origin)
        if state in (FINISHED, EDITED):
            return state
        reason, remedy = records.why_not(state, self.output.name)
        if reason:
            raise ProSMAError("bad_output", reason, remedy)
        return ""

    def start(self):
        job = FileJob(
            self._batch.logic.engine,
            self._batch.package,
            self.output,
            self._request(),
            readers=self._readers,
            digest=self._digest,
        )
        job.start(self._owner)
        return job

    def finish(self, job):
        return job.skipped


class ImageFileTask:
    """Image files, and a file. The engine does all of it: nothing large is read or looked through in Slicer.

    :param case: what the engine says of it: a dict with ``images``, ``series``, ``output`` and ``problem``.
    """

    def __init__(self, batch, case):
        self.segmentationNode = None
        self.output = Path(case["output"])
        self._batch = batch
        self._case = case

    def prepare(self):
        yield
        if self._case["problem"]:
            raise ProSMAError("bad_input", self._case["problem"])
        return ""

    def start(self):
        request = {**self._batch.run, "device": self._batch.device, "outputs": [], "series": self._case.get("series")}
        job = FileJob(self._batch.logic.engine, self._batch.package, self.output, request, images=self._case["images"])
        job.start()
        return job

    def finish(self, job):
        return job.skipped


def segmentsOf(segmentationNode):
    segmentation = segmentationNode.GetSegmentation()
    return [segmentation.GetSegment(segmentId) for segmentId in segmentation.GetSegmentIDs()]
