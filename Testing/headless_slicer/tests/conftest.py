"""A started headless Slicer, and a fresh scene for each test."""

from pathlib import Path

import numpy as np
import pytest

import headless_slicer

MODULE = Path(__file__).parent / "module" / "Brightener.py"


@pytest.fixture
def slicer():
    headless_slicer.start()
    headless_slicer.newScene()
    import slicer

    yield slicer
    headless_slicer.newScene()


@pytest.fixture
def panel(slicer):
    """The example module's panel, in an empty scene."""
    widget = headless_slicer.loadModule(MODULE)
    yield widget
    headless_slicer.unloadModule("Brightener")


@pytest.fixture
def volume(slicer):
    """A volume of 100 x 80 x 60 voxels whose values rise along i and j."""
    _, j, i = np.mgrid[:60, :80, :100]
    array = (2 * i + j).astype(np.float32)
    return slicer.util.addVolumeFromArray(array, ijkToRAS=np.diag([1, 1, 1.5, 1.0]), name="Ramp")


@pytest.fixture
def segmentation(slicer, volume):
    """Two balls of 17.3 and 12.2 mm radius in the volume."""
    return addSegmentation(slicer, volume)


@pytest.fixture
def addBalls(slicer, volume):
    """A function that makes that segmentation, for tests that look at the scene before."""
    return lambda: addSegmentation(slicer, volume)


def addSegmentation(slicer, volume):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    k, j, i = np.mgrid[:60, :80, :100]
    for name, center, squared, color in (("red", 40, 300, (1, 0, 0)), ("green", 70, 150, (0, 1, 0))):
        node.GetSegmentation().AddEmptySegment(name, name, color)
        ball = ((i - center) ** 2 + (j - 40) ** 2 + (1.5 * (k - 30)) ** 2 < squared).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(ball, node, name, volume)
    return node
