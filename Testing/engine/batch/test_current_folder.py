"""Images of somebody whose folder holds files that are named like libraries: no process of a command imports them."""

import subprocess
import sys

import pytest
from test_cli import names_in, run
from test_many_cases import make_images

from prosma.batch.records import RECORDS


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_batch_imports_nothing_from_the_current_folder(trapped, tiny, tmp_path, workers):
    make_images(trapped, "one", "two")
    assert run("segment", ".", "-m", tiny.folder, "-o", tmp_path / "out", "--workers", workers) == 0
    assert names_in(tmp_path / "out") == ["one.seg.nrrd", RECORDS, "two.seg.nrrd"]


def test_the_traps_work(trapped):
    done = subprocess.run([sys.executable, "-m", "json"], capture_output=True, check=False, text=True)
    assert not done.stdout and not done.stderr.startswith("usage")
    assert "json.py" in (trapped / "sprung.txt").read_text()
    (trapped / "sprung.txt").unlink()
