import typing

import slicer
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper

LONGEST_QUOTE = 60  # characters of a value that is quoted
IMAGES = ("inputVolume", "channel2", "channel3", "channel4")
IMAGE_KEYS = tuple(
    f"{name}_{member}" for name in IMAGES for member in range(2)
)  # a union's members have keys of their own
NODE_CLASSES = {
    **dict.fromkeys(IMAGE_KEYS, "vtkMRMLScalarVolumeNode"),
    "roi": "vtkMRMLMarkupsROINode",
    "outputSegmentation": "vtkMRMLSegmentationNode",
}
SWITCHES = ("mirror", "keepLargestPart")

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


def mendParameters(node):
    """Put the default in place of each value that a scene, or a script, gave the wrong type.

    :param node: the vtkMRMLScriptedModuleNode behind a ParameterNode.
    :return: a sentence for each value that was replaced.
    """
    sentences = []
    for name in SWITCHES:
        value = node.GetParameter(name)
        if node.HasParameter(name) and value not in ("True", "False"):
            node.SetParameter(name, "False")
            text = _("The scene's setting '{name}' was '{value}', which is neither on nor off: it is off now.")
            sentences.append(text.format(name=name, value=value[:LONGEST_QUOTE]))
    for name, kind in NODE_CLASSES.items():
        chosen = node.GetNodeReference(name)
        if chosen is not None and not chosen.IsA(kind):
            node.SetNodeReferenceID(name, None)
            text = _("The scene's setting '{name}' was '{node}', which is of another kind: nothing is chosen now.")
            sentences.append(text.format(name=name.partition("_")[0], node=chosen.GetName()))
    return sentences
