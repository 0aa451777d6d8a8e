"""`prosma benchmark`: what it counts is right, and what it writes says so."""

import json
import sys

import pytest
import torch

from prosma.benchmarking.forward import measure_forward
from prosma.benchmarking.process import measure
from prosma.benchmarking.report import epoch_line, markdown
from prosma.benchmarking.rounds import median_row, ratios
from prosma.benchmarking.subjects import body_volume
from prosma.benchmarking.training import OURS, Subject, measure_steps
from prosma.benchmarking.training_epoch import measure_epoch
from prosma.benchmarking.training_subjects import STEPS, random_patches
from prosma.cli import benchmark, main
from remedies import tries

SMALL = {
    "subject": "prosma",
    "shape": (48, 40, 24),
    "classes": 3,
    "patch": (16, 16, 16),
    "features": (4, 8),
    "overlap": 0.0,
}
MACHINE = {"processor": "P", "instructions": [], "cores": 2, "threads": 1, "memory_gb": 8.0, "system": "S", "load": 0.1}


def row(name: str, seconds: float) -> dict:
    return {
        "name": name,
        "shape": [256, 256, 160],
        "classes": 5,
        "voxels": 256 * 256 * 160,
        "tiles": 75,
        "timed": 3,
        "processor_network": seconds - 1,
        "processor_rest": 1.0,
        "processor_seconds": seconds,
        "wall_seconds": seconds,
        "peak_bytes": 2**28,
        "process_bytes": 2**29,
    }


def test_timing_a_few_tiles_runs_the_whole_volume_and_counts_all_tiles():
    every, few = measure(SMALL), measure({**SMALL, "timed_tiles": 2})
    assert every["tiles"] == every["timed"] == few["tiles"] > 2 == few["timed"]
    for clock in ("processor", "wall"):
        assert few[f"{clock}_seconds"] == pytest.approx(few[f"{clock}_network"] + few[f"{clock}_rest"])
        assert every[f"{clock}_network"] > 0
    assert every["voxels"] == 48 * 40 * 24


def test_the_volume_is_a_body_in_air():
    volume = body_volume((50, 40, 3))
    assert volume.shape == (50, 40, 3)
    body = volume > -500
    assert body[25, 20].all()
    assert not body[:4].any()
    assert 0.35 < body.mean() < 0.5


def test_the_report_compares_with_ours_and_says_what_is_missing():
    report = {
        "date": "2026-01-01",
        "machine": {**MACHINE, "python": "3.11", "torch": "2", "card": None},
        "clock": "processor",
        "full": False,
        "rounds": 1,
        "whole": [
            row("ProSMA, defaults", 20.0),
            {**row("MONAI, as shipped", 170.0), **ratios(row("", 170.0), row("", 20.0))},
            {**row("nnU-Net, as shipped", 1.0), "problem": "'nnunetv2' is not installed here"},
        ],
        "growth": [row("", 20.0)],
        "forward": measure_forward(1, torch.get_num_threads(), {"3d": (1, 1, 32, 32, 32)}),
    }
    text = markdown(report)
    assert "| plain | fast |" in text
    assert "3D: 1 x 1 x 32 x 32 x 32, float32, peak" in text
    assert "| MONAI, as shipped | 75 | 169.0 | 1.0 | 170.0 | 8.5 x | 8 x | 6.4 x |" in text
    assert "not measured: 'nnunetv2' is not installed here" in text
    assert "the first tiles only" in text
    assert "| 256 x 256 x 160 | 5 | 75 | 19.0 | 1.00 | 1.91 | 512 MB |" in text


def test_multiplications_are_counted_as_the_network_has_them_and_as_they_are_done():
    rows = measure_forward(1, torch.get_num_threads(), {"2d": (4, 1, 128, 128)})["tables"]["2d"]["rows"]
    rows = [row for row in rows if row["network"] == "plain" and "bfloat16" not in row["way"]]
    done = {row["way"]: row["done_share_of_peak"] / row["share_of_peak"] for row in rows}
    assert done["as it is"] == 1
    assert 0.85 < done["fast"] < 0.96  # the decoder's upsampling and the convolution after it are one


def test_rounds_are_put_together_by_their_medians():
    rows = [row("a", seconds) for seconds in (5.0, 3.0, 40.0)]
    assert median_row(rows)["processor_seconds"] == 5.0
    assert median_row([rows[0], {**rows[1], "problem": "no"}])["problem"] == "no"
    together = [{**each, **ratios(each, {**each, "processor_seconds": 2.0})} for each in rows]
    assert median_row(together)["processor_ratio"] == 2.5
    assert ratios(rows[0], {"problem": "no"}) == {}


