import math

import slicer

from prosma.image.box import shape_of
from ProSMASegmentationLib.Batch.BatchQueue import BatchQueue
from ProSMASegmentationLib.Batch.BatchSources import BatchOptions, sourceOf
from ProSMASegmentationLib.Correct.Review import Review
from ProSMASegmentationLib.Correct.SensitivityMove import SensitivityMove, segmentOf, sensitivityOf
from ProSMASegmentationLib.Engine.EngineClient import EngineClient
from ProSMASegmentationLib.Engine.SegmentationJob import SegmentationJob
from ProSMASegmentationLib.Learn.LearningLogic import LearningLogic
from ProSMASegmentationLib.Models.ModelFit import ModelFit
from ProSMASegmentationLib.Models.ModelLibrary import ModelLibrary
from ProSMASegmentationLib.Outputs.OutputsLogic import OutputsLogic
from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities
from ProSMASegmentationLib.Results.ResultWriter import ResultWriter
from ProSMASegmentationLib.Volumes.RegionOfInterest import RegionOfInterest
from ProSMASegmentationLib.Volumes.VolumeReader import VolumeReader


class SegmentationLogic(LearningLogic, OutputsLogic):
    """Segments volumes with models, with or without the panel.

    :param engine: the EngineClient to use, by default the one that the whole application shares.
    :param library: the ModelLibrary to choose from, by default the one that the application shares.
    """

    OVERLAP = None  # of neighbouring tiles: the engine chooses by their size

    def __init__(self, engine=None, library=None):
        self.engine = engine or EngineClient.shared()
        self._library = library
        self._jobs = []
        self._batches = []

    @property
    def library(self):
        if self._library is None:
            self._library = ModelLibrary.shared()
        return self._library

    @property
    def activeJobs(self):
        return list(self._jobs)

    def segment(
        self,
        volumeNode,
        model="hippocampus-mr",
        outputSegmentation=None,
        roi=None,
        device="auto",
        wait=True,
        mirror=False,
        force=False,
    ):
        """Segment a volume.

        :param volumeNode: a scalar or vector volume node; a list of them for a model of several channels.
        :param model: id of a model in the library, path of a package (folder or zip), or the package itself.
        :param outputSegmentation: segmentation node to write into, or None for a new one. Segments that were edited,
          are declared Completed or came from elsewhere are never changed.
        :param roi: markups ROI node, or None for the whole volume.
        :param device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        :param wait: process events until the result is there. Else return at once.
        :param mirror: segment the image mirrored too, and average; 2 to 8 times the work. A model that was not trained
          with flips leaves it out, and says so in the job's ``result["notices"]``.
        :param force: segment an image that shows something else than the model was trained on, too. Else it is an error
          ``does_not_fit``, whose ``fit`` has the reasons.
        :return: the segmentation node, or with wait=False the SegmentationJob.
        :raises ProSMAError: with ``code``, ``message`` and ``remedy``; the scene is then as it was before.
        """
        package, readers, box = self.prepared(volumeNode, model, roi)
        size = shape_of(box) if box else readers[0].dimensions
        keep = KeptProbabilities.canKeep(math.prod(size), len(package.result_labels) + 1)
        outputs = ["probabilities"] if keep else []
        request = {"device": device, "roi": box, "overlap": self.OVERLAP, "mirror": mirror, "outputs": outputs}
        request["force"] = force
        options = {key: request[key] for key in ("device", "roi", "overlap")}
        options["mirror"] = mirror and bool(package.mirror_axes)
        writer = ResultWriter(readers[0].node, package, outputSegmentation, options)
        writer.check()

        job = SegmentationJob(self.engine, package, readers, writer, request)
        self._jobs.append(job)
        job.onEnd.append(self._jobs.remove)
        job.start(outputSegmentation)
        return job.wait() if wait else job

    def prepared(self, volumeNode, model, roi):
        """(model package, a VolumeReader for each channel, box of the ROI or None). Raises ProSMAError if they do not fit."""
        volumeNodes = list(volumeNode) if isinstance(volumeNode, (list, tuple)) else [volumeNode]
        readers = [VolumeReader(node) for node in volumeNodes]
        package = self.library.resolve(model)
        ModelFit.refuseStrokes(package)
        box = RegionOfInterest.box(roi, volumeNodes[0])
        ModelFit(package, readers, box).check()
        self.library.checkLicence(package)
        return package, readers, box

    def batch(self, source=None, model="hippocampus-mr", outputFolder=None, device="auto", wait=True, mirror=False):
        """Segment many images. One that fails does not stop the others; see ``failures`` of the returned batch.

        What an earlier call has finished, from the same image with the same model and ``mirror``, is not computed
        again. Files that ProSMA did not write, and results that somebody changed since, are never replaced.

        :param source: a list of volume nodes (all loaded volumes by default), a sequence or sequence browser node, or
          the path of a folder of images.
        :param outputFolder: for ``.seg.nrrd`` files; None for nodes in the scene, which a folder of images cannot have.
        :param model, device, mirror: as for ``segment``.
        :param wait: process events until all is done. Else return at once.
        :return: the BatchQueue, with ``items`` and ``failures`` (each with ``name``, ``state``, ``error``,
          ``segmentationNode`` or ``output``).
        :raises ProSMAError: if nothing can be done at all, for instance without PyTorch.
        """
        package = self.library.resolve(model)
        ModelFit.refuseStrokes(package)
        self.library.checkLicence(package)
        queue = BatchQueue(sourceOf(source), BatchOptions(self, package, device, outputFolder, mirror))
        self._batches.append(queue)
        queue.onEnd.append(self._batches.remove)
        queue.start()
        return queue.wait() if wait else queue

    # ---- corrections

    def sensitivity(self, segmentationNode, segmentId):
        """The sensitivity of a segment: a shift of log odds, 0 for the model's own border."""
        return sensitivityOf(segmentOf(segmentationNode, segmentId))

    def setSensitivity(self, segmentationNode, segmentId, value):
        """Move the border of a segment in the class probabilities that its run left. One undo step.

        Other segments, and voxels that a person changed, stay as they are.

        :param value: shift of the log odds, -5 to 5: above 0 the segment grows, below 0 it shrinks.
        :raises ProSMAError: ``no_probabilities``, ``protected`` or ``bad_output``.
        """
        move = SensitivityMove(segmentationNode, segmentId)
        if move.finish(value):
            for _step in move.renewFingerprint():
                pass

    def reviewRegions(self, segmentationNode):
        """The places of a result that are most likely wrong, worst first, as dicts; see Review.

        :raises ProSMAError: ``no_probabilities``, if the result's probabilities are gone and no list was saved;
          ``bad_output``, if the node is no segmentation.
        """
        return Review(segmentationNode).compute()

    def setRegionChecked(self, segmentationNode, index, checked=True):
        """Mark a region of the list as looked at; the mark is saved with the scene."""
        Review(segmentationNode).setChecked(index, checked)

    def showRegion(self, segmentationNode, index):
        """Show a region of the list in the middle of all slice and 3D views."""
        Review(segmentationNode).show(index)

    def acceptLicence(self, model):
        """Remember that the user accepts the licence of a model (id, path or package)."""
        self.library.acceptLicence(self.library.resolve(model))

    def preload(self, package, device, onEvent):
        """Load a model into the warm engine, so that the first click need not wait for it. Returns the request's id."""
        request = {"do": "describe", "model": str(package.folder.absolute()), "device": device}
        return self.engine.request(request, onEvent)

    def cancelAll(self, reason=None):
        """Cancel every batch, and every job that runs or waits."""
        for queue in list(self._batches):
            queue.cancel(reason)
        for job in self.activeJobs:
            job.cancel(reason)

    @staticmethod
    def firstVolume():
        """The volume that is shown in the slice views, or else the first of the scene that can be segmented, or None."""
        shown = slicer.app.applicationLogic().GetSelectionNode()
        node = slicer.mrmlScene.GetNodeByID(shown.GetActiveVolumeID() or "") if shown is not None else None
        candidates = [node, *slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
        for candidate in candidates:
            if candidate is not None and candidate.GetClassName() in (
                "vtkMRMLScalarVolumeNode",
                "vtkMRMLVectorVolumeNode",
            ):
                return candidate
        return None
