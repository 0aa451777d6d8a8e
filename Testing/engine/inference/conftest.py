"""Segmenters for the tests of inference."""

import pytest

from prosma.inference.segmenter import Segmenter
from tiny_model import make_tiny_package


@pytest.fixture(scope="module")
def segmenter(tiny):
    return Segmenter(tiny, "cpu")


@pytest.fixture(scope="module")
def resampling_package(tmp_path_factory):
    return make_tiny_package(tmp_path_factory.mktemp("m") / "m", spacing=[2.0, 2.0, 2.0], patch_size=[16, 16, 16])
