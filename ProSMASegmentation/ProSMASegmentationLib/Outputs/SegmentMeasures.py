import math

import slicer
import vtk
from slicer.i18n import tr as _

from prosma.image import tags
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Outputs.Dice import diceSteps
from ProSMASegmentationLib.Results.SegmentLabelmap import BINARY_LABELMAP, CLOSED_SURFACE, SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import tag
from ProSMASegmentationLib.Results.ShownSurfaces import surfaceOf


class SegmentMeasures:
    """Volume, surface and agreement of the segments of a segmentation, as a table node.

    The volume is that of the voxels; the surface is that of the closed surface that Slicer shows in 3D. The Dice
    coefficient compares with the segment of the same name in another segmentation, or else with that of the same label.
    Parent transforms do not count.

    :param node: the segmentation. :param reference: another one, or None.
    :raises ProSMAError: ``bad_output`` or ``bad_input``, if one of them is none or is not made of voxels.
    """

    def __init__(self, node, reference=None):
        self._node = self._checked(node, "bad_output", _("Segment a volume first."))
        self._reference = self._checked(reference, "bad_input", _("Choose another one.")) if reference else None
        if node is reference:
            raise ProSMAError(
                "bad_input", _("A segmentation agrees with itself."), _("Choose another one to compare with.")
            )
        self._segmentIds = list(node.GetSegmentation().GetSegmentIDs())
        if not self._segmentIds:
            raise ProSMAError(
                "bad_output",
                _("The segmentation '{name}' has no segments.").format(name=node.GetName()),
                _("Segment a volume first."),
            )

    @staticmethod
    def _checked(node, code, remedy):
        if node is None or not node.IsA("vtkMRMLSegmentationNode") or node.GetScene() is None:
            raise ProSMAError(code, _("There is no segmentation to measure."), remedy)
        if node.GetSegmentation().GetSourceRepresentationName() != BINARY_LABELMAP:
            raise ProSMAError(
                code,
                _("The segmentation '{name}' is made of surfaces, not of voxels.").format(name=node.GetName()),
                _("Convert it to a binary labelmap in the Segmentations module, and make that the source."),
            )
        return node

    def steps(self):
        """Steps (for EventLoopTask) that measure and return the table's node."""
        rows = []
        segmentation = self._node.GetSegmentation()
        for segmentId in self._segmentIds:
            self._checkStillThere(segmentId)
            segment = segmentation.GetSegment(segmentId)
            ml = yield from SegmentLabelmap.millilitres(segment)
            self._checkStillThere(segmentId)
            mm2 = yield from self._mm2(segmentId)
            dice = yield from self._dice(segment)
            self._checkStillThere(segmentId)
            rows.append((segment.GetName(), ml, mm2, dice))
        return self._newTable(rows)

    def _checkStillThere(self, segmentId):
        if any(node is not None and node.GetScene() is None for node in (self._node, self._reference)):
            raise ProSMAError(
                "bad_input",
                _("The segmentation was removed while it was being measured."),
                _("Choose a segmentation, and measure again."),
            )
        if self._node.GetSegmentation().GetSegment(segmentId) is None:
            raise ProSMAError("bad_input", _("A segment was removed while it was being measured."), _("Measure again."))

    def _mm2(self, segmentId):
        """Made anew where the segmentation has no closed surface, which stays so."""
        segmentation = self._node.GetSegmentation()
        surface = segmentation.GetSegment(segmentId).GetRepresentation(CLOSED_SURFACE)
        if surface is None:
            surface = yield from surfaceOf(segmentation, segmentId)
        if surface is None or surface.GetNumberOfPolys() == 0:
            return 0.0
        triangles = vtk.vtkTriangleFilter()
        triangles.SetInputData(surface)
        properties = vtk.vtkMassProperties()
        properties.SetInputConnection(triangles.GetOutputPort())
        return properties.GetSurfaceArea()

    # ---- agreement

    def _dice(self, segment):
        other = self._counterpart(segment) if self._reference is not None else None
        if other is None:
            return None
        images = [SegmentLabelmap.of(each) for each in (segment, other)]
        images = [image for image in images if SegmentLabelmap.array(image).size]
        if not images:
            return None
        _offset, grid = SegmentLabelmap.geometry(images[0])
        dice = yield from diceSteps(segment, other, grid, _commonBox(images, grid))
        return dice

    def _counterpart(self, segment):
        segmentation = self._reference.GetSegmentation()
        others = [segmentation.GetSegment(each) for each in segmentation.GetSegmentIDs()]
        label = tag(segment, tags.LABEL)
        same = [each for each in others if each.GetName().casefold() == segment.GetName().casefold()]
        same = same or [each for each in others if label and tag(each, tags.LABEL) == label]
        return same[0] if same else None

    # ---- the table

    def _newTable(self, rows):
        node = slicer.vtkMRMLTableNode()
        node.SetName(slicer.mrmlScene.GenerateUniqueName(f"{self._node.GetName()} - {_('measures')}"))
        columns = [_("Volume (ml)"), _("Surface (mm2)")]
        if self._reference is not None:
            columns.append(_("Dice with {name}").format(name=self._reference.GetName()))
        names = vtk.vtkStringArray()
        names.SetName(_("Segment"))
        for name, *_numbers in rows:
            names.InsertNextValue(name)
        node.AddColumn(names)
        for number, title in enumerate(columns, start=1):
            values = vtk.vtkDoubleArray()
            values.SetName(title)
            for row in rows:
                values.InsertNextValue(math.nan if row[number] is None else row[number])
            node.AddColumn(values)
        node.SetUseColumnTitleAsColumnHeader(True)
        slicer.mrmlScene.AddNode(node)
        return node


def _commonBox(images, grid):
    """The box of the grid that holds all images, whatever their own grids."""
    inverse = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(grid, inverse)
    points = []
    for image in images:
        _offset, matrix = SegmentLabelmap.geometry(image)
        low, high = (image.GetExtent()[start::2] for start in (0, 1))
        for corner in range(8):
            # half a voxel further out: resampled voxels may lie there
            index = [(high[axis] + 0.5 if corner >> axis & 1 else low[axis] - 0.5) for axis in range(3)]
            points.append(inverse.MultiplyPoint(matrix.MultiplyPoint([*index, 1]))[:3])
    return [
        [math.floor(min(point[axis] for point in points)), math.ceil(max(point[axis] for point in points)) + 1]
        for axis in range(3)
    ]
