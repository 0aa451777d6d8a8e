import itertools
import math

import slicer
import vtk
from slicer.i18n import tr as _

from prosma.image.box import whole
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

POINTS_PER_AXIS = 5  # of an ROI that is followed through a possibly curved transform


class RegionOfInterest:
    """The part of a volume that a markups ROI encloses, as a box of voxels.

    A rotated ROI gives the smallest upright box around it; transforms of ROI and volume, curved ones too, are followed.
    """

    @classmethod
    def box(cls, roiNode, volumeNode):
        """((i0, i1), (j0, j1), (k0, k1)), half open, or None if the whole volume is meant.

        :raises ProSMAError: ``bad_input``, if no voxel of the volume lies in the ROI.
        """
        if roiNode is None:
            return None
        dimensions = volumeNode.GetImageData().GetDimensions()
        points = cls._pointsInVoxels(roiNode, volumeNode)
        box = []
        for axis, size in enumerate(dimensions):
            values = [point[axis] for point in points]
            start = max(0, math.ceil(min(values) - 1e-6))
            stop = min(size, math.floor(max(values) + 1e-6) + 1)
            if start >= stop:
                raise ProSMAError(
                    "bad_input",
                    _("The ROI '{roi}' encloses no voxel of '{volume}'.").format(
                        roi=roiNode.GetName(), volume=volumeNode.GetName()
                    ),
                    _("Move or enlarge it, or choose no ROI."),
                )
            box.append((start, stop))
        return None if tuple(box) == whole(dimensions) else tuple(box)

    @staticmethod
    def _pointsInVoxels(roiNode, volumeNode):
        toWorld = roiNode.GetObjectToWorldMatrix()
        fromWorld = vtk.vtkGeneralTransform()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, volumeNode.GetParentTransformNode(), fromWorld)
        rasToIjk = vtk.vtkMatrix4x4()
        volumeNode.GetRASToIJKMatrix(rasToIjk)

        half = [size / 2 for size in roiNode.GetSize()]
        shares = [-1 + 2 * step / (POINTS_PER_AXIS - 1) for step in range(POINTS_PER_AXIS)]
        points = []
        for share in itertools.product(shares, repeat=3):
            inObject = [s * h for s, h in zip(share, half, strict=True)]
            ras = fromWorld.TransformPoint(toWorld.MultiplyPoint([*inObject, 1])[:3])
            points.append(rasToIjk.MultiplyPoint([*ras, 1])[:3])
        return points

    @staticmethod
    def fitTo(roiNode, volumeNode, largestSize=None):
        """Put a new ROI on the middle of the volume: all of it, or at most ``largestSize`` mm along R, A, S."""
        bounds = [0] * 6
        volumeNode.GetRASBounds(bounds)
        center = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
        size = [bounds[2 * axis + 1] - bounds[2 * axis] for axis in range(3)]
        if largestSize:
            size = [min(pair) for pair in zip(size, largestSize, strict=True)]
        roiNode.SetCenterWorld(center)
        roiNode.SetSizeWorld(size)
