import getpass
import json
import platform
import shutil
from datetime import datetime, timezone

import slicer
from slicer.i18n import tr as _

from prosma import __version__
from prosma.image import tags
from prosma.image.box import slabs, slices_kji, whole
from prosma.image.constants import LUMA
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Learn.LabelMatch import LabelMatch
from ProSMASegmentationLib.Learn.TrainingFolder import ENDING, IMAGES, LABELS, RECORDS, caseName
from ProSMASegmentationLib.Models.ModelFit import ModelFit
from ProSMASegmentationLib.Results.FingerprintSteps import fingerprintsOfImage, isUnchanged
from ProSMASegmentationLib.Results.SegmentLabelmap import BINARY_LABELMAP, SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import isCompleted, tag
from ProSMASegmentationLib.Volumes.NiftiFile import NiftiFile
from ProSMASegmentationLib.Volumes.VolumeReader import VolumeReader

BYTES_PER_SLAB = 1 << 19  # compressed in about 10 ms


class TrainingCase:
    """A corrected result on its way into a folder of training cases.

    Image and label map are written on the image's own grid, each channel in a file of its own. A parent transform that
    image and segmentation have in common is left out, as it is when the model runs. For a 2D model each slice of a
    volume that holds a segment is a case.

    :param segmentationNode: the corrected segmentation.
    :param volumeNodes: the images, in the order of the model's channels.
    :param package: the model that shall learn from it.
    :raises ProSMAError: ``bad_input`` or ``does_not_fit``, if these do not go together.

    Public: ``volumes``; ``match`` (LabelMatch); ``name``, a suggestion, made of the volume's name; and, complete after
    ``steps``, ``notes``, sentences about what a person should know, and ``isWhole``, whether the case is all of the volume.
    """

    def __init__(self, segmentationNode, volumeNodes, package):
        self._node = segmentationNode
        self.volumes = list(volumeNodes)
        self._package = package
        self._checkNodes()
        self._readers = [VolumeReader(node) for node in self.volumes]
        ModelFit(package, self._readers).check()
        self.match = LabelMatch(segmentationNode, package)
        self.name = caseName(self.volumes[0].GetName())
        self.notes = []
        self.isWhole = False

    def _checkNodes(self):
        node = self._node
        if node is None or not node.IsA("vtkMRMLSegmentationNode") or node.GetScene() is None:
            raise ProSMAError("bad_input", _("There is no segmentation to save."), _("Segment a volume first."))
        if not self.volumes:
            raise ProSMAError("bad_input", _("There is no volume to save."), _("Choose the segmentation's volume."))
        if node.GetSegmentation().GetSourceRepresentationName() != BINARY_LABELMAP:
            raise ProSMAError(
                "bad_input",
                _("The segmentation '{name}' is made of surfaces, not of voxels.").format(name=node.GetName()),
                _("Convert it to a binary labelmap in the Segmentations module, and make that the source."),
            )
        volume = self.volumes[0]
        if node.GetTransformNodeID() != volume.GetTransformNodeID():
            raise ProSMAError(
                "bad_input",
                _("The segmentation '{node}' is under another transform than the volume '{volume}'.").format(
                    node=node.GetName(), volume=volume.GetName()
                ),
                _("Put both under the same transform, or harden the transforms."),
            )

    def steps(self, folder, name=None, who=None):
        """Steps (for EventLoopTask) that write the case, all of it or nothing. Returns the names of the new cases.

        :param folder: TrainingFolder. :param name: of the case; without one it is made of the volume's, and is new.
        :param who: who corrected it; by default the name of the computer's user.
        :raises ProSMAError: ``bad_folder`` or ``bad_input``.
        """
        try:
            names = yield from self._write(folder, name, who or _userName())
        except OSError as error:
            raise ProSMAError(
                "bad_folder",
                _("The case could not be written to '{path}': {error}.").format(path=folder.path, error=error),
                _("Free some space there, or choose another folder that you may write to."),
            ) from error
        return names

    def _write(self, folder, name, who):
        folder.finishInterrupted()
        folder.check(self._package)
        name = self._freeName(folder, name)
        changed = self._changeTimes()
        segments = yield from self._segments()
        labels = yield from self._labelMap()
        if self._changeTimes() != changed:
            raise ProSMAError(
                "bad_input", _("The segmentation was changed while it was being saved."), _("Save it again.")
            )
        parts = self._parts(labels, name)
        stage = folder.newStage(self._package)
        try:
            for part, first, last in parts:
                yield from self._writePart(stage, part, labels, first, last)
                record = self._record(part, (first, last), segments, who)
                text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
                (stage / RECORDS / f"{part}.json").write_text(text, encoding="utf-8")
            self._checkStillThere()
            self._checkNames(folder, parts)
            folder.take(stage)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        return [part for part, _first, _last in parts]

    def _freeName(self, folder, name):
        if name is None:
            return folder.freeName(self.name)
        if caseName(name) != name:
            raise ProSMAError(
                "bad_input",
                _("'{name}' cannot be the name of a case.").format(name=name),
                _("Use letters, digits, '-' and '_', for example '{other}'.").format(other=caseName(name)),
            )
        self._checkNames(folder, [(name, 0, 0)])
        return name

    @staticmethod
    def _checkNames(folder, parts):
        for name, _first, _last in parts:
            if not folder.isFree(name):
                raise ProSMAError(
                    "bad_folder",
                    _("The folder has a case '{name}' already, which stays as it is.").format(name=name),
                    _("Choose another name, for example '{other}'.").format(other=folder.freeName(name)),
                )

    def _checkStillThere(self):
        gone = [node.GetName() for node in (self._node, *self.volumes) if node.GetScene() is None]
        if gone:
            raise ProSMAError(
                "bad_input",
                _("'{name}' was removed while it was being saved; nothing was saved.").format(name=gone[0]),
                _("Load it again, and save the case again."),
            )

    # ---- what is written

    def _segment(self, value):
        return self._node.GetSegmentation().GetSegment(self.match.segmentIds[value])

    def _segments(self):
        """Steps that return what the record says of each label."""
        found, layers = [], []
        names = {label["value"]: label["name"] for label in self._package.labels}
        for value in sorted(self.match.segmentIds):
            segment = self._segment(value)
            image = SegmentLabelmap.of(segment)
            prints = next((prints for layer, prints in layers if layer is image), None)
            if prints is None:
                prints = (yield from fingerprintsOfImage(image)) if image is not None else {}
                layers.append((image, prints))
            written = tag(segment, tags.FINGERPRINT)
            now = prints.get(segment.GetLabelValue(), tags.EMPTY)
            found.append(
                {
                    "label": value,
                    "name": names[value],
                    "segment": segment.GetName(),
                    "edited": not (written and isUnchanged(now, written)),
                    "completed": isCompleted(segment),
                    "made_by": {"id": tag(segment, tags.MODEL), "version": tag(segment, tags.VERSION)}
                    if written
                    else None,
                    "sensitivity": float(tag(segment, tags.SENSITIVITY) or 0),
                }
            )
        return found

    def _labelMap(self):
        """Steps that return the label values (K, J, I) on the volume's grid."""
        import numpy

        reader = self._readers[0]
        (i, j, k), segmentation = reader.dimensions, self._node.GetSegmentation()
        labels = numpy.zeros((k, j, i), numpy.uint8 if len(self._package.labels) < 256 else numpy.uint16)
        order = [each for each in segmentation.GetSegmentIDs() if each in self.match.segmentIds.values()]
        values = {segmentId: value for value, segmentId in self.match.segmentIds.items()}
        several = 0
        for box in slabs(whole((i, j, k)), BYTES_PER_SLAB):
            self._checkStillThere()
            slab = labels[slices_kji(box)]
            for segmentId in order:
                mask = SegmentLabelmap.resampledMask(segmentation.GetSegment(segmentId), box, reader.ijkToRas)
                several += int(numpy.count_nonzero(slab[mask]))
                slab[mask] = values[segmentId]
                yield
        if several:
            self.notes.append(
                _("{count} voxels belong to several segments; each counts for the last one in the list.").format(
                    count=several
                )
            )
        return labels

    def _changeTimes(self):
        images = [SegmentLabelmap.of(self._segment(value)) for value in sorted(self.match.segmentIds)]
        return [image.GetMTime() if image is not None else 0 for image in images]

    def _parts(self, labels, name):
        """The cases: (name, first slice, slice after the last)."""
        slices = len(labels)
        self.isWhole = self._package.dimension == 3 or slices == 1
        if self.isWhole:
            return [(name, 0, slices)]
        parts = [(f"{name}_s{k:03d}", k, k + 1) for k in range(slices) if labels[k].any()]
        if not parts:
            raise ProSMAError(
                "bad_input",
                _("No slice of '{name}' holds a segment of the model.").format(name=self.volumes[0].GetName()),
                _("Correct at least one slice first."),
            )
        self.notes.append(
            _("The model sees one slice at a time: the {count} slices with segments are a case each.").format(
                count=len(parts)
            )
        )
        return parts

    def _writePart(self, stage, name, labels, first, last):
        matrix = self._readers[0].geometry()
        for row in range(3):
            matrix[row][3] += first * matrix[row][2]
        shape = (last - first, *labels.shape[1:])
        with NiftiFile(stage / LABELS / f"{name}{ENDING}", shape, labels.dtype, matrix) as file:
            for start, stop in _ranges(first, last, labels[:1].nbytes):
                file.write(labels[start:stop])
                yield
        for number, (dtype, slab) in enumerate(self._channels()):
            with NiftiFile(stage / IMAGES / f"{name}_{number:04d}{ENDING}", shape, dtype, matrix) as file:
                for start, stop in _ranges(first, last, labels[:1].size * dtype.itemsize):
                    self._checkStillThere()
                    file.write(slab(start, stop))
                    yield

    def _channels(self):
        """For each channel of the model: its numpy type, and a function that gives its slices from one to another."""
        import numpy

        wanted, first = len(self._package.channels), self._readers[0]
        components = ModelFit.channelsOf(self._package, first)
        array = first.array()
        if (components, wanted) == (3, 1):
            luma = numpy.array(LUMA, numpy.float32)
            return [(numpy.dtype(numpy.float32), lambda start, stop: array[start:stop, ..., :3] @ luma)]
        channels = []
        for reader in self._readers:
            for component in range(ModelFit.channelsOf(self._package, reader)):
                channels.append(self._channel(reader, component))
        return channels * (wanted // len(channels))  # a grey picture is all three colours

    def _channel(self, reader, component):
        import numpy

        from prosma.image import geometry

        first = self._readers[0]
        array = _component(reader, component)
        image, grid = (
            geometry.Image(voxels.T[None], numpy.array(each.geometry()))
            for voxels, each in ((array, reader), (_component(first, 0), first))
        )
        if geometry.same_grid(image, grid):
            return array.dtype, lambda start, stop: array[start:stop]
        i, j, _k = first.dimensions

        def resampled(start, stop):
            return geometry.resample_to_grid(image, grid.cropped([[0, i], [0, j], [start, stop]]))[0].T

        return numpy.dtype(numpy.float32), resampled

    def _record(self, name, slices, segments, who):
        package, volume = self._package, self.volumes[0]
        transform = volume.GetParentTransformNode()
        return {
            "case": name,
            "saved": datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds"),
            "by": who,
            "model": {"id": package.id, "version": package.version, "sha256": package.sha256},
            "images": [node.GetName() for node in self.volumes],
            "slices": list(slices),
            "transform_left_out": transform.GetName() if transform is not None else None,
            "segments": segments,
            "labels_without_segment": self.match.missing,
            "segments_left_out": self.match.leftOut,
            "software": {
                "prosma": __version__,
                "slicer": slicer.app.applicationVersion,
                "python": platform.python_version(),
                "system": platform.platform(),
            },
        }


def _component(reader, number):
    """One value of each voxel, as a view (K, J, I)."""
    array = reader.array()
    return array if array.ndim == 3 else array[..., number]


def _ranges(first, last, bytesPerSlice):
    """Pairs (from, to) of slices that are written at once."""
    step = max(1, BYTES_PER_SLAB // max(1, bytesPerSlice))
    return [(start, min(start + step, last)) for start in range(first, last, step)]


def _userName():
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
