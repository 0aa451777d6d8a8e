"""Testing/benchmarks/cuda.sh where there is no card: it says so, and what it does with parts that fail or take too long."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from prosma.inference.devices import cuda_problem

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "Testing" / "benchmarks" / "cuda.sh"


@pytest.fixture(scope="module")
def cuda():
    spec = importlib.util.spec_from_file_location("cuda_script", SCRIPT.with_suffix(".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not cuda_problem(), reason="there is a card")
def test_without_a_card_nothing_runs_and_nothing_is_written(tmp_path):
    done = subprocess.run(
        ["bash", str(SCRIPT), str(tmp_path / "out.json")], capture_output=True, text=True, timeout=300, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Nothing was measured" in done.stderr and "--device cpu" in done.stderr
    assert not list(tmp_path.glob("*.json"))


def test_a_part_that_fails_or_takes_too_long_is_a_problem_and_the_others_run(cuda, tmp_path, monkeypatch, capsys):
    program = tmp_path / "part.py"
    program.write_text(
        "import sys, time\n"
        "name = sys.argv[2]\n"
        "if name == 'tests': sys.exit('there is no such test')\n"
        "if name == 'forward': time.sleep(100)\n"
        "print('{\"milliseconds\": 5}')\n"
    )
    monkeypatch.setattr(cuda, "__file__", str(program))
    monkeypatch.setattr(cuda, "PARTS", {"tests": 60, "forward": 2, "whole": 60, "training": 60})
    out = tmp_path / "out.json"
    assert cuda.main([str(out), "--device", "cpu"]) == 1
    parts = json.loads(out.read_text())["parts"]
    assert parts["tests"]["problem"] == "exit code 1: there is no such test"
    assert parts["forward"]["problem"] == "not done after 2 s"
    assert parts["whole"]["milliseconds"] == parts["training"]["milliseconds"] == 5
    assert "forward: not done" in capsys.readouterr().err
    assert cuda.main([str(out), "--device", "cpu", "--seconds", "0.5", "--only", "whole"]) == 1
    assert json.loads(out.read_text())["parts"]["whole"]["problem"] == "there was no time left"
    assert cuda.main([str(out), "--device", "cpu", "--only", "whole"]) == 0


def test_all_parts_together_end_within_eight_minutes(cuda):
    assert sum(cuda.PARTS.values()) <= 480


def test_training_steps_are_rehearsed_on_the_cpu(cuda):
    tables = cuda.training("cpu")["milliseconds"]
    for table in tables.values():
        assert table["prosma"] > 0 < table["attention"]
        assert isinstance(table["nnunet"], str) or table["nnunet"] > 0


def test_forward_passes_are_rehearsed_on_the_cpu(cuda, monkeypatch):
    monkeypatch.setattr(cuda, "timed", lambda run, device, times=0: run().shape[1])
    tables = cuda.forward("cpu")["milliseconds"]
    for table in tables.values():
        assert [row["plain"] for row in table["rows"]] == [row["half"] for row in table["rows"]] == [5] * 4


def test_a_whole_volume_is_rehearsed_on_the_cpu(cuda, monkeypatch):
    monkeypatch.setattr(cuda, "timed", lambda run, device, times=0: (run(), 1000)[1])
    result = cuda.whole("cpu")
    assert result["shape"] == [64, 48, 40] and result["ours"] == 1
    assert result["nnunet"] == 1 or "not installed" in result["nnunet"]
