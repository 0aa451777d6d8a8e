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
