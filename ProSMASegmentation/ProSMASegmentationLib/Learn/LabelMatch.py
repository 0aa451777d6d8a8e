from slicer.i18n import tr as _

from prosma.image import tags
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Results.SegmentStatus import tag


class LabelMatch:
    """Which segment of a segmentation stands for which label of a model.

    A segment that the model itself wrote is known by its tags; any other by its terminology, or else by its name.

    Public: ``segmentIds`` (label value: segment id), ``leftOut`` (names of segments that are none of the model's
    labels), ``missing`` (names of labels without a segment).

    :raises ProSMAError: ``bad_input``, if two visible segments stand for one label, or none for any.
    """

    def __init__(self, node, package):
        self._node = node
        self._package = package
        self.leftOut = []
        candidates = {}
        segmentation = node.GetSegmentation()
        for segmentId in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(segmentId)
            value = self._labelOf(segment)
            if value is None:
                self.leftOut.append(segment.GetName())
            else:
                candidates.setdefault(value, []).append(segmentId)
        self.segmentIds = {value: self._theOne(value, ids) for value, ids in candidates.items()}
        self.missing = [label["name"] for label in package.labels if label["value"] not in self.segmentIds]
        if not self.segmentIds:
            raise ProSMAError(
                "bad_input",
                _("No segment of '{node}' is a label of the model '{model}'.").format(
                    node=node.GetName(), model=package.name
                ),
                _("Name segments like the model's labels ({labels}), or choose another model.").format(
                    labels=", ".join(label["name"] for label in package.labels)
                ),
            )

    def _labelOf(self, segment):
        values = {str(label["value"]): label["value"] for label in self._package.labels}
        if tag(segment, tags.MODEL) == self._package.id:
            return values.get(tag(segment, tags.LABEL))
        codes = _codes(segment.GetTerminology())
        same = [label for label in self._package.labels if codes and codes == _codes(_entry(label))]
        if len(same) != 1:
            same = [label for label in self._package.labels if _plain(label["name"]) == _plain(segment.GetName())]
        return same[0]["value"] if len(same) == 1 else None

    def _theOne(self, value, segmentIds):
        """The only segment, or the only visible one, of a label."""
        display = self._node.GetDisplayNode()
        visible = [each for each in segmentIds if display is None or display.GetSegmentVisibility(each)]
        if len(segmentIds) == 1:
            return segmentIds[0]
        if len(visible) == 1:
            return visible[0]
        segmentation = self._node.GetSegmentation()
        names = ", ".join(f"'{segmentation.GetSegment(each).GetName()}'" for each in segmentIds)
        label = next(label["name"] for label in self._package.labels if label["value"] == value)
        raise ProSMAError(
            "bad_input",
            _("Several segments stand for the label '{label}': {names}.").format(label=label, names=names),
            _("Delete or hide all of them but one."),
        )


def _entry(label):
    from prosma.image.labels import terminology_entry

    return terminology_entry(label.get("terminology"))


def _codes(entry):
    """(scheme, code) of category, type and modifier of a terminology entry; empty if it says nothing of a type."""
    parts = [part.split("^")[:2] for part in str(entry or "").split("~")[1:4]]
    return parts if len(parts) == 3 and all(parts[1]) else []


def _plain(name):
    return " ".join(name.casefold().replace("_", " ").split())
