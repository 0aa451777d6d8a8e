from slicer.i18n import tr as _

from prosma.steps import finish
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Correct.LargestPart import LargestPart
from ProSMASegmentationLib.Engine.GateMapJob import GateMapJob
from ProSMASegmentationLib.Outputs.OutputVolume import ENTROPY, MARGIN, PROBABILITY, OutputVolume
from ProSMASegmentationLib.Outputs.SegmentMeasures import SegmentMeasures


class OutputsLogic:
    """The part of the logic that makes further outputs of a result; see SegmentationLogic."""

    def outputVolume(self, kind, segmentationNode, segmentId=None):
        """A scalar volume, 0 to 1, of the class probabilities that a run left.

        :param kind: ``probability`` of a segment, or the uncertainty as ``entropy`` or ``margin``.
        :return: the new volume node, which is shown over the image.
        :raises ProSMAError: ``bad_output`` or ``no_probabilities``; then there is no new node.
        """
        if kind not in (PROBABILITY, ENTROPY, MARGIN):
            raise ProSMAError(
                "bad_input",
                _("There is no output '{kind}'.").format(kind=kind),
                _("Choose probability, entropy or margin; for the gates there is gateMap()."),
            )
        return finish(OutputVolume(segmentationNode, kind, segmentId).steps())

    def gateMap(self, volumeNode, model="hippocampus-mr", roi=None, device="auto", wait=True):
        """Run a model for a volume of the share of skip features that its gates let pass, 0 to 1.

        It is that of the image itself: the gates of mirrored images, which ``segment`` can average over, have no part.

        :param volumeNode, model, roi, device, wait: as for ``segment``.
        :return: the new volume node, or with wait=False the GateMapJob.
        :raises ProSMAError: as ``segment``, and ``no_gates``.
        """
        package, readers, box = self.prepared(volumeNode, model, roi)
        request = {"device": device, "roi": box, "overlap": self.OVERLAP, "mirror": False}
        job = GateMapJob(self.engine, package, readers, request)
        self._jobs.append(job)
        job.onEnd.append(self._jobs.remove)
        job.start()
        if not wait:
            return job
        job.wait()
        return job.outputNode

    def keepLargestPart(self, segmentationNode, segmentId=None):
        """Take the islands out of a segment, or of all that ProSMA made: the largest connected part stays.

        What a person added stays, and it is one undo step.

        :return: {segment name: removed voxels} of the segments that changed.
        :raises ProSMAError: ``protected``, ``bad_output`` or ``no_probabilities``.
        """
        return finish(LargestPart(segmentationNode, None if segmentId is None else [segmentId]).steps())

    def measure(self, segmentationNode, reference=None):
        """Volume (ml) and surface (mm2) of each segment, and its Dice coefficient with another segmentation.

        :return: a new vtkMRMLTableNode.
        :raises ProSMAError: ``bad_output`` or ``bad_input``.
        """
        return finish(SegmentMeasures(segmentationNode, reference).steps())
