"""Small models and volumes for the engine's tests."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads: spinning threads starve on a busy machine

import numpy as np
import pytest

from prosma.image import Image
from tiny_model import make_tiny_package


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A 3D model that takes any grid as it is."""
    return make_tiny_package(tmp_path_factory.mktemp("models") / "tiny", spacing=None, patch_size=[16, 16, 16])


@pytest.fixture(scope="session")
def tiny_flat(tmp_path_factory):
    """A 2D model for colour images, which sees them at 48 x 32."""
    return make_tiny_package(
        tmp_path_factory.mktemp("models") / "tiny-flat",
        dimension=2,
        channels=3,
        resize=[48, 32],
        patch_size=[48, 32],
        intensity={"rule": "range", "low": 0, "high": 255},
        mirror_axes=[0, 1],
    )


def smooth_volume(shape=(24, 20, 18), channels=1, seed=0, matrix=None) -> Image:
    """An int16 volume with structure, so that a network's answer varies."""
    random = np.random.default_rng(seed)
    coarse = random.normal(size=(channels, *(-(-n // 4) for n in shape)))
    array = coarse.repeat(4, 1).repeat(4, 2).repeat(4, 3)[:, : shape[0], : shape[1], : shape[2]]
    array = (400 * array + 20 * random.normal(size=array.shape)).astype(np.int16)
    return Image(np.ascontiguousarray(array), np.diag([1.0, 1.2, 1.5, 1.0]) if matrix is None else matrix)


@pytest.fixture
def volume() -> Image:
    return smooth_volume()
