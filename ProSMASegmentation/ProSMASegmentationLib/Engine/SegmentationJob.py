import logging
import time

import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base import OwnedFolder
from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask
from ProSMASegmentationLib.Base.Job import Job
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError, asProSMAError
from ProSMASegmentationLib.Engine.EngineClient import errorFromEvent
from ProSMASegmentationLib.Models.ModelFit import ModelFit
from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities
from ProSMASegmentationLib.Volumes.VolumeReader import ijkToRasOf

HANDOVER_SHARE = 0.05  # of the progress bar
WRITING_SHARE = 0.05


class SegmentationJob(Job):
    """One run of a model on one volume: hand over, compute, write. Nothing in it blocks the event loop.

    Made by SegmentationLogic, which has checked everything that can be checked before. The scene is touched only by
    the last step; a job that fails or is cancelled leaves it as it was.

    Public, beside what a Job has: ``package``, ``volumeNode``, ``run`` (its id, a tag of the segments), ``result`` (the
    engine's result event), ``segmentationNode``, ``seconds``.
    """

    def __init__(self, engine, package, readers, writer, request):
        super().__init__()
        self.result = None
        self.segmentationNode = None
        self.seconds = {}
        self.package = package
        self.volumeNode = readers[0].node if readers else None
        self.run = writer.run if writer is not None else ""
        self._engine = engine
        self._readers = readers
        self._writer = writer
        self._request = request
        self._requestId = None
        self._task = None
        self._folder = None
        self._nodes = []  # the job is pointless without these
        self._sceneTags = []
        self._started = self._stageStarted = 0.0

    def start(self, outputNode=None):
        """Begin; returns at once. ``outputNode`` is watched with the volumes: if one is removed, the job is cancelled."""
        self.state = self.RUNNING
        self._started = self._stageStarted = time.monotonic()
        self._nodes = [reader.node for reader in self._readers] + ([outputNode] if outputNode else [])
        scene = slicer.mrmlScene
        self._sceneTags = [
            scene.AddObserver(scene.StartCloseEvent, self._onSceneClose),
            scene.AddObserver(scene.NodeRemovedEvent, self._onNodeRemoved),
        ]
        self._folder = OwnedFolder.newFolder(OwnedFolder.JOB)
        self._announce(_("Handing over"), 0.0)
        self._task = EventLoopTask(self._handOver(), self._askEngine, self._failWith).start()

    def cancel(self, reason=None):
        """Stop; returns at once. The engine, which may be in the middle of a tile, drops its part on its own."""
        if not self.isActive:
            return
        self._end(self.CANCELLED, ProSMAError("cancelled", reason or _("The segmentation was cancelled.")))

    def wait(self):
        """Process events until the job has ended. Returns the segmentation node or raises the job's error."""
        super().wait()
        return self.segmentationNode

    # ---- hand over

    def _handOver(self):
        channels = []
        for index, reader in enumerate(self._readers):
            name = f"channel{index}.npy"
            for share in reader.write(self._folder / name, ModelFit.channelsOf(self.package, reader)):
                self._announce(_("Handing over"), HANDOVER_SHARE * (index + share) / len(self._readers))
                yield
            channels.append({"file": name, "ijk_to_ras": reader.geometry(), "modality": reader.modality()})
        return channels

    def _askEngine(self, channels):
        self._task = None
        self._stageDone("handover")
        self._announce(_("Starting the engine"), HANDOVER_SHARE)
        request = {
            "do": "segment",
            "model": str(self.package.folder.absolute()),
            "folder": str(self._folder),
            "channels": channels,
            **self._request,
        }
        try:
            self._requestId = self._engine.request(request, self._onEngineEvent)
        except ProSMAError as error:
            self._failWith(error)

    # ---- compute

    def _onEngineEvent(self, event):
        if not self.isActive:
            if event["event"] in ("result", "error"):
                self._removeFolder()  # the engine lets go of the files of a cancelled job
        elif event["event"] == "progress":
            fraction = HANDOVER_SHARE + (1 - HANDOVER_SHARE - WRITING_SHARE) * float(event["fraction"])
            self._announce(event["stage"], max(fraction, self.fraction), event.get("seconds_left"))
        elif event["event"] == "error":
            self._failWith(errorFromEvent(event))
        else:
            self._requestId = None
            self._stageDone("engine")
            self.result = event
            self._announce(_("Writing the segmentation"), 1 - WRITING_SHARE)
            self._task = EventLoopTask(self._write(), self._finish, self._failWith).start()

    # ---- write

    def _write(self):
        import numpy

        found = self.result["labels"]
        self._refuseChanged()
        imageToWorld = ijkToRasOf(self._readers[0].node)
        labels = numpy.load(self._folder / found["file"], mmap_mode="r") if found["file"] else None
        node = yield from self._writer.write(
            labels,
            found["offset"],
            lambda stage: self._announce(stage, 1 - WRITING_SHARE),
            [segment["value"] for segment in self.result["segments"]],
            {segment["value"]: segment["expected_dice"] for segment in self.result["segments"]},
        )
        return node, imageToWorld

    def _refuseChanged(self):
        if any(reader.hasChanged() for reader in self._readers):
            raise ProSMAError(
                "bad_input",
                _("The volume changed while it was being segmented, so the result does not fit it any more."),
                _("Segment it again."),
            )

    def _finish(self, written):
        node, imageToWorld = written
        KeptProbabilities.shared().keep(self._writer.run, node, imageToWorld, self._folder, self.result)
        self.segmentationNode = node
        self._succeed()

    def _succeed(self):
        self._task = None
        self._stageDone("writing")
        self.seconds["total"] = time.monotonic() - self._started
        self.seconds["network"] = self.result.get("seconds", {}).get("network", 0.0)
        logging.info("ProSMA: %s done in %s", self.package.name, self.seconds)
        self.fraction = 1.0
        self._end(self.FINISHED)

    # ---- ends

    def _failWith(self, error):
        error = OwnedFolder.unusable(error) if isinstance(error, OSError) else asProSMAError(error)
        logging.error("ProSMA: %s (%s)", error, error.code)
        self._end(self.FAILED, error)

    def _end(self, state, error=None):
        if self._task is not None:
            self._task.cancel()
            self._task = None
        for observerTag in self._sceneTags:
            slicer.mrmlScene.RemoveObserver(observerTag)
        self._sceneTags = []
        self._nodes = []
        if state == self.CANCELLED and self._requestId is not None:
            self._engine.cancel(self._requestId)
        else:
            self._removeFolder()
        super()._end(state, error)

    def _removeFolder(self):
        if self._folder is not None:
            OwnedFolder.remove(self._folder)
            self._folder = None

    def _stageDone(self, name):
        now = time.monotonic()
        self.seconds[name] = now - self._stageStarted
        self._stageStarted = now

    def _onSceneClose(self, _caller, _event):
        self.cancel(_("The scene was closed while it was being segmented; nothing was written."))

    def _onNodeRemoved(self, _caller, _event):
        gone = next((node for node in self._nodes if node.GetScene() is None), None)
        if gone is not None:
            self.cancel(
                _("'{name}' was removed while it was being segmented; nothing was written.").format(name=gone.GetName())
            )
