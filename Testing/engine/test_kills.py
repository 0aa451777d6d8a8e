"""A few random kills of each kind of work; Testing/kills.py has the 200."""

import sys

import kills
import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills by signals")
@pytest.mark.parametrize("kind", kills.KINDS)
def test_random_kills_lose_nothing_and_leave_nothing(kind, tmp_path):
    done, faults = kills.run(kind, 3, tmp_path, seed=1)
    assert (done, faults) == (3, [])
