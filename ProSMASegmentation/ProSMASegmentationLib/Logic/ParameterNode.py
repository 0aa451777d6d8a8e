import typing

import slicer
from slicer.parameterNodeWrapper import parameterNodeWrapper

# The wrapper of Slicer 5.12 knows typing.Union, and wants None in it where other types are.
ImageVolume = typing.Union[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLVectorVolumeNode, None]  # noqa: UP007


@parameterNodeWrapper
class ParameterNode:
    """Choices that belong to the case and are saved with the scene. What belongs to the computer is in QSettings.

    inputVolume, channel2, channel3, channel4: images, in the order of the model's channels.
    model: id of the chosen model.
    roi: the part of the volume to segment, or None for all of it.
    outputSegmentation: where the result goes, or None for a new segmentation.
    mirror: whether the image is segmented mirrored too, with models that can.
    keepLargestPart: whether only the largest part of each segment is kept after a run.
    """

    inputVolume: ImageVolume
    channel2: ImageVolume
    channel3: ImageVolume
    channel4: ImageVolume
    model: str = ""
    roi: slicer.vtkMRMLMarkupsROINode
    outputSegmentation: slicer.vtkMRMLSegmentationNode
    mirror: bool = False
    keepLargestPart: bool = False
