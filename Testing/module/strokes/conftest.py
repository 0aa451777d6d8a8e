"""The phantom of the tests of strokes, and models that answer them."""

import shutil

import pytest
import scenes
from phantom import Ball

from tiny_model import make_tiny_promptable


@pytest.fixture
def ball(panel):
    """A volume with a bright ball, and a segment of it that lacks the top."""
    return Ball(panel)


@pytest.fixture
def install(panel, models):
    """Installs a model for strokes in volumes (3) or pictures (2), until the test ends; its package."""
    folders = []

    def installed(dimension=3, **overrides):
        folder = models.home / "models" / f"strokes-{dimension}d-test"
        folders.append(folder)
        package = make_tiny_promptable(folder, dimension, id=folder.name, name="Strokes", **overrides)
        scenes.keep_models_for_strokes(panel, *(folder.name for folder in folders))
        return package

    yield installed
    for folder in folders:
        shutil.rmtree(folder)
    scenes.read_models_again(panel)
