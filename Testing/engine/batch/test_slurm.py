"""The pages' ways onto a cluster with a real SLURM of one node: an array of jobs, and a Dask cluster by dask-jobqueue."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slurm import TIMEOUT, Slurm
from test_cli import names_in
from test_many_cases import make_images
from test_sharing import computed, digests

from prosma.batch.records import RECORDS
from tiny_model import make_tiny_package

PAGE = Path(__file__).resolve().parents[3] / "docs" / "many-cases.md"
NAMES = [f"case{number:02d}" for number in range(12)]
# Cases that take long enough for SLURM to come between.
SLOW = """
import os, sys, time
seconds = float(os.environ.get("PROSMA_TEST_SECONDS_A_CASE", "0"))
if seconds:
    from prosma.batch import loop
    original = loop.complete
    def complete(*arguments):
        time.sleep(seconds)
        return original(*arguments)
    loop.complete = complete
"""
pytestmark = pytest.mark.slow


def of_page(kind: str, word: str) -> str:
    """The block of this kind on the page in which the word is."""
    (found,) = [block for block in re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL) if word in block]
    return found


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with Slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def work(tmp_path_factory, slurm):
    """A folder with the images, the model and the page's files; the environment of a person who has `prosma`."""
    folder = tmp_path_factory.mktemp("work")
    make_tiny_package(folder / "MODEL")
    make_images(folder / "images", *NAMES)
    (folder / "segment.sbatch").write_text(of_page("bash", "SBATCH"))
    (folder / "dask").mkdir()
    (folder / "dask" / "jobqueue.yaml").write_text(of_page("yaml", "jobqueue"))
    (folder / "on_slurm.py").write_text(of_page("python", "SLURMCluster").replace("JOBS = 20", "JOBS = 2"))
    (folder / "planted").mkdir()
    (folder / "planted" / "sitecustomize.py").write_text(SLOW)
    slurm.environment |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(folder / "planted"), str(PAGE.parents[1] / "training")]),
        "DASK_CONFIG": str(folder / "dask"),
        "DASK_JOBQUEUE__SLURM__INTERFACE": "lo",
        "OMP_NUM_THREADS": "1",
    }
    return folder


@pytest.fixture(scope="module")
def expected(work, slurm):
    """The results of one process."""
    call(work, slurm, "prosma", "segment", "images/", "-m", "MODEL", "-o", "alone/")
    return digests(work / "alone")


@pytest.fixture
def results(work):
    """The folder of results of the page's commands, empty."""
    folder = work / "results"
    yield folder
    folder.rename(work / f"results-{len(list(work.iterdir()))}")


def call(work, slurm, *command, code: int | None = 0, **environment) -> str:
    done = subprocess.run(
        command,
        cwd=work,
        env=slurm.environment | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert code in (None, done.returncode), done.stdout + done.stderr
    return done.stdout


def check(results: Path, expected: dict, again: int = 0) -> None:
    """All results have the bytes of one process, and no more than `again` cases were computed twice."""
    assert digests(results) == expected
    assert sorted(computed(results)) == sorted(expected)
    assert computed(results).total() <= len(expected) + again
    assert names_in(results) == sorted([*expected, RECORDS])


def test_the_array_of_the_page_has_the_bytes_of_one_process(work, slurm, expected, results):
    call(work, slurm, "sbatch", "--wait", "--array=1-3", "--output=array-%a.log", "segment.sbatch")
    check(results, expected)
    told = [(work / f"array-{part}.log").read_text() for part in (1, 2, 3)]
    assert [text.count(".seg.nrrd  (") for text in told] == [4, 4, 4]


def test_what_slurm_ended_over_its_memory_the_same_call_does_with_more(work, slurm, expected, results):
    call(
        work, slurm, "sbatch", "--wait", "--array=1-2", "--mem=100M", "--output=small-%a.log", "segment.sbatch", code=1
    )
    assert "exceeded memory limit" in (work / "small-1.log").read_text()
    assert not digests(results)
    assert "0 of 12 cases are done" in call(work, slurm, "prosma", "report", "results/")
    call(work, slurm, "sbatch", "--wait", "--array=1-2", "segment.sbatch")
    check(results, expected)


def test_what_slurm_ended_at_its_time_the_same_call_goes_on_with(work, slurm, expected, results):
    command = ["sbatch", "--wait", "--array=1-2", "--time=0:01:00", "--output=late-%a.log", "segment.sbatch"]
    call(work, slurm, *command, code=None, PROSMA_TEST_SECONDS_A_CASE="25")  # by SLURM's mood 0 or 130
    assert 0 < len(digests(results)) < len(NAMES)
    told = (work / "late-1.log").read_text()
    assert "DUE TO TIME LIMIT" in told
    assert "prosma: Stopped." in told
    assert names_in(results) == sorted([*digests(results), RECORDS]), "claims are given up"
    call(work, slurm, *command)
    check(results, expected)


def test_a_dask_cluster_of_the_page_loses_a_job_and_no_case(work, slurm, expected, results):
    pytest.importorskip("dask_jobqueue")
    environment = slurm.environment | {"PROSMA_TEST_SECONDS_A_CASE": "1"}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([sys.executable, "on_slurm.py"], cwd=work, env=environment, **output)
    said = next(line for line in process.stdout if ".seg.nrrd  (" in line)
    running = [job for job, state in slurm.jobs().items() if state == "RUNNING"]
    slurm.says("scancel", running[0])
    said += process.communicate(timeout=TIMEOUT)[0]
    assert process.returncode == 0, said
    assert said.count(".seg.nrrd  (") == len(NAMES), said
    check(results, expected, again=1)  # one whose worker died between its record and its place
    deadline = time.monotonic() + TIMEOUT
    while slurm.jobs():
        assert time.monotonic() < deadline
        time.sleep(0.2)
