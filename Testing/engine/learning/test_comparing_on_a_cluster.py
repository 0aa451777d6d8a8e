"""`prosma compare --scheduler`: the grid's runs on a Dask cluster of real processes, the same as in one process."""
# ruff: noqa: F811

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from slurm import Slurm
from test_comparing import data, finished, written  # noqa: F401

from prosma.cli import exit_codes, main

sys.path.append(str(Path(__file__).parents[1] / "batch"))
from test_cluster import Processes

ROOT = Path(__file__).resolve().parents[3]
distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes as on POSIX")
NAMES = ("plain-seed1", "decoder-seed1", "plain-seed2", "decoder-seed2")


def scores(folder: Path, name: str) -> dict:
    return json.loads((folder / name / "scores.json").read_text())["scores"]


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    processes = Processes(folder, 2)
    yield processes
    processes.close()


@pytest.mark.slow
def test_a_grid_on_a_cluster_gives_the_scores_of_one_process_though_a_worker_dies(
    cluster,
    finished,
    data,
    tmp_path,
    capsys,
    monkeypatch,
):
    runs, grid = tmp_path / "runs", str(finished / "grid.yaml")
    command = [
        "compare",
        grid,
        "--data",
        str(data),
        "-o",
        str(runs),
        "--scheduler",
        str(cluster.file),
        "--threads",
        "1",
    ]
    from prosma.batch.cluster import Connection

    original = Connection.each

    def each(connection, function, jobs):
        for number, entry in enumerate(original(connection, function, jobs)):
            if number == 0:
                os.kill(cluster.worker_processes()[0], signal.SIGKILL)
            yield entry

    monkeypatch.setattr(Connection, "each", each)
    assert main(command) == 0
    said = capsys.readouterr()
    # one whose worker died between its end and the report of it is asked for again, and was done before
    assert all(f"{name}: Dice" in said.err or f"{name}: done before" in said.err for name in NAMES)
    for name in NAMES:
        assert scores(runs, name) == scores(finished / "runs", name), name
    assert json.loads((runs / "comparison.json").read_text())["missing"] == []
    assert main(command) == 0
    assert capsys.readouterr().err.count("done before") == len(NAMES)

    shutil.rmtree(runs / "plain-seed2")
    (runs / "plain-seed2").write_text("in the way")
    assert main(command) == exit_codes.SOME_FAILED
    told = capsys.readouterr().err
    assert "prosma: plain-seed2: " in told and "1 of 4 runs failed: plain-seed2." in told


@pytest.mark.slow
def test_a_grid_on_slurm_by_dask_jobqueue_gives_the_scores_of_one_process(
    finished, data, tmp_path, capsys, monkeypatch
):
    jobqueue = pytest.importorskip("dask_jobqueue")
    (tmp_path / "slurm").mkdir()
    with Slurm(tmp_path / "slurm") as slurm:
        for name, value in (slurm.environment | {"PYTHONPATH": str(ROOT / "training")}).items():
            monkeypatch.setenv(name, value)
        job = {"cores": 1, "processes": 1, "memory": "3GB", "interface": "lo", "log_directory": str(tmp_path / "logs")}
        with jobqueue.SLURMCluster(**job, scheduler_options={"dashboard_address": ":0"}) as cluster:
            cluster.scale(jobs=2)
            cluster.wait_for_workers(1)
            runs = tmp_path / "runs"
            command = ["compare", finished / "grid.yaml", "--data", data, "-o", runs, "--threads", "1"]
            assert main([*map(str, command), "--scheduler", cluster.scheduler_address]) == 0, capsys.readouterr().err
    for name in NAMES:
        assert scores(runs, name) == scores(finished / "runs", name), name
