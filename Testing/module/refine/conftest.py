"""The phantom of the tests of Refine."""

import pytest
from phantom import Ball


@pytest.fixture
def ball(panel):
    """A volume with a bright ball, and a segment of it that lacks the top."""
    return Ball(panel)
