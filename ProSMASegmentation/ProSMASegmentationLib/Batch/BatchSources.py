"""Where a batch takes its items from. ``list(batch, onListed, onError)`` calls onListed([(name, task), ...]), at once or
later, or onError(ProSMAError); ``batch`` is the BatchOptions. Tasks: see BatchTasks.
"""

import re
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from prosma.image import tags
from prosma.image.constants import CHANNEL
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Batch.BatchTasks import FrameTask, ImageFileTask, VolumeFileTask, VolumeTask
from ProSMASegmentationLib.Batch.SequenceResults import SequenceResults
from ProSMASegmentationLib.Engine.EngineClient import errorFromEvent

SUFFIX = ".seg.nrrd"


class BatchOptions:
    """What the items of a batch have in common.

    :param logic: SegmentationLogic. :param package: the model's. :param device: as for ``segment``.
    :param folder: Path for the results; None for nodes of the scene. :param mirror: as for ``segment``;
      left out where the model cannot.

    ``run``: how each image is segmented; a result that was made otherwise counts as another one.
    """

    def __init__(self, logic, package, device, folder=None, mirror=False):
        self.logic = logic
        self.package = package
        self.device = device
        self.folder = Path(folder).absolute() if folder else None
        self.run = {"overlap": logic.OVERLAP, "mirror": mirror and bool(package.mirror_axes), "roi": None}


class LoadedVolumes:
    """Volumes of the scene: those given, or all.

    For a model of several channels, volumes whose names end with _0000, _0001, ... are the channels of one case.
    """

    def __init__(self, volumeNodes=None):
        self._given = volumeNodes

    def list(self, batch, onListed, _onError):
        nodes = self._given if self._given is not None else loadedVolumes()
        names = set()
        items = []
        for name, volumes in _groups(nodes, len(batch.package.channels)):
            if batch.folder is None:
                task = VolumeTask(batch, volumes)
            else:
                task = VolumeFileTask(batch, volumes, batch.folder / _fileName(name, names))
            items.append((name, task))
        onListed(items)


class SequenceFrames:
    """The frames of a sequence of volumes."""

    def __init__(self, sequenceNode):
        if sequenceNode.IsA("vtkMRMLSequenceBrowserNode"):
            sequenceNode = sequenceNode.GetMasterSequenceNode()
        self._sequence = sequenceNode

    def list(self, batch, onListed, onError):
        sequence = self._sequence
        frames = range(sequence.GetNumberOfDataNodes()) if sequence is not None else ()
        if not frames:
            onError(ProSMAError("bad_input", _("The sequence has no frames."), _("Choose another one.")))
            return
        results = SequenceResults(sequence, batch.package)
        items = []
        for number in frames:
            node, indexValue = sequence.GetNthDataNode(number), sequence.GetNthIndexValue(number)
            name = f"{sequence.GetName()} {indexValue} {sequence.GetIndexUnit() or ''}".strip()
            if batch.folder is None:
                task = FrameTask(batch, results, node, indexValue)
            else:
                output = batch.folder / f"{_safe(sequence.GetName())}_{number:04d}{SUFFIX}"
                task = VolumeFileTask(batch, [node], output, owner=sequence)
            items.append((name, task))
        onListed(items)


class ImageFolder:
    """Image files or DICOM folders in a folder, as the command ``prosma segment`` finds them; the engine looks for them.

    The results are files.
    """

    def __init__(self, path):
        self._path = Path(path).absolute()

    def list(self, batch, onListed, onError):
        if batch.folder is None:
            why = _("The images of a folder are not in the scene, so their results cannot be there either.")
            onError(ProSMAError("bad_output", why, _("Choose a folder for the results.")))
            return

        def onEvent(event):
            if event["event"] == "error":
                onError(errorFromEvent(event))
            elif event["event"] == "result":
                onListed([(case["name"], ImageFileTask(batch, case)) for case in event["cases"]])

        request = {
            "do": "cases",
            "images": str(self._path),
            "output": str(batch.folder),
            "format": SUFFIX,
            "channels": len(batch.package.channels),
            "colours": batch.package.takes_colours,
        }
        batch.logic.engine.request(request, onEvent)


def sourceOf(what):
    """The source for volume nodes (a list, one, or None for all), a sequence or its browser, or a folder's path."""
    if what is None or isinstance(what, (list, tuple)):
        return LoadedVolumes(what)
    if isinstance(what, (str, Path)):
        return ImageFolder(what)
    isSequence = what.IsA("vtkMRMLSequenceNode") or what.IsA("vtkMRMLSequenceBrowserNode")
    return SequenceFrames(what) if isSequence else LoadedVolumes([what])


def loadedVolumes():
    """All images of the scene, but not what a sequence browser shows, nor volumes that ProSMA made."""
    browsers = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if node.GetClassName() in ("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")
        and not node.GetHideFromEditors()
        and not node.GetAttribute(tags.NODE_OUTPUT)
        and not any(browser.IsProxyNode(node) for browser in browsers)
    ]


def _groups(nodes, channels):
    """Pairs (name, volumes) of cases, in the order of their first volume."""
    groups = {}
    for node in nodes:
        match = CHANNEL.fullmatch(node.GetName()) if channels > 1 else None
        key = match["case"] if match else node
        groups.setdefault(key, []).append(node)
    return [
        (key, sorted(volumes, key=lambda node: node.GetName())) if isinstance(key, str) else (key.GetName(), volumes)
        for key, volumes in groups.items()
    ]


def _safe(name):
    """A name for a file: letters that some file system refuses are replaced."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(". ") or "volume"


def _fileName(name, taken):
    """The name of a result's file; volumes of the same name get numbers. ``taken`` grows."""
    stem, number = _safe(name), 1
    candidate = stem
    while candidate.lower() in taken:
        number += 1
        candidate = f"{stem}_{number}"
    taken.add(candidate.lower())
    return candidate + SUFFIX
