import slicer
from slicer.i18n import tr as _

from prosma.errors import UserFacingError
from prosma.image import tags
from prosma.image.box import whole
from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask, inThread
from ProSMASegmentationLib.Base.Job import Job
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError, asProSMAError
from ProSMASegmentationLib.Outputs.Dice import diceSteps
from ProSMASegmentationLib.Results.SegmentLabelmap import BINARY_LABELMAP, SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import tag
from ProSMASegmentationLib.Volumes.VolumeReader import ijkToRasOf, slabs


class Comparison(Job):
    """Runs two models on a saved case, one after the other, and measures both against the saved correction.

    The case's image is the volume in the scene if it was saved from there or loaded before, else it is loaded. The two
    results are segmentation nodes of their own.

    Public, beside what a Job has: ``name``, ``packages``, ``volumes`` (nodes of the case's image), ``job`` (that runs
    now), ``nodes`` (the two results), ``dice`` (a row for each label: its name, and the Dice coefficient of each model,
    None where neither result nor correction has the label).

    :param segment: the logic's ``segment``. :param folder: TrainingFolder. :param name: of the case.
    :param packages: the two models. :param volumes: nodes that the case was saved from, or None to load its files.
    """

    def __init__(self, segment, folder, name, packages, volumes=None):
        super().__init__()
        self._segment = segment
        self._folder = folder
        self.name = name
        self.packages = list(packages)
        self.volumes = volumes
        self._task = None
        self.job = None
        self.nodes = []
        self.dice = []

    def start(self, device="auto"):
        """Begin; returns once the image is loaded. :raises ProSMAError: ``bad_folder``, if it cannot be."""
        self._device = device
        self.volumes = self.volumes or self._loaded()
        self.state = self.RUNNING
        self._task = EventLoopTask(self._read(), self._onRead, self._fail).start()
        return self

    def cancel(self, reason=None):
        if self.job is not None:
            self.job.cancel(reason)
        elif self._task is not None:
            self._task.cancel()
            self._fail(ProSMAError("cancelled", reason or _("The comparison was cancelled.")))

    # ---- the case

    def _loaded(self):
        """The case's channels as volume nodes; those of an earlier comparison if they are still there."""
        nodes = []
        for path in self._folder.images(self.name):
            node = _nodeOfFile(path)
            try:
                nodes.append(
                    node or slicer.util.loadVolume(str(path), {"name": path.name.split(".")[0], "show": False})
                )
            except RuntimeError as error:
                raise ProSMAError(
                    "bad_folder",
                    _("The case '{name}' cannot be loaded: '{path}' is damaged or not there.").format(
                        name=self.name, path=path
                    ),
                    _("Remove the case from the folder, or save it again."),
                ) from error
        return nodes

    def _read(self):
        """Steps that return the saved correction as a segment of no node for each label value."""
        from prosma.image.reading import read_labels

        path = self._folder.labels(self.name)
        try:
            found = yield from inThread(read_labels, path)
        except (UserFacingError, OSError, RuntimeError) as error:
            raise ProSMAError("bad_folder", str(error), _("Save the case again.")) from error
        array = found.array[0].T
        image, voxels = SegmentLabelmap.create(
            (0, 0, 0),
            array.shape,
            len(self.packages[0].labels) > 255,
            slicer.util.vtkMatrixFromArray(found.ijk_to_ras),
        )
        for target, source in zip(slabs(voxels), slabs(array), strict=True):
            target[...] = source
            yield
        segments = {}
        for label in self.packages[0].labels:
            segment = slicer.vtkSegment()
            segment.SetLabelValue(label["value"])
            segment.AddRepresentation(BINARY_LABELMAP, image)
            segments[label["value"]] = segment
        return segments

    # ---- runs

    def _onRead(self, segments):
        self._task = None
        self._correction = segments
        self._tryNext()

    def _tryNext(self):
        try:
            self._runNext()
        except ProSMAError as error:
            self._fail(error)

    def _runNext(self):
        self._checkStillThere(*self.volumes)
        package = self.packages[len(self.nodes)]
        self.job = self._segment(self.volumes, package, device=self._device, wait=False, force=True)
        self.job.onEnd.append(self._onJobEnd)

    def _onJobEnd(self, job):
        self.job = None
        if job.state != job.FINISHED:
            self._fail(job.error)
            return
        self.nodes.append(job.segmentationNode)
        if len(self.nodes) < len(self.packages):
            job.segmentationNode.GetDisplayNode().SetVisibility2DFill(False)  # lines, so that the next shows through
            self._tryNext()
            return
        self._task = EventLoopTask(self._measure(), self._onMeasured, self._fail).start()

    def _measure(self):
        rows = []
        sizes = self.volumes[0].GetImageData().GetDimensions()
        box, grid = whole(sizes), ijkToRasOf(self.volumes[0])
        for label in self.packages[0].labels:
            row = [label["name"]]
            for node in self.nodes:
                self._checkStillThere(node, self.volumes[0])
                row.append((yield from diceSteps(_ofLabel(node, label), self._correction[label["value"]], grid, box)))
            rows.append(tuple(row))
        return rows

    @staticmethod
    def _checkStillThere(*nodes):
        gone = next((node for node in nodes if node.GetScene() is None), None)
        if gone is not None:
            raise ProSMAError(
                "bad_input",
                _("'{name}' was removed while the models were being compared.").format(name=gone.GetName()),
                _("Compare them again."),
            )

    def _onMeasured(self, rows):
        self.dice = rows
        self._task = None
        self._end(self.FINISHED)

    def _fail(self, error):
        self._task = None
        error = asProSMAError(error)
        self._end(self.CANCELLED if error.code == "cancelled" else self.FAILED, error)


def _ofLabel(node, label):
    """The segment that a run wrote for a label."""
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetSegment(segmentId) for segmentId in segmentation.GetSegmentIDs()]
    return next(segment for segment in segments if tag(segment, tags.LABEL) == str(label["value"]))


def _nodeOfFile(path):
    """The volume node that was loaded from a file, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        storage = node.GetStorageNode()
        if storage is not None and storage.GetFileName() == str(path):
            return node
    return None
