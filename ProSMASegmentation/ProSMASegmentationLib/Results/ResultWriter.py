import uuid

import slicer
from slicer.i18n import tr as _

from prosma.image import tags
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Results.FingerprintSteps import fingerprintsOfImage, fingerprintsOfLabels, isUnchanged
from ProSMASegmentationLib.Results.SegmentEditors import SegmentEditors
from ProSMASegmentationLib.Results.SegmentLabelmap import BINARY_LABELMAP, CLOSED_SURFACE, SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import tag, whyProtected
from ProSMASegmentationLib.Results.ShownSurfaces import ShownSurfaces, surfaceSteps
from ProSMASegmentationLib.Volumes.VolumeReader import ijkToRasOf, slabs


class ResultWriter:
    """Turns the engine's label map into segments, all at once or not at all, and never over a person's work.

    A segment of the output may be replaced only if ProSMA wrote it for the same label of the same model, its voxels
    still have the fingerprint that they were written with, its status is not Completed, and it is not locked. Otherwise
    the new segment is added beside it, under a new name.

    :param volumeNode: the segmented volume (the first channel).
    :param package: the model's package.
    :param outputNode: the segmentation to write into, or None for a new one.
    :param options: what the run was made with; kept as a tag of each segment.

    Public: ``run``, the run's id, kept as a tag too.
    """

    def __init__(self, volumeNode, package, outputNode=None, options=None):
        self._volume = volumeNode
        self._package = package
        self._output = outputNode
        self._options = options or {}
        self._expectedDice = {}
        self.run = uuid.uuid4().hex

    def check(self):
        """:raises ProSMAError: ``bad_output``, if the chosen segmentation cannot take the result."""
        node = self._output
        if node is None:
            return
        if not node.IsA("vtkMRMLSegmentationNode") or node.GetScene() is None:
            self._refuse(_("The chosen output is no segmentation of the scene."))
        segmentation = node.GetSegmentation()
        if segmentation.GetNumberOfSegments() == 0:
            return
        if segmentation.GetSourceRepresentationName() != BINARY_LABELMAP:
            self._refuse(_("The segmentation '{name}' is made of surfaces, not of voxels.").format(name=node.GetName()))
        if node.GetTransformNodeID() != self._volume.GetTransformNodeID():
            self._refuse(
                _("The segmentation '{name}' is under another transform than the volume '{volume}'.").format(
                    name=node.GetName(), volume=self._volume.GetName()
                )
            )

    def write(self, labels, offset, say=None, values=None, expectedDice=None):
        """Steps (for EventLoopTask) that write the result and return the segmentation node.

        Only the last step touches the scene. Where the output is shown in 3D it also brings the new surfaces, which are
        made before, each in a step of its own.

        :param labels: (K, J, I) array of label values, cropped to the box of the labels; None if nothing was found.
        :param offset: i, j, k of its first voxel in the volume.
        :param values: of the labels that the result may hold; the model's own if it is None.
        :param expectedDice: for some of these values, what the engine expects of the segment, a dict or None.
        :param say: called with a text for a person when another part of the work begins.
        """
        self.check()
        self._expectedDice = expectedDice or {}
        imageToWorld = ijkToRasOf(self._volume)
        described = self._package.labels
        if values is not None:
            described = [label for label in self._package.result_labels if label["value"] in values]
        self._values = values = [label["value"] for label in described]
        if labels is None:
            image, fingerprints = None, dict.fromkeys(values, tags.EMPTY)
        else:
            image, array = SegmentLabelmap.create(offset, labels.shape, labels.dtype.itemsize > 1, imageToWorld)
            for target, source in zip(slabs(array), slabs(labels), strict=True):
                target[:] = source
                yield
            found = yield from fingerprintsOfLabels(array, offset, imageToWorld)
            fingerprints = {value: found.get(value, tags.EMPTY) for value in values}
        segments = {label["value"]: self._newSegment(label, image, fingerprints) for label in described}
        untouched = yield from self._untouchedSegments()
        if self._output is None:
            return self._newNode(segments)
        surfaces = yield from self._makeSurfaces(segments, say)
        self.check()
        return self._intoOutput(segments, untouched, surfaces)

    def _refuse(self, why):
        raise ProSMAError("bad_output", why, _("Choose 'Create new segmentation' or another one as output."))

    def _newSegment(self, label, image, fingerprints):
        from prosma.image.labels import terminology_entry

        segment = slicer.vtkSegment()
        segment.SetName(label["name"])
        segment.SetColor([channel / 255 for channel in label["color"]])
        terminology = terminology_entry(label.get("terminology"))
        if terminology:
            segment.SetTerminology(terminology)
        self._setContent(segment, image, label["value"], fingerprints[label["value"]])
        return segment

    def _setContent(self, segment, image, value, fingerprint):
        """Give a segment its voxels and say where they come from. A new image of its own where there is none."""
        segment.AddRepresentation(BINARY_LABELMAP, image if image is not None else slicer.vtkOrientedImageData())
        segment.SetLabelValue(value)
        for name, text in tags.provenance(self._package, self._options).items():
            segment.SetTag(name, text)
        segment.SetTag(tags.LABEL, str(value))
        segment.SetTag(tags.FINGERPRINT, fingerprint)
        segment.SetTag(tags.RUN, self.run)
        for name in (tags.EXPECTED_DICE, tags.QUALITY):
            segment.RemoveTag(name)
        for name, text in tags.quality_tags(self._expectedDice.get(value)).items():
            segment.SetTag(name, text)
        segment.RemoveTag(tags.STATE)
        segment.RemoveTag(tags.SENSITIVITY)

    def _makeSurfaces(self, segments, say):
        """Steps that return {label value: surface of the new segment}; nothing where the output is not shown in 3D."""
        shown = self._output.GetSegmentation()
        surfaces = {}
        if not shown.ContainsRepresentation(CLOSED_SURFACE):
            return surfaces
        if say is not None:
            say(_("Making surfaces"))
        for value, segment in segments.items():
            image = SegmentLabelmap.of(segment)
            geometry = SegmentLabelmap.geometry(image)
            surfaces[value] = yield from surfaceSteps(shown, SegmentLabelmap.array(image), value, *geometry)
            yield
        return surfaces

    # ---- what is there already

    def _untouchedSegments(self):
        """Steps that return {label value: (segment id, time of last change)} of segments that may be replaced."""
        untouched = {}
        layers = []  # (image that segments may share, fingerprints of its labels)
        segmentation = self._output.GetSegmentation() if self._output is not None else None
        for segmentId in segmentation.GetSegmentIDs() if segmentation is not None else ():
            segment = segmentation.GetSegment(segmentId)
            value = self._ownLabel(segment)
            if value is None or value in untouched or value not in self._values:
                continue
            image, changed = SegmentLabelmap.of(segment), _changeTime(segment)
            found = next((fingerprints for layer, fingerprints in layers if layer is image), None)
            if found is None:
                found = yield from fingerprintsOfImage(image)
                layers.append((image, found))
            fingerprint = found.get(segment.GetLabelValue(), tags.EMPTY)
            if isUnchanged(fingerprint, tag(segment, tags.FINGERPRINT)):
                untouched[value] = (segmentId, changed)
        return untouched

    def _ownLabel(self, segment):
        """The label value, if this model wrote the segment and nobody declared it finished or locked it."""
        if tag(segment, tags.MODEL) != self._package.id or whyProtected(segment):
            return None
        text = tag(segment, tags.LABEL)
        return int(text) if text.isdigit() else None

    # ---- the scene

    def _newNode(self, segments):
        name = f"{self._volume.GetName()} - {self._package.name}"
        node = segmentationOf(segments.values(), slicer.mrmlScene.GenerateUniqueName(name))
        slicer.mrmlScene.AddNode(node)
        try:
            node.CreateDefaultDisplayNodes()
            placeBesideVolume(node, self._volume)
        except Exception:
            slicer.mrmlScene.RemoveNode(node)
            raise
        return node

    def _intoOutput(self, segments, untouched, newSurfaces):
        node = self._output
        segmentation = node.GetSegmentation()
        hadSegments = segmentation.GetNumberOfSegments() > 0
        SegmentEditors.saveStateForUndo(node)
        surfaces = ShownSurfaces(segmentation)
        if surfaces:
            segmentation.RemoveRepresentation(CLOSED_SURFACE)  # else they would be dropped one by one, and made at once

        replace = {}
        for value, (segmentId, changed) in untouched.items():
            segment = segmentation.GetSegment(segmentId)
            if segment is not None and self._ownLabel(segment) == value and _changeTime(segment) == changed:
                replace[segmentId] = value
        self._leaveSharedLayers(segmentation, set(replace))
        for segmentId, value in replace.items():
            new = segments.pop(value)
            image = SegmentLabelmap.of(new)
            self._setContent(segmentation.GetSegment(segmentId), image, value, tag(new, tags.FINGERPRINT))
            image.Modified()
        written = {value: segmentId for segmentId, value in replace.items()}
        for value, segment in segments.items():
            segment.SetName(_freeName(segmentation, segment.GetName()))
            written[value] = segmentation.GenerateUniqueSegmentID(segment.GetName())
            segmentation.AddSegment(segment, written[value])

        if surfaces:
            for value, segmentId in written.items():
                surfaces.replace(segmentId, newSurfaces.get(value))  # none if 3D was switched on meanwhile
            surfaces.complete()
        if not hadSegments:
            placeBesideVolume(node, self._volume)
        self._makeVisible(node)
        return node

    def _makeVisible(self, node):
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()

    @staticmethod
    def _leaveSharedLayers(segmentation, segmentIds):
        """Take the segments' voxels out of layers that they share with segments which stay."""
        staying = [segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs() if i not in segmentIds]
        kept = [SegmentLabelmap.of(segment) for segment in staying]
        for segmentId in segmentIds:
            image = SegmentLabelmap.of(segmentation.GetSegment(segmentId))
            if image is not None and any(image is other for other in kept):
                segmentation.SeparateSegmentLabelmap(segmentId)


