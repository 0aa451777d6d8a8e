from dataclasses import dataclass


@dataclass(frozen=True)
class Choices:
    """What is chosen in the panel at one moment.

    package: the model package, or None. volumes: the volumes for its channels that are chosen, in their order.
    segmentationNode: where the result goes, or None for a new one. roiNode: None for the whole volume.
    device: ``auto``, ``cpu``, ``cuda:0``, ... mirror: whether the image is segmented mirrored too.
    """

    package: object = None
    volumes: tuple = ()
    segmentationNode: object = None
    roiNode: object = None
    device: str = "auto"
    mirror: bool = False
