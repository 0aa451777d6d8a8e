import json
import logging
import math

import slicer
import vtk
from slicer.i18n import tr as _

from prosma.image import tags
from prosma.image.box import slices_kji
from prosma.image.constants import MM3_PER_ML
from prosma.steps import finish
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Correct.SensitivityMove import sensitivityOf
from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import expectedDice, tag


class Review:
    """The places of a result that are most likely wrong, worst first, with marks for those that were looked at.

    The order is that of the consequence: how many voxels of a place are likely to be wrong. That is its size (``voxels``)
    times its doubt, the mean of 1 minus the probability of the label that each voxel has; the product is ``error``. Where
    the run expects a Dice of the segment that its probabilities do not tell, they count as much more or less.

    The list is an attribute of the segmentation node (JSON), so it is saved with the scene. A region is a dict:
    ``place`` (R, A, S in mm, without the node's transform), ``ml``, ``voxels``, ``error``, ``segment`` (name), ``label``,
    ``rival`` (name of the segment that it may belong to instead; empty for the background), ``island``, ``radius`` (mm),
    ``checked``, ``quality`` (of the segment, in words; only if the run expects a Dice of it).

    :param node: the segmentation node.
    :raises ProSMAError: ``bad_output``, if it is none.
    """

    def __init__(self, node):
        if node is None or not node.IsA("vtkMRMLSegmentationNode"):
            raise ProSMAError("bad_output", _("There is no segmentation to review."), _("Segment a volume first."))
        self.node = node

    # ---- the list

    @property
    def regions(self):
        """The list as it was computed last; None if it never was."""
        return self._stored().get("regions")

    def _stored(self):
        """{"run": whose probabilities, "regions": the list}; empty if there is none, or a scene holds something else."""
        try:
            stored = json.loads(self.node.GetAttribute(tags.NODE_REVIEW) or "{}")
        except ValueError:
            stored = None
        if not _isList(stored):
            logging.warning("ProSMA: '%s' holds a list of places that cannot be read", self.node.GetName())
            return {}
        return stored

    @property
    def canCompute(self):
        """Whether the probabilities of the newest run are still there."""
        return KeptProbabilities.shared().latest(self.node) is not None

    def compute(self):
        """Compute the list anew and return it; without probabilities the saved one.

        :raises ProSMAError: ``no_probabilities``, if there is neither.
        """
        if self.canCompute:
            return finish(self.steps())
        if self.regions is None:
            raise ProSMAError(
                "no_probabilities",
                _("There are no class probabilities to find uncertain places in; they are not saved with the scene."),
                _("Segment the volume again, in an ROI if it is very large."),
            )
        return self.regions

    def steps(self):
        """Steps (for EventLoopTask) that compute the list, keep it and return it."""
        from prosma.correct.review import find_regions_in_steps

        kept = KeptProbabilities.shared().latest(self.node)
        labels, sure, shifts, names, expected = yield from self._present(kept)
        spacing = _spacing(kept.imageToWorld)
        stored = self._stored()
        before = stored.get("regions", []) if stored.get("run") == kept.run else []
        radius = before[0]["radius"] if before else None
        means = {label: quality["mean"] for label, quality in expected.items()}
        found = yield from find_regions_in_steps(
            kept.probabilities, labels, spacing[::-1], sure, shifts, radius=radius, expected=means
        )
        ml = spacing[0] * spacing[1] * spacing[2] / MM3_PER_ML
        regions = []
        for region in found:
            regions.append(self._region(region, kept, ml, names) | _quality(expected.get(region.label)))
            yield
        before = self.regions if before else []  # marks that were made meanwhile count too
        for region in regions:
            region["checked"] = any(old["checked"] and _isNear(old, region) for old in before)
        self._keep(kept.run, regions)
        return regions

    def state(self):
        """What the list depends on: equal as long as it need not be computed anew."""
        segmentation = self.node.GetSegmentation()
        state = []
        for segmentId in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(segmentId)
            image = SegmentLabelmap.of(segment)
            state.append((segmentId, tag(segment, tags.STATE), image.GetMTime() if image is not None else 0))
        return state

    def setChecked(self, index, checked=True):
        """:raises IndexError: there is no such region."""
        stored = self._stored()
        regions = stored.get("regions", [])
        regions[index]["checked"] = bool(checked)
        self._keep(stored.get("run"), regions)

    def _keep(self, run, regions):
        self.node.SetAttribute(tags.NODE_REVIEW, json.dumps({"run": run, "regions": regions}))

    def _present(self, kept):
        """Steps that return (labels now, voxels decided by a person, sensitivities, names, expected Dice by label)."""
        import numpy

        shape = kept.probabilities.shape[1:]
        labels = numpy.zeros(shape, numpy.uint8 if len(kept.probabilities) <= 256 else numpy.uint16)
        sure = numpy.zeros(shape, bool)
        shifts, names, expected = {}, {}, {}
        for segmentId in kept.segmentIds():
            segment = self.node.GetSegmentation().GetSegment(segmentId)
            label = int(tag(segment, tags.LABEL))
            names[label] = segment.GetName()
            if kept.reach[label - 1] is None:
                continue
            shifts[label] = sensitivityOf(segment)
            quality = expectedDice(segment)
            if quality is not None:
                expected[label] = quality
            for box, present, edits in kept.comparisons(segment):
                part = slices_kji(box, kept.offset)
                labels[part][present] = label
                sure[part] |= edits
                yield
        return labels, sure, shifts, names, expected

    def _region(self, region, kept, ml, names):
        index = [middle + start for middle, start in zip(reversed(region.centre), kept.offset, strict=True)]
        rival = _rival(region, kept.probabilities)
        return {
            "place": [round(mm, 3) for mm in kept.imageToWorld.MultiplyPoint([*index, 1])[:3]],
            "ml": region.voxels * ml,
            "voxels": region.voxels,
            "error": round(region.error, 2),
            "segment": names.get(region.label, _("label {number}").format(number=region.label)),
            "label": region.label,
            "rival": names.get(rival, "") if rival else "",
            "island": region.island,
            "radius": region.radius,
        }

    # ---- the views

    def place(self, region):
        """R, A, S of a region in the world, with the node's transform."""
        toWorld = vtk.vtkGeneralTransform()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(self.node.GetParentTransformNode(), None, toWorld)
        return toWorld.TransformPoint(region["place"])

    def show(self, index):
        """Put a region into the middle of all slice and 3D views.

        :raises IndexError: there is no such region.
        """
        place = self.place((self.regions or [])[index])
        for sliceNode in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            sliceNode.JumpSliceByCentering(*place)
        for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
            way = [new - old for new, old in zip(place, camera.GetFocalPoint(), strict=True)]
            camera.SetPosition([old + step for old, step in zip(camera.GetPosition(), way, strict=True)])
            camera.SetFocalPoint(place)
            camera.ResetClippingRange()


