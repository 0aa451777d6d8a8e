"""One training by several processes that torchrun or SLURM starts, on one machine and as on two: gloo, on the loopback."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from slurm import Slurm
from test_learning import data, small_recipe, weights  # noqa: F401

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT = 580  # seconds; the machine may be busy
EPOCHS, ITERATIONS = 3, 2
# The command `prosma`, which leaves behind what each process has after its training.
WITNESS = """
import os, sys, torch
import lightning.pytorch as pl
from prosma.cli import main
original = pl.Trainer.fit
def fit(trainer, task, *arguments, **options):
    original(trainer, task, *arguments, **options)
    facts = {"steps": trainer.global_step, "world": trainer.world_size, "backend": torch.distributed.get_backend(),
             "weights": {name: tensor.clone() for name, tensor in task.state_dict().items()}}
    torch.save(facts, os.path.join(os.environ["PROSMA_TEST_MARKS"], f"rank{trainer.global_rank}.pt"))
pl.Trainer.fit = fit
sys.exit(main(sys.argv[1:]))
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def torchrun(arguments: list[str], marks: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(marks / "train.py"), *arguments]
    environment = os.environ | environment_of(marks)
    return subprocess.Popen(
        command, env=environment, cwd=marks, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def environment_of(marks: Path) -> dict[str, str]:
    here = {"PYTHONPATH": str(ROOT / "training"), "PROSMA_TEST_MARKS": str(marks)}
    return here | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names the loopback as Linux does")
@pytest.mark.parametrize("where", ["one machine", "two machines"])
def test_two_processes_under_torchrun_take_the_same_steps_to_the_same_weights(where, data, tmp_path):  # noqa: F811
    run, marks, arguments = prepared(data, tmp_path)
    if where == "one machine":
        options = [["--standalone", "--nproc-per-node", "2"]]
        arguments += ["--devices", "2"]
    else:
        address = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
        options = [["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank), *address] for rank in range(2)]
        arguments += ["--devices", "1", "--nodes", "2"]
    processes = [torchrun(arguments, marks, *words) for words in options]
    said = [process.communicate(timeout=TIMEOUT) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    assert sum(out.count("Trained:") for out, _errors in said) == 1
    check(run, marks)


@pytest.mark.slow
def test_two_processes_that_slurm_starts_take_the_same_steps_to_the_same_weights(data, tmp_path):  # noqa: F811
    run, marks, arguments = prepared(data, tmp_path)
    (tmp_path / "slurm").mkdir()
    with Slurm(tmp_path / "slurm") as slurm:
        options = ["--nodes", "1", "--ntasks-per-node", "2", "--mem", "6000"]
        command = [
            "srun",
            *options,
            sys.executable,
            str(marks / "train.py"),
            *arguments,
            "--nodes",
            "1",
            "--devices",
            "2",
        ]
        environment = slurm.environment | environment_of(marks)
        done = subprocess.run(
            command, env=environment, cwd=marks, text=True, capture_output=True, timeout=TIMEOUT, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Trained:") == 1
    check(run, marks)


def prepared(data, tmp_path) -> tuple[Path, Path, list[str]]:  # noqa: F811
    """The folder of a run, that of what its processes leave behind, and the arguments of `prosma`."""
    recipe, run, marks = tmp_path / "recipe.yaml", tmp_path / "run", tmp_path / "marks"
    marks.mkdir()
    (marks / "train.py").write_text(WITNESS)
    recipe.write_text(yaml.safe_dump(small_recipe(epochs=EPOCHS, iterations=ITERATIONS, validate_every=1).to_dict()))
    return run, marks, ["train", str(recipe), "--data", str(data), "-o", str(run), "--workers", "0", "--device", "cpu"]


def check(run: Path, marks: Path) -> None:
    """Two processes took the same steps to the same weights, and the first one wrote them."""
    ranks = [torch.load(marks / f"rank{rank}.pt", weights_only=False) for rank in range(2)]
    for facts in ranks:
        assert (facts["steps"], facts["world"], facts["backend"]) == (EPOCHS * ITERATIONS, 2, "gloo")
    first, second = (facts["weights"] for facts in ranks)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert [path.name for path in run.glob("*.ckpt")] == ["last.ckpt"]
    kept = weights(run)
    assert all(torch.equal(kept[name], first[name]) for name in kept)
    history = json.loads((run / "history.json").read_text())
    assert len(history["epochs"]) == EPOCHS and "2 processes" in history["hardware"]
    assert np.isfinite([epoch["train/loss"] for epoch in history["epochs"]]).all()