@pytest.mark.slow
def test_training_steps_of_all_run_in_turn_and_ours_is_the_measure():
    rows = [
        (OURS, {"subject": "prosma", "allocator": True}),
        ("MONAI UNet", {"subject": "unet"}),
        ("nobody's", {"subject": "nobody"}),
    ]
    small = {"features": [4, 8]}
    found = measure_steps((1, 1, 16, 16, 16), 2, 1, sys.executable, rows, small)
    assert (found["clock"], found["rounds"], found["threads"]) == ("processor", 2, 1)
    ours, *others, missing = found["rows"]
    assert ours["ratio"] == 1
    for row in (ours, *others):
        assert 0 < row["best_seconds"] <= row["seconds"]
        assert row["ratio"] > 0 < row["peak_bytes"]
    assert "nobody" in missing["problem"]
    report = {"date": "d", "machine": {**MACHINE, "python": "3", "torch": "2", "card": None}, "clock": "processor"}
    text = markdown({**report, "full": False, "rounds": 2, "training": [found]})
    assert "1 x 1 x 16 x 16 x 16, 1 thread, processor time, 2 rounds" in text
    assert "| nobody's | not measured: " in text


def test_an_epoch_with_its_data_is_measured_against_its_steps():
    task = {"epoch": True, "allocator": True, "iterations": 3, "rounds": 2, "shape": [2, 1, 16, 16, 16]}
    found = measure_epoch({**task, "features": [4, 8], "workers": 0})
    assert (found["iterations"], found["rounds"], found["shape"]) == (3, 2, [2, 1, 16, 16, 16])
    assert found["ratio"] > 0 < found["epoch_seconds"] and found["steps_seconds"] >= 0
    assert "3 steps with its data" in epoch_line(found)
    assert "was not measured: it was ended" in epoch_line({"problem": "it was ended by signal 9"})


def test_a_subject_that_dies_between_two_steps_says_so(trapped):
    task = {"subject": "unet", "shape": [1, 1, 16, 16], "features": [4, 8]}
    subject = Subject("MONAI UNet", task, 1, sys.executable)
    assert subject.step()["wall"] > 0
    subject._process.kill()
    assert subject.step() is None
    assert "signal 9" in subject.problem
    subject.end()


def test_a_training_step_that_is_measured_moves_the_weights_towards_less_loss():
    images, labels = random_patches((2, 1, 32, 32))
    assert images.shape == labels.shape and set(labels.unique().tolist()) >= {1, 2, 3}
    step = STEPS["prosma"]({"shape": [2, 1, 32, 32], "features": [4, 8]})
    names = dict(zip(step.__code__.co_freevars, (cell.cell_contents for cell in step.__closure__), strict=True))
    training = names["training"]
    with torch.no_grad():
        before = training.loss(training.network(images), labels).item()
    for _ in range(20):
        step()
    with torch.no_grad():
        assert training.loss(training.network(images), labels).item() < 0.9 * before


@pytest.mark.slow
def test_the_command_measures_and_writes(tmp_path, trapped):
    shape = ["--shape", "100", "100", "96"]
    files = ["--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")]
    assert main(["benchmark", "--only", "whole", "click", *shape, "--classes", "2", *files]) == 0
    report = json.loads((tmp_path / "a.json").read_text())
    rows = {row["name"]: row for row in report["whole"]}
    assert rows["ProSMA, defaults"]["tiles"] >= 1
    assert rows["MONAI, as shipped"]["processor_seconds"] > rows["ProSMA, defaults"]["processor_seconds"]
    assert "problem" in rows["nnU-Net, as shipped"] or rows["nnU-Net, as shipped"]["tiles"] >= 1
    assert report["click"]["warm"]["network_wall"] > 0
    assert "A whole volume of 100 x 100 x 96, 2 classes" in (tmp_path / "a.md").read_text()


def test_what_another_processor_measured_is_shown_and_never_overwritten(tmp_path, capsys):
    machine = {**MACHINE, "python": "3.11", "torch": "2", "card": None}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"date": "d", "machine": machine, "clock": "wall", "notes": ["A note."]}))
    before = path.read_bytes()
    assert main(["benchmark", "--only", "click", "--json", str(path)]) == 1
    error = capsys.readouterr().err
    assert "another processor (P)" in error and "Name another file" in error
    assert main(["benchmark", "--only", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "A note." in shown and "\nP" in shown
    assert path.read_bytes() == before


@tries("cli/benchmark.py: holds something else than measurements of prosma benchmark")
@pytest.mark.parametrize("content", ["[1, 2]", "{}", "no JSON"])
def test_a_file_that_holds_something_else_is_never_overwritten(tmp_path, content, capsys):
    path = tmp_path / "mine.json"
    path.write_text(content)
    assert main(["benchmark", "--only", "--json", str(path)]) == 1
    assert "Name another file." in capsys.readouterr().err
    assert path.read_text() == content
    assert main(["benchmark", "--only", "--json", str(tmp_path / "another.json")]) == 0


def test_where_nothing_can_be_written_nothing_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "measured", lambda *_: pytest.fail("it began to measure"))
    (tmp_path / "file").write_text("")
    assert main(["benchmark", "--only", "click", "-o", str(tmp_path / "file" / "a.md")]) == 1
    assert "could not be written" in capsys.readouterr().err
