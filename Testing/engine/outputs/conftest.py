"""Models for the tests of outputs."""

import pytest

from tiny_model import make_tiny_package


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A model that leaves most of an image alone; its results are full of holes and single voxels."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_tiny_package(folder, spacing=None, patch_size=[16, 16, 16], seed=7)


@pytest.fixture(scope="session")
def flat(tmp_path_factory):
    """A model of single slices."""
    return make_tiny_package(tmp_path_factory.mktemp("models") / "flat", 2, patch_size=[16, 16], seed=8)
