"""A Dask cluster of real processes: every case once, whoever dies, with the bytes of one process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from test_cli import names_in, run
from test_many_cases import make_images, report_of
from test_sharing import computed, digests, plant_crashes, started

from prosma import __version__
from prosma.batch.records import RECORDS
from prosma.cli import exit_codes
from remedies import complained, tries

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
ROOT = Path(__file__).resolve().parents[3]
TIMEOUT = 300  # seconds; the machine may be busy
NAMES = [f"case{number:02d}" for number in range(10)]
WITHOUT_PROSMA = """
import sys
class Hidden:
    def find_spec(self, name, *more):
        if name == "prosma":
            raise ModuleNotFoundError("No module named 'prosma'")
sys.meta_path.insert(0, Hidden())
"""
pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes as on POSIX")


def planted() -> list[str]:
    return [os.environ["PYTHONPATH"]] if "PROSMA_TEST_PROCESSES" in os.environ else []


class Processes:
    """`dask scheduler` and `dask worker`, as people start them."""

    def __init__(self, folder: Path, workers: int):
        self.file = folder / "scheduler.json"
        self.folder, self.workers = folder, workers
        self.log = (folder / "log.txt").open("wb")
        self.processes = []
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        deadline = time.monotonic() + TIMEOUT
        while not self.file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.start_workers()
        self.client = distributed.Client(scheduler_file=str(self.file), set_as_default=False)
        self.client.wait_for_workers(workers, timeout=TIMEOUT)

    def start_workers(self) -> None:
        options = [
            "--nthreads",
            "1",
            "--nworkers",
            self.workers,
            "--memory-limit",
            "0",
            "--local-directory",
            self.folder,
        ]
        self._start("worker", *options)

    def _start(self, *words) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*planted(), str(ROOT / "training")])}
        command = [sys.executable, "-m", "dask", *words, "--scheduler-file", self.file, "--no-dashboard"]
        options = {"cwd": self.folder, "env": environment, "stdout": self.log, "stderr": self.log}
        self.processes.append(subprocess.Popen([str(word) for word in command], **options))

    def worker_processes(self) -> list[int]:
        return list(self.client.run(os.getpid).values())

    def close(self):
        # one that is just starting in place of a killed one would wait for ever for a scheduler that is gone
        self.client.wait_for_workers(self.workers, timeout=TIMEOUT)
        self.client.close()
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            process.wait(TIMEOUT)
        self.log.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    processes = Processes(tmp_path_factory.mktemp("cluster"), 2)
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def batch(tmp_path_factory, tiny):
    """Images, and their results by one process."""
    folder = tmp_path_factory.mktemp("batch")
    images = make_images(folder / "images", *NAMES)
    assert run("segment", images, "-m", tiny.folder, "-o", folder / "alone") == 0
    return images, digests(folder / "alone")


def kill_a_worker_in_the_middle(cluster, images, model, out) -> dict:
    """The report of a batch during which one worker is killed after the first case."""
    process = started(
        *(images, "-m", model, "-o", out, "--scheduler", cluster.file, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert json.loads(process.stdout.readline())["event"] == "case"
    os.kill(cluster.worker_processes()[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == exit_codes.DONE
    return report_of(said)


def check_all_once(out: Path, expected: dict, report: dict) -> None:
    assert digests(out) == expected
    assert sorted(f"{case['case']}.seg.nrrd" for case in report["cases"]) == sorted(expected)
    again = [name for name, times in computed(out).items() if times > 1]
    assert len(again) <= 1, "none but one whose worker was killed between its record and its place"
    assert names_in(out) == sorted([*expected, RECORDS])


def test_a_cluster_does_every_case_once_though_a_worker_is_killed(cluster, batch, tiny, tmp_path, capsys):
    images, expected = batch
    out = tmp_path / "out"
    report = kill_a_worker_in_the_middle(cluster, images, tiny.folder, out)
    check_all_once(out, expected, report)
    assert run("segment", images, "-m", tiny.folder, "-o", out, "--scheduler", cluster.file, "--json") == 0
    assert {case["skipped"] for case in report_of(capsys.readouterr().out)["cases"]} == {"finished"}


@tries("batch/cluster.py: Set DASK_SCHEDULER_ADDRESS")
@tries("batch/cluster.py: and it is no address of a scheduler")
@tries("batch/cluster.py: is no file of a Dask scheduler")
def test_the_scheduler_may_be_that_of_dasks_configuration(cluster, batch, tiny, tmp_path, capsys):
    images, expected = batch
    command = ["segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--scheduler", "config"]
    assert run(*command) == exit_codes.FAILED
    assert "Dask's configuration names no scheduler" in capsys.readouterr().err
    (tmp_path / "empty.json").write_text("")
    for address, words in ((tmp_path / "none.json", "There is no file"), (tmp_path / "empty.json", "is no file of")):
        assert run(*command[:-1], address) == exit_codes.FAILED
        said = capsys.readouterr().err
        assert words in said and "or tcp://HOST:PORT" in said
    assert (
        run(*command[:-1], json.loads(cluster.file.read_text())["address"], "-o", tmp_path / "first") == exit_codes.DONE
    )
    with dask.config.set({"scheduler-address": cluster.client.scheduler.address}):
        assert run(*command) == exit_codes.DONE
    assert digests(tmp_path / "out") == expected


def test_failures_on_a_cluster_are_named_and_the_rest_is_done(cluster, tiny, tmp_path, capsys):
    images = make_images(tmp_path / "images", "a", "b")
    (images / "broken.nrrd").write_bytes(b"x")
    address = json.loads(cluster.file.read_text())["address"]
    out = tmp_path / "out"
    assert run("segment", images, "-m", tiny.folder, "-o", out, "--scheduler", address, "--json") == 3
    cases = {case["case"]: case for case in report_of(capsys.readouterr().out)["cases"]}
    assert {name: "error" in case for name, case in cases.items()} == {"a": False, "b": False, "broken": True}
    assert cases["broken"]["error"]["code"] == "bad_input"
    assert Counter(case.get("device") for case in cases.values()) == {"cpu": 2, None: 1}


def test_a_worker_on_which_nothing_can_be_done_ends_the_batch_with_a_sentence(cluster, tiny, tmp_path, capsys):
    images = make_images(tmp_path / "images", "a")
    command = ["segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--scheduler", cluster.file]
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    assert run(*command, "--device", "cuda") == exit_codes.FAILED
    assert "On a worker: CUDA was not used" in capsys.readouterr().err
    assert not digests(tmp_path / "out")


def test_no_scheduler_and_no_library_are_told(tiny, tmp_path, capsys, monkeypatch):
    images = make_images(tmp_path / "images", "a")
    command = ["segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--scheduler"]
    monkeypatch.setattr("prosma.batch.cluster.CONNECTING_S", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        assert run(*command, address) == exit_codes.FAILED
        assert f"There is no Dask scheduler at {address}" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(*command, "tcp://127.0.0.1:1") == exit_codes.FAILED
    assert "pip install './training[cluster]'" in capsys.readouterr().err
    assert run(*command, "tcp://127.0.0.1:1", "--workers", "2") == exit_codes.MISUSED


@pytest.mark.slow
def test_sixty_cases_on_three_workers_of_which_one_is_killed(tiny, tmp_path):
    images = make_images(tmp_path / "images", *(f"case{number:02d}" for number in range(60)))
    assert run("segment", images, "-m", tiny.folder, "-o", tmp_path / "alone") == 0
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Processes(folder, 3)
    try:
        report = kill_a_worker_in_the_middle(cluster, images, tiny.folder, tmp_path / "out")
    finally:
        cluster.close()
    check_all_once(tmp_path / "out", digests(tmp_path / "alone"), report)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("planted_code", "told"),
    [
        (WITHOUT_PROSMA, "has none (ModuleNotFoundError(\"No module named 'prosma'\"))"),
        ("import prosma; prosma.__version__ = '0.0.1'", f"has version 0.0.1, and this is {__version__}"),
    ],
)
def test_workers_without_this_prosma_are_told(planted_code, told, cluster, tiny, tmp_path, capsys, monkeypatch):
    images = make_images(tmp_path / "images", "a")
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "sitecustomize.py").write_text(planted_code)
    (tmp_path / "cluster").mkdir()
    with monkeypatch.context() as environment:
        environment.setenv("PYTHONPATH", str(tmp_path / "planted"))
        environment.setenv("PROSMA_TEST_PROCESSES", "all")
        others = Processes(tmp_path / "cluster", 1)
    command = ["segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--scheduler"]
    name, remedy = "batch/cluster_worker.py: Install the same version", "Install the same version of it for the Python"
    assert told in complained(name, remedy, [*command, others.file], capsys)
    others.close()
    assert run(*command, cluster.file) == exit_codes.DONE


@pytest.mark.slow
def test_a_worker_of_another_version_that_comes_in_the_middle_ends_the_batch(tiny, tmp_path, monkeypatch):
    images = make_images(tmp_path / "images", *(f"case{number:03d}" for number in range(150)))
    for name, content in (("planted", "import prosma; prosma.__version__ = '0.0.1'"), ("cluster", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(content)
    cluster = Processes(tmp_path / "cluster", 1)
    command = (images, "-m", tiny.folder, "-o", tmp_path / "out", "--scheduler", cluster.file, "--json")
    batch = started(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert json.loads(batch.stdout.readline())["event"] == "case"
    with monkeypatch.context() as environment:
        environment.setenv("PYTHONPATH", str(tmp_path / "planted"))
        environment.setenv("PROSMA_TEST_PROCESSES", "all")
        cluster.start_workers()
    errors = batch.communicate(timeout=TIMEOUT)[1]
    assert batch.returncode == exit_codes.FAILED
    assert f"has version 0.0.1, and this is {__version__}. Install the same version of it" in errors
    cluster.close()


@pytest.mark.slow
@tries("batch/cluster.py: Start a scheduler and workers again")
def test_a_scheduler_that_goes_away_is_told_and_the_same_call_goes_on(tiny, tmp_path, cluster, capsys):
    images = make_images(tmp_path / "images", *(f"case{number:02d}" for number in range(30)))
    folder = tmp_path / "cluster"
    folder.mkdir()
    lost = Processes(folder, 1)
    out = tmp_path / "out"
    command = ["segment", images, "-m", tiny.folder, "-o", out, "--scheduler"]

    def kill_it() -> None:
        while not digests(out):
            time.sleep(0.01)
        for each in lost.processes:
            each.kill()

    killer = threading.Thread(target=kill_it, daemon=True)
    killer.start()
    assert run(*command, lost.file) == exit_codes.FAILED
    killer.join(TIMEOUT)
    lost.client.close()
    lost.log.close()
    told = capsys.readouterr().err
    assert "The connection to the Dask scheduler was lost. Start a scheduler and workers again" in told
    done = len(digests(out))
    assert done < 30
    assert run(*command, cluster.file) == exit_codes.DONE
    assert capsys.readouterr().out.count("was there already") >= done
    assert len(digests(out)) == 30


@pytest.mark.slow
def test_a_cluster_without_workers_is_told_and_goes_on_with_new_ones(batch, tiny, tmp_path):
    images, expected = batch
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Processes(folder, 1)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = started(images, "-m", tiny.folder, "-o", tmp_path / "out", "--scheduler", cluster.file, **options)
    process.stdout.readline()
    cluster.processes[1].kill()  # which would start a new worker in place of the one that goes with it
    os.kill(cluster.worker_processes()[0], signal.SIGKILL)
    assert any("The cluster has no worker any more" in line for line in process.stderr)
    cluster.start_workers()
    process.communicate(timeout=TIMEOUT)
    cluster.close()
    assert process.returncode == exit_codes.DONE
    assert digests(tmp_path / "out") == expected


@pytest.mark.slow
def test_a_case_over_which_workers_die_is_one_named_failure(tiny, tmp_path, capfd, monkeypatch):
    images = make_images(tmp_path / "images", "a", "b", "c", "dies", "dies-once")
    plant_crashes(tmp_path / "planted", "spawn_main", monkeypatch)
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Processes(folder, 2)
    try:
        code = run("segment", images, "-m", tiny.folder, "-o", tmp_path / "out", "--scheduler", cluster.file, "--json")
    finally:
        cluster.close()
    assert code == exit_codes.SOME_FAILED
    cases = {case["case"]: case for case in report_of(capfd.readouterr().out)["cases"]}
    assert {name for name, case in cases.items() if "error" in case} == {"dies"}
    assert cases["dies"]["error"]["code"] == "out_of_memory"
    assert "died one after the other" in cases["dies"]["error"]["message"]
    assert set(digests(tmp_path / "out")) == {f"{name}.seg.nrrd" for name in ("a", "b", "c", "dies-once")}
