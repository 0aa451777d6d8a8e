"""No file of a job is removed or moved while it is mapped: Windows refuses that, so a run there would fail or leave files.

The worker of these tests runs in a process that refuses it too.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_worker import Engine

from small_volumes import smooth_volume
from tiny_model import make_tiny_package

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at mapped files in /proc")
AS_WINDOWS = """
import os

def refusing(function):
    def guarded(path, *arguments, **options):
        real = os.path.realpath(path)
        if any(line.rstrip().endswith(real) for line in open("/proc/self/maps")):
            raise PermissionError(13, "it is being used by another process", str(path))
        return function(path, *arguments, **options)
    return guarded

os.unlink = os.remove = refusing(os.unlink)
os.rename, os.replace = refusing(os.rename), refusing(os.replace)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return make_tiny_package(tmp_path_factory.mktemp("model") / "m", spacing=[2.0, 2.0, 2.0])


@pytest.fixture(scope="module")
def engine():
    worker = Engine(code=AS_WINDOWS + "import sys; from prosma.door.worker import main; main(sys.argv[1:])")
    yield worker
    worker.close()


def mapped(engine, folder):
    lines = Path(f"/proc/{engine.process.pid}/maps").read_text().splitlines()
    return [line.rpartition("/")[2] for line in lines if str(folder) in line]


def test_the_imitation_of_windows_refuses(tmp_path):
    code = (
        AS_WINDOWS
        + "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); os.unlink(sys.argv[1])"
    )
    (tmp_path / "a").write_bytes(b"1234")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True, check=False
    )
    assert "PermissionError" in done.stderr
    assert (tmp_path / "a").exists()


def test_a_run_leaves_nothing_mapped_and_only_what_it_names(engine, package, tmp_path):
    outputs = ["probabilities", "uncertainty", "gate_map"]
    engine.segment("a", package, tmp_path / "job", smooth_volume((40, 30, 20)), outputs=outputs)
    event, _progress = engine.answer("a")
    assert event["event"] == "result", event
    assert mapped(engine, tmp_path) == []
    named = {event["labels"]["file"], *(volume["file"] for volume in event["volumes"].values())} - {None}
    assert set(os.listdir(tmp_path / "job")) == {"channel0.npy", *named}


def test_a_cancelled_run_leaves_nothing_mapped_and_none_of_its_files(engine, package, tmp_path):
    engine.segment("b", package, tmp_path / "job", smooth_volume((160, 160, 100)), outputs=["probabilities"])
    while True:
        event = engine.event()
        if event.get("stage") == "Segmenting":
            break
    assert mapped(engine, tmp_path), "else this would show nothing"
    engine.send(id="c", do="cancel", job="b")
    event, _progress = engine.answer("b")
    assert event["code"] == "cancelled"
    assert mapped(engine, tmp_path) == []
    assert os.listdir(tmp_path / "job") == ["channel0.npy"]


def test_a_run_that_fails_amid_leaves_nothing_mapped(engine, package, tmp_path):
    """A file in the way of the last result: everything before was made."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "labels.npy").mkdir()
    engine.segment("d", package, tmp_path / "job", smooth_volume((40, 30, 20)), outputs=["probabilities"])
    event, _progress = engine.answer("d")
    assert event["event"] == "error"
    assert mapped(engine, tmp_path) == []
    assert sorted(os.listdir(tmp_path / "job")) == ["channel0.npy", "labels.npy"]
