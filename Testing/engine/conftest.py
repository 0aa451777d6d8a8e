"""Small models and volumes for the engine's tests."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads: spinning threads starve on a busy machine

import pytest

from prosma.image.geometry import Image
from small_volumes import smooth_volume
from tiny_model import make_tiny_package


@pytest.fixture
def trapped(tmp_path_factory, monkeypatch):
    """The current folder is somebody's who named files like libraries: the processes of a command import none of them."""
    folder = tmp_path_factory.mktemp("trapped")
    sprung = folder / "sprung.txt"
    trap = f"import pathlib; pathlib.Path({str(sprung)!r}).write_text('by ' + __file__)\n"
    for name in ("sitecustomize", "numpy", "torch", "json", "prosma", "SimpleITK"):
        (folder / f"{name}.py").write_text(trap)
    monkeypatch.chdir(folder)
    yield folder
    assert not sprung.exists(), sprung.read_text()


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


@pytest.fixture
def volume() -> Image:
    return smooth_volume()
