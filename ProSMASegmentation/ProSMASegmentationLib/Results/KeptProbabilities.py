import logging
import shutil

import slicer

from prosma.image import tags
from ProSMASegmentationLib.Base import OwnedFolder
from ProSMASegmentationLib.Base.Shared import Shared
from ProSMASegmentationLib.Results.KeptResult import KeptResult
from ProSMASegmentationLib.Results.SegmentStatus import tag

LARGEST_BYTES = 2 << 30
BYTES_TO_SPARE = 1 << 30  # on the disk
RESULTS_PER_NODE = 3


class KeptProbabilities(Shared):
    """The class probabilities of the results in the scene, on disk in Slicer's temporary folder.

    They are bound to their segmentation node and go when it is removed, when the scene is closed, and when Slicer ends.
    They are not saved with the scene.
    """

    def __init__(self):
        self._results = []
        scene = slicer.mrmlScene
        self._tags = [
            scene.AddObserver(scene.NodeRemovedEvent, self._onNodesGone),
            scene.AddObserver(scene.EndCloseEvent, self._onNodesGone),
        ]
        slicer.app.connect("aboutToQuit()", self.clear)

    @classmethod
    def release(cls):
        """Forget everything, for instance before the module is loaded anew."""
        if cls._shared is None:
            return
        cls._shared.clear()
        for observerTag in cls._shared._tags:
            slicer.mrmlScene.RemoveObserver(observerTag)
        slicer.app.disconnect("aboutToQuit()", cls._shared.clear)
        cls._shared = None

    @staticmethod
    def canKeep(voxels, classes):
        """Whether the disk has room for the probabilities of so many voxels, and they stay in reason."""
        needed = voxels * classes
        free = shutil.disk_usage(slicer.app.temporaryPath).free
        return needed <= LARGEST_BYTES and 2 * needed + BYTES_TO_SPARE <= free

    def keep(self, run, node, imageToWorld, jobFolder, result):
        """Take the files of a finished job over. Without probabilities in its result nothing happens.

        :param run: the run's id, as in the tags of its segments.
        :param jobFolder: where the engine wrote. :param result: the engine's result event.
        """
        found = result.get("volumes", {}).get("probabilities")
        if not found or not found["file"]:
            return
        folder = OwnedFolder.newFolder(OwnedFolder.KEPT)
        try:
            for name in filter(None, (found["file"], result["labels"]["file"])):
                shutil.move(str(jobFolder / name), str(folder / name))
            self._results.append(KeptResult(run, node.GetID(), imageToWorld, folder, result))
        except OSError:
            logging.exception("ProSMA: the class probabilities could not be kept")
            OwnedFolder.remove(folder)
            return
        for old in self._of(node)[:-RESULTS_PER_NODE]:
            self._drop(old)

    def of(self, node, segment):
        """The KeptResult that a segment of the node comes from, or None."""
        run = tag(segment, tags.RUN)
        return next((result for result in self._of(node) if result.run == run), None)

    def latest(self, node):
        """The newest KeptResult of which the node still has segments, or None."""
        results = [result for result in reversed(self._of(node)) if result.segmentIds()]
        return results[0] if results else None

    def clear(self):
        for result in list(self._results):
            self._drop(result)

    def _of(self, node):
        return [result for result in self._results if node is not None and result.nodeId == node.GetID()]

    def _drop(self, result):
        self._results.remove(result)
        result.close()

    def _onNodesGone(self, _caller, _event):
        for result in [result for result in self._results if result.node is None]:
            self._drop(result)