def emptySegmentation(volumeNode, name):
    """A new segmentation node in the scene without segments, beside a volume and named after it."""
    name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} - {name}")
    node = slicer.mrmlScene.AddNode(segmentationOf([], name))
    node.CreateDefaultDisplayNodes()
    placeBesideVolume(node, volumeNode)
    return node


def placeBesideVolume(node, volumeNode):
    """Give a segmentation node the geometry, transform and subject-hierarchy folder of a volume."""
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volumeItem = hierarchy.GetItemByDataNode(volumeNode) if hierarchy is not None else 0
    nodeItem = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if volumeItem and nodeItem:
        hierarchy.SetItemParent(nodeItem, hierarchy.GetItemParent(volumeItem))


def segmentationOf(segments, name):
    """A new segmentation node, in no scene yet, with these segments."""
    node = slicer.vtkMRMLSegmentationNode()
    node.SetName(name)
    segmentation = node.GetSegmentation()
    for segment in segments:
        segmentation.AddSegment(segment, segmentation.GenerateUniqueSegmentID(segment.GetName()))
    return node


def _changeTime(segment):
    image = SegmentLabelmap.of(segment)
    return image.GetMTime() if image is not None else 0


def _freeName(segmentation, name):
    taken = {segmentation.GetNthSegment(index).GetName() for index in range(segmentation.GetNumberOfSegments())}
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name} ({number})", number + 1
    return candidate
