"""Settings and data shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# A busy machine is no reason to fail; the examples are few, because most of them run a network.
settings.register_profile("prosma", deadline=None, max_examples=25)
settings.load_profile("prosma")


def shared_data() -> Path:
    """The folder of labelled images that lies beside the repository on developers' machines."""
    return Path(os.environ.get("PROSMA_SHARED_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture
def shared() -> Path:
    """`shared_data()`; the test is skipped, with the reason, where there is none."""
    folder = shared_data()
    if not folder.is_dir():
        pytest.skip(f"the labelled images are not here ('{folder.name}' beside the repository, or PROSMA_SHARED_DATA)")
    return folder


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory, monkeypatch):
    """Imported models and unpacked archives of a test never reach the user's own folder."""
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path_factory.mktemp("home")))
