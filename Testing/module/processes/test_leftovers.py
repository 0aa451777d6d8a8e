"""What a killed Slicer leaves goes when the next one starts, and what a living one uses stays."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hosts import HOST, exists, run_host, started_host

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")


@pytest.mark.slow
def test_leftovers_of_a_killed_slicer_go_and_those_of_a_living_one_stay(environment, tmp_path):
    """Three real processes with one temporary folder: one is killed amid a run, one is amid a run, one starts."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment["SLICER_TEMPORARY"] = str(temporary)
    (temporary / "prosma-job-notes").mkdir()  # somebody else's: no name that ProSMA gives
    killed = started_host(environment, "linger", "slow")
    killed.process.kill()
    killed.process.wait()
    end = time.monotonic() + 60
    while exists(killed.facts["engine"]) and time.monotonic() < end:
        time.sleep(0.05)
    left = {name: list((temporary / name).iterdir()) for name in os.listdir(temporary) if name != "prosma-job-notes"}
    kinds = {name.split("-")[1]: files for name, files in left.items()}
    assert kinds["kept"], "the class probabilities of the first run"
    living = started_host(environment, "linger", "slow")
    try:
        used = set(os.listdir(temporary)) - {*left, "prosma-job-notes"}
        assert {name.split("-")[1] for name in used} == {"job", "kept"}
        assert not set(left) & set(os.listdir(temporary)), "the next Slicer's start removes them"
        facts = run_host(environment, "look", "slow")
        assert set(facts["files"]) == used | {"prosma-job-notes"}
        assert exists(living.facts["engine"]), "and the living one goes on"
        kept = next(name for name in used if name.startswith("prosma-kept-"))
        assert list((temporary / kept).iterdir())
    finally:
        living.process.kill()
        living.process.wait()


def test_a_process_id_that_was_given_again_does_not_protect(panel, tmp_path):
    from ProSMASegmentationLib.Base import OwnedFolder

    own = OwnedFolder.newFolder("prosma-job-", tmp_path)
    assert OwnedFolder.isAbandoned(own, "prosma-job-") is False
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        start = OwnedFolder.startOf(other.pid)
        assert start and start != OwnedFolder.startOf(os.getpid())
        of_other = own.name.replace(f"-{os.getpid()}-", f"-{other.pid}-")  # its number, and another start
        assert OwnedFolder.isAbandoned(tmp_path / of_other, "prosma-job-") is True
        other.kill()
    assert OwnedFolder.startOf(other.pid) == ""
    elsewhere = own.name.replace(own.name.split("-")[2], "00000000")
    assert OwnedFolder.isAbandoned(tmp_path / elsewhere, "prosma-job-") is None, "of another computer nothing is known"


def test_the_way_of_other_systems_tells_starts_apart_too():
    """What macOS takes is there on Linux as well."""
    from ProSMASegmentationLib.Base.OwnedFolder import _startOnUnix

    assert _startOnUnix(os.getpid()) == _startOnUnix(os.getpid()) != ""
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        other.wait()
    assert _startOnUnix(other.pid) == ""


def test_a_case_that_a_killed_slicer_was_saving_does_not_stay(panel, tmp_path):
    """Its folder in the data set goes as soon as its Slicer is gone, and not before."""
    from ProSMASegmentationLib.Base import OwnedFolder
    from ProSMASegmentationLib.Learn.TrainingFolder import WRITING, TrainingFolder

    code = "import sys; from pathlib import Path; import headless_slicer; headless_slicer.start(); "
    code += "from ProSMASegmentationLib.Base import OwnedFolder; "
    code += f"print(OwnedFolder.newFolder({WRITING!r}, Path(sys.argv[1])), flush=True); input()"
    paths = os.pathsep.join([str(HOST.parents[1]), str(HOST.parents[2] / "ProSMASegmentation")])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as other:
        stage = Path(other.stdout.readline().strip())
        TrainingFolder(tmp_path).finishInterrupted()
        assert stage.is_dir()
        assert OwnedFolder.isAbandoned(stage, WRITING) is False
        other.kill()
    TrainingFolder(tmp_path).finishInterrupted()
    assert not stage.exists()