def _spacing(imageToWorld):
    """mm along i, j, k."""
    columns = [[imageToWorld.GetElement(row, column) for row in range(3)] for column in range(3)]
    return [sum(number * number for number in column) ** 0.5 for column in columns]


def _quality(expected):
    """What a region tells of its segment's quality."""
    return {"quality": tags.quality_in_words(expected)} if expected else {}


def _rival(region, probabilities):
    """The label, 0 for the background, that the voxels of a region most likely have if not the region's own."""
    shares = probabilities[(slice(None), *region.index)].mean(axis=1)
    shares[region.label] = -1
    return int(shares.argmax())


def _isList(stored):
    """Whether something read from a scene is {"run": ..., "regions": a list of regions}, or empty."""
    if not isinstance(stored, dict) or not isinstance(stored.get("regions", []), list):
        return False
    return all(isinstance(region, dict) and _isRegion(region) for region in stored.get("regions", []))


def _isRegion(region):
    numbers = ("ml", "voxels", "error", "label", "radius")
    place = region.get("place")
    return (
        all(isinstance(region.get(name), bool) for name in ("island", "checked"))
        and all(isinstance(region.get(name, ""), str) for name in ("segment", "rival", "quality"))
        and all(_isNumber(region.get(name)) and region[name] > 0 for name in numbers)
        and isinstance(place, list)
        and len(place) == 3
        and all(_isNumber(mm) for mm in place)
    )


def _isNumber(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _isNear(one, other):
    """Whether two regions are about the same place and label."""
    far = sum((a - b) ** 2 for a, b in zip(one["place"], other["place"], strict=True)) ** 0.5
    return one["label"] == other["label"] and far <= other["radius"]
