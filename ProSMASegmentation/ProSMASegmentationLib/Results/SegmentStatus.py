import json

import slicer
import vtk
from slicer.i18n import tr as _

from prosma.image import tags


def tag(segment, name):
    """The text of a segment's tag, or an empty text."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""


def expectedDice(segment):
    """What the run expected of its segment, a dict of ``mean``, ``low`` and ``high``; None if that is not known."""
    try:
        told = json.loads(tag(segment, tags.EXPECTED_DICE) or "null")
        return {name: float(told[name]) for name in ("mean", "low", "high")} if told else None
    except (ValueError, TypeError, KeyError):  # a tag that somebody else wrote
        return None


def isLocked(segment):
    """Whether a person locked the segment. Slicer itself has no lock, so it is a tag, which is saved with the segment."""
    return bool(tag(segment, tags.LOCKED))


def setLocked(segment, locked):
    if locked:
        segment.SetTag(tags.LOCKED, "1")
    else:
        segment.RemoveTag(tags.LOCKED)


def isCompleted(segment):
    """Whether a person gave the segment the status Completed in the Segment Editor."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    return logic.GetSegmentStatus(segment) == logic.Completed


def whyProtected(segment):
    """Why nothing of ProSMA's may change this segment's voxels, and the way out; an empty text if it may."""
    if isLocked(segment):
        return _("The segment '{name}' is locked. Unlock it to change it.").format(name=segment.GetName())
    if isCompleted(segment):
        return _("The segment '{name}' is marked as completed. Change its status to change it.").format(
            name=segment.GetName()
        )
    return ""
