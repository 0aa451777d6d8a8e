"""Training and its options where data or numbers are a little odd: told in a sentence, or done as they are."""

import json
import shlex
import threading
import time

import numpy as np
import pytest
import torch
from test_folds import SHAPE, write_recipe, write_volume

from prosma.cli import main
from prosma.learning.data import patches
from prosma.learning.data.dataset import DatasetError, LabelledFolder
from prosma.learning.fit import fitting
from prosma.learning.fit.finetuning import FineTuningError, FineTuningOptions
from remedies import tries
from small_volumes import smooth_volume


@pytest.fixture
def folder(tmp_path):
    """An nnU-Net folder of six volumes, and no file of splits: every fifth case is for validation, and none for tests."""
    folder = tmp_path / "Dataset003"
    for number in range(6):
        array = smooth_volume(SHAPE, seed=number).array[0].astype(np.float32)
        write_volume(folder / f"imagesTr/case_{number}_0000.nii.gz", array)
        labels = (array > np.percentile(array, 60)).astype(np.uint8) + (array > np.percentile(array, 85))
        write_volume(folder / f"labelsTr/case_{number}.nii.gz", labels.astype(np.uint8))
    return folder


def test_a_label_that_validation_does_not_have_is_left_out_of_the_mean(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "label_dice", lambda *_: torch.tensor([0.25, float("nan")]))  # in neither
    run = tmp_path / "run"
    train = ["train", str(write_recipe(tmp_path / "recipe.yaml")), "--data", str(folder), "-o", str(run)]
    assert main([*train, "--workers", "0", "--device", "cpu"]) == 0
    (epoch,) = json.loads((run / "history.json").read_text())["epochs"]
    assert epoch["val/dice"] == 0.25
    assert [name for name in epoch if name.startswith("val/dice/")] == ["val/dice/anterior hippocampus"]


def test_validation_without_any_structure_has_no_dice(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "label_dice", lambda *_: torch.full((2,), float("nan")))
    run = tmp_path / "run"
    train = ["train", str(write_recipe(tmp_path / "recipe.yaml")), "--data", str(folder), "-o", str(run)]
    assert main([*train, "--workers", "0", "--device", "cpu"]) == 0
    (epoch,) = json.loads((run / "history.json").read_text())["epochs"]
    assert "train/loss" in epoch and not any(name.startswith("val/") for name in epoch)


def test_what_training_says_comes_next_works_where_nothing_is_kept_for_tests(folder, tmp_path, capsys):
    train = ["train", str(write_recipe(tmp_path / "recipe.yaml")), "--data", str(folder), "-o", str(tmp_path / "run")]
    assert main([*train, "--workers", "0", "--device", "cpu"]) == 0
    command = shlex.split(capsys.readouterr().out.partition("Next: prosma ")[2])
    assert command[-4:] == ["--split", "val", "-o", "PACKAGE"]
    package = tmp_path / "package"
    assert main([*command[:-1], str(package)]) == 0
    assert json.loads((package / "model.json").read_text())["results"]["split"] == "val"
    assert main(["evaluate", str(package), "--data", str(folder)]) == 1
    assert "Choose one of them with --split" in capsys.readouterr().err


def test_after_a_faulty_case_nothing_is_read_any_more(folder, monkeypatch):
    read, begun = patches.read_case, []

    def slow(case, model):
        begun.append(case.id)
        if case.id == "case_0":
            raise DatasetError("This one is damaged.")
        time.sleep(0.3)
        return read(case, model)

    monkeypatch.setattr(patches, "read_case", slow)
    model = {"dimension": 3, "orientation": "RAS", "spacing": None, "resize": None, "intensity": {"rule": "zscore"}}
    before = set(threading.enumerate())
    with pytest.raises(DatasetError, match="damaged"):
        patches.cached(LabelledFolder.open(folder).split("all"), model)
    assert set(threading.enumerate()) <= before
    assert len(begun) <= 3


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train --data D -o R --max-epochs 0", "--max-epochs: it takes a whole number from 1 on, not '0'"),
        ("train --data D -o R --max-epochs -1", "from 1 on, not '-1'"),
        ("train --data D -o R --workers -1", "--workers: it takes a whole number from 0 on, not '-1'"),
        ("train --data D -o R --devices 0", "from 1 on, not '0'"),
        ("train --data D -o R --fold x", "from 0 on, not 'x'"),
        ("segment I -m M -o O --workers -3", "--workers: it takes a whole number from 1 on, not '-3'"),
        ("segment I -m M -o O --max-failures -1", "from 1 on, not '-1'"),
        ("dicomweb URL -m M -o O --limit -1", "--limit: it takes a whole number from 1 on, not '-1'"),
        ("report O --pictures -1", "from 0 on, not '-1'"),
        ("compare G -o R --threads 0", "of 1 to 1024, not '0'"),
        ("benchmark --rounds 0", "--rounds: it takes a whole number from 1 on, not '0'"),
        ("benchmark --threads -1", "--threads: it takes a whole number of 1 to 1024, not '-1'"),
        (
            "compare G --data D --out O --threads 99999999",
            "--threads: it takes a whole number of 1 to 1024, not '99999999'",
        ),
        ("benchmark --python /no/python", "--python: '/no/python' is no program that can be started"),
        ("benchmark --classes 1", "--classes: it takes a whole number from 2 on, not '1'"),
        ("benchmark --shape 64 0 64", "--shape: it takes a whole number from 1 on, not '0'"),
        ("finetune M --data D -o R --seed -1", "--seed: it takes a whole number from 0 on, not '-1'"),
        ("finetune M --data D -o R --learning-rate nan", "it takes a number above 0, not 'nan'"),
        ("evaluate M --data D --nsd-mm -1", "--nsd-mm: it takes a number above 0, not '-1'"),
        ("evaluate M --data D --nsd-mm inf", "it takes a number above 0, not 'inf'"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_before_anything_is_read(command, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@tries("learning/fit/finetuning.py: The seed should be")
def test_a_seed_below_zero_is_refused_from_python_too():
    with pytest.raises(FineTuningError, match="from 0 on, not -1"):
        FineTuningOptions(seed=-1)
    assert FineTuningOptions(seed=0).seed == 0
