"""Fine-tuning a package on a few corrected cases (training/prosma/learning/fit/finetuning.py)."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image as Picture
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter, zoom

from prosma.cli import main
from prosma.learning.fit.finetuning import FineTuningOptions, fine_tune, free_id, interpolated_weights
from prosma.learning.judge.evaluation import evaluate
from prosma.package import ModelPackage, resolve
from small_volumes import smooth_volume
from tiny_model import make_tiny_ensemble, make_tiny_package

ROOT = Path(__file__).resolve().parents[3]


def write_case(folder: Path, name: str, array: np.ndarray, labels: np.ndarray) -> None:
    """Arrays (C, I, J, K) and (I, J, K) as a case of an nnU-Net folder."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for channel, voxels in enumerate(array):
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T))
        SimpleITK.WriteImage(image, str(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz"))
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.ascontiguousarray(labels.T)), str(folder / "labelsTr" / f"{name}.nii.gz")
    )


def corrected(folder: Path, cases: int = 2, channels: int = 1, highest: int = 2) -> Path:
    """Small volumes whose labels follow their brightness."""
    for number in range(cases):
        array = smooth_volume(channels=channels, seed=number).array
        bright = (array[0] > np.percentile(array[0], 60)).astype(np.uint8)
        write_case(folder, f"case_{number}", array, bright + (highest - 1) * (array[0] > np.percentile(array[0], 85)))
    return folder


@pytest.fixture
def parent(tmp_path):
    return make_tiny_package(
        tmp_path / "models" / "parent",
        spacing=None,
        patch_size=[16, 16, 16],
        results={"split": "test", "cases": 9, "dice": {"mean": 0.9}},
        accept_licence=True,
        training={"data": "phantoms", "licence": "for research only", "citation": "Nobody 2020"},
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def weights(package: ModelPackage) -> dict[str, torch.Tensor]:
    return load_file(package.weights_path)


def finetune(parent, data, output, *more):
    """The command, with settings for a second's work."""
    settings = ["--steps", "2", "--learning-rate", "0.01", "--accelerator", "cpu", "--accept-licence"]
    return main(["finetune", str(parent.folder), "--data", str(data), "-o", str(output), *settings, *more])


def test_a_new_package_lies_beside_the_old_one_and_says_where_it_comes_from(parent, tmp_path, capsys):
    before = contents(parent.folder)
    output = tmp_path / "models" / "new"
    assert finetune(parent, corrected(tmp_path / "data"), output) == 0
    assert "prosma evaluate" in capsys.readouterr().out
    assert contents(parent.folder) == before
    assert sorted(path.name for path in output.parent.iterdir()) == ["new", "parent"]

    new = ModelPackage.open(output)
    assert (new.id, new.name, new.version) == ("tiny-tuned", "Tiny test model, fine-tuned", "1.0.0")
    assert new.labels == parent.labels and new.model["network"] == parent.model["network"]
    assert new.model["accept_licence"] is True
    assert new.model["training"] == parent.model["training"]
    assert "results" not in new.model
    (record,) = new.model["fine_tuning"]
    assert record["parent"] == {"id": "tiny", "version": "1.0.0", "sha256": parent.sha256}
    assert (record["cases"], record["replayed_cases"], record["steps"]) == (2, 0, 2)
    card = (output / "README.md").read_text()
    for text in (parent.sha256, "2 corrected cases", "no test results", "for research only", "Nobody 2020"):
        assert text in card
    assert any(not torch.equal(tensor, weights(parent)[name]) for name, tensor in weights(new).items())


def test_the_same_seed_gives_the_same_weights_and_another_one_others(parent, tmp_path):
    data = corrected(tmp_path / "data")
    first, second, other = (
        weights(
            fine_tune(parent, data, tmp_path / name, tuning=FineTuningOptions(steps=2, seed=seed), accelerator="cpu")
        )
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())


def test_it_learns_what_the_corrected_cases_show(parent, tmp_path):
    data = corrected(tmp_path / "data")
    before = evaluate(parent, data, "all", device="cpu")["mean"]["dice"]
    tuning = FineTuningOptions(steps=40, learning_rate=0.01, keep=0.0)
    new = fine_tune(parent, data, tmp_path / "new", tuning=tuning, accelerator="cpu")
    assert evaluate(new, data, "all", device="cpu")["mean"]["dice"] > before + 0.2


def test_kept_weights_are_the_old_ones_in_their_share(parent):
    old = {name: tensor.float() for name, tensor in weights(parent).items()}
    learnt = {name: tensor + 0.5 for name, tensor in old.items()}
    for keep in (0.0, 0.25):
        mixed = interpolated_weights(old, learnt, keep)
        assert all(tensor.dtype == torch.float16 for tensor in mixed.values())
        for name, tensor in mixed.items():
            torch.testing.assert_close(tensor.float(), old[name] + 0.5 * (1 - keep), atol=2e-3, rtol=2e-3)


def test_replay_draws_every_second_patch_from_the_old_cases(parent, tmp_path):
    data, old = corrected(tmp_path / "data"), corrected(tmp_path / "old", cases=7)
    (old / "splits.json").write_text(json.dumps({"train": ["case_5", "case_6"], "test": ["case_0"]}))
    assert finetune(parent, data, tmp_path / "new", "--replay", str(old), "--steps", "4") == 0
    new = ModelPackage.open(tmp_path / "new")
    assert new.model["fine_tuning"][0]["replayed_cases"] == 2
    assert "and 2 of the original ones" in (new.folder / "README.md").read_text()
    # The test case of the old folder is never read.
    (old / "imagesTr" / "case_0_0000.nii.gz").write_bytes(b"")
    assert finetune(parent, data, tmp_path / "again", "--replay", str(old), "--id", "again") == 0


def test_colour_images_in_folders_of_images_and_masks(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for number in range(3):
        mask = np.zeros((40, 48), np.uint8)
        mask[10:30, 5 + number : 25] = 255
        colours = (mask[..., None] // 2 + rng.integers(0, 60, (40, 48, 3))).astype(np.uint8)
        Picture.fromarray(colours).save(tmp_path / "data" / "images" / f"{number}.png")
        Picture.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number}.png")
    intensity = {"rule": "range", "low": 0, "high": 255}
    flat = make_tiny_package(
        tmp_path / "flat", dimension=2, channels=3, labels=1, resize=[32, 32], patch_size=[32, 32], intensity=intensity
    )
    new = fine_tune(flat, tmp_path / "data", tmp_path / "new", tuning=FineTuningOptions(steps=1), accelerator="cpu")
    assert (new.model["fine_tuning"][0]["cases"], new.model["fine_tuning"][0]["batch_size"]) == (3, 4)
    assert any(not torch.equal(tensor, weights(flat)[name]) for name, tensor in weights(new).items())


def test_ids_of_known_models_are_not_given_twice(parent, tmp_path, monkeypatch):
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path))
    assert free_id("tiny") == "tiny-tuned"
    make_tiny_package(tmp_path / "models" / "a", id="tiny-tuned")
    assert free_id("tiny") == "tiny-tuned-2"
    assert free_id("tiny-tuned-7") == "tiny-tuned-2"
    assert free_id("other-tuned") == "other-tuned-2"


def test_a_fine_tuned_model_can_be_fine_tuned_again(parent, tmp_path):
    data = corrected(tmp_path / "data")
    assert finetune(parent, data, tmp_path / "one", "--id", "one") == 0
    first = ModelPackage.open(tmp_path / "one")
    assert finetune(first, data, tmp_path / "two", "--id", "two", "--name", "Twice") == 0
    second = ModelPackage.open(tmp_path / "two")
    assert second.name == "Twice"
    assert [record["parent"]["id"] for record in second.model["fine_tuning"]] == ["tiny", "one"]


def refuse(capsys, *arguments) -> str:
    """The sentence with which the command refuses; nothing is written then."""
    output = arguments[2]
    before = output.exists()
    assert finetune(*arguments) == 1
    assert output.exists() == before
    return capsys.readouterr().err.splitlines()[-1]


def test_cases_that_do_not_fit_the_model_are_named(parent, tmp_path, capsys):
    output = tmp_path / "new"
    (tmp_path / "empty" / "imagesTr").mkdir(parents=True)
    assert "holds no images" in refuse(capsys, parent, tmp_path / "empty", output)
    said = refuse(capsys, parent, corrected(tmp_path / "labels", highest=3), output)
    assert "'case_0'" in said and "value 3" in said
    assert "has 2 channels" in refuse(capsys, parent, corrected(tmp_path / "channels", channels=2), output)

    swapped = corrected(tmp_path / "swapped")
    names = {"background": 0, "Structure 2": 1, "Structure 1": 2}
    (swapped / "dataset.json").write_text(json.dumps({"labels": names}))
    assert "says 1 for the label 'Structure 2'" in refuse(capsys, parent, swapped, output)

    single = tmp_path / "single"
    write_case(single, "slice", np.zeros((1, 20, 20, 1), np.int16), np.zeros((20, 20, 1), np.uint8))
    assert "works on volumes" in refuse(capsys, parent, single, output)
    flat = make_tiny_package(tmp_path / "flat", dimension=2, labels=2)
    assert "works on single images" in refuse(capsys, flat, corrected(tmp_path / "volumes"), output)


def test_nothing_is_replaced_and_settings_are_checked(parent, tmp_path, capsys):
    data = corrected(tmp_path / "data")
    assert main(["finetune", str(parent.folder), "--data", str(data), "-o", str(tmp_path / "new")]) == 1
    assert "--accept-licence" in capsys.readouterr().err
    assert "there already" in refuse(capsys, parent, data, parent.folder)
    for wrong, words in {"--id=tiny": "another --id", "--id=A b": "not allowed", "--keep=1": "below 1"}.items():
        assert words in refuse(capsys, parent, data, tmp_path / "new", wrong)
    with pytest.raises(SystemExit):
        main(["finetune", str(parent.folder), "--data", str(data), "-o", str(tmp_path / "new"), "--steps=0"])
    assert "from 1 on" in capsys.readouterr().err


def start(parent, data, output, *more) -> subprocess.Popen:
    """The command as another program runs it."""
    command = [sys.executable, "-m", "prosma.cli", "finetune", str(parent.folder), "--data", str(data)]
    command += ["-o", str(output), "--accelerator", "cpu", "--accept-licence", "--progress", "json", *more]
    path = {"PYTHONPATH": str(ROOT / "training")}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **path}
    )


def last_words(process: subprocess.Popen) -> str:
    """What it says on stderr before it ends, which it has to do soon."""
    try:
        return process.communicate(timeout=120)[1]
    finally:
        process.kill()


@pytest.mark.slow
def test_a_program_follows_it_line_by_line(parent, tmp_path):
    with start(parent, corrected(tmp_path / "data"), tmp_path / "new", "--steps", "3") as process:
        events = [json.loads(line) for line in process.stdout]
        errors = last_words(process)
    assert process.returncode == 0, errors
    assert events[0]["pid"] == process.pid
    assert [event["stage"] for event in events] == ["Starting", "Reading", *["Fine-tuning"] * 4, "Writing", "Done"]
    assert [event["fraction"] for event in events[2:6]] == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-3)
    assert all(event["seconds_left"] >= 0 for event in events[3:])
    assert events[-1]["package"] == str(tmp_path / "new") and events[-1]["id"] == "tiny-tuned"
    assert errors == ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a program could answer")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stopped_in_the_middle_nothing_is_left(parent, tmp_path, number):
    folder = tmp_path / "results"
    folder.mkdir()
    with start(parent, corrected(tmp_path / "data"), folder / "new", "--steps", "100000") as process:
        while json.loads(process.stdout.readline())["fraction"] == 0:
            pass
        process.send_signal(number)
        errors = last_words(process)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert errors == ("" if number == signal.SIGKILL else "prosma: Stopped.\n")
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_it_ends_when_nobody_reads_its_progress_any_more(parent, tmp_path):
    with start(parent, corrected(tmp_path / "data"), tmp_path / "new", "--steps", "100000") as process:
        process.stdout.readline()
        process.stdout.close()
        last_words(process)
    assert process.returncode != 0
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------------------------------------------------------------
# The aim, with real images: better on cases like the corrected ones, not worse on those that the model knew
# ---------------------------------------------------------------------------------------------------------------------


def scaled(array: np.ndarray) -> np.ndarray:
    low, high = np.percentile(array, (0.5, 99.5))
    return np.clip((array - low) / (high - low), 0, 1)


def other_scanner(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Darker mid-tones, a strong bias field, and Rician noise."""
    field = zoom(random.normal(size=(3, 3, 3)), [n / 3 for n in array.shape], order=3, mode="nearest")
    field = (field - field.mean()) / field.std()
    signal = scaled(array) ** 2.5 * np.exp(0.5 * field)
    noise = 0.08 * random.normal(size=(2, *array.shape))
    return np.hypot(signal + noise[0], noise[1])


def thick_slices(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Blocks of four voxels along the second axis share the value that a thick slice would have; some noise."""
    blurred = gaussian_filter(scaled(array), (0, 4 / 2.355, 0))
    count = array.shape[1]
    middle = np.minimum(np.arange(count) // 4 * 4 + 2, count - 1)
    return np.clip(blurred[:, middle] + 0.05 * random.normal(size=array.shape), 0, None)


def changed(original: Path, split: str, cases: int | None, change, folder: Path) -> Path:
    """The first cases of a split as from another scanner, with their true labels; all of them in the new folder's split."""
    ids = json.loads((original / "splits.json").read_text())[split][:cases]
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for id in ids:
        image = SimpleITK.ReadImage(str(original / "imagesTr" / f"{id}_0000.nii.gz"))
        array = SimpleITK.GetArrayFromImage(image).astype(float)
        new = change(array, np.random.default_rng(int(id.split("_")[-1])))
        new = SimpleITK.GetImageFromArray((1000 * new).astype(np.int16))
        new.CopyInformation(image)
        SimpleITK.WriteImage(new, str(folder / "imagesTr" / f"{id}_0000.nii.gz"))
        shutil.copy(original / "labelsTr" / f"{id}.nii.gz", folder / "labelsTr")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "cases", "least_gain"), [(other_scanner, 5, 0.02), (thick_slices, 2, 0.0)], ids=["scanner", "slices"]
)
def test_corrections_help_on_cases_like_them_and_little_is_forgotten(shared, tmp_path, change, cases, least_gain):
    original = shared / "hippocampus"
    parent = resolve("hippocampus-mr")
    few = changed(original, "train", cases, change, tmp_path / "few")
    like_them = changed(original, "val", None, change, tmp_path / "like_them")
    assert main(["finetune", parent.id, "--data", str(few), "-o", str(tmp_path / "new"), "--accelerator", "cpu"]) == 0
    new = ModelPackage.open(tmp_path / "new")
    dice = {
        (package.id, data.name, split): evaluate(package, data, split, device="cpu")["mean"]["dice"]
        for package in (parent, new)
        for data, split in ((like_them, "all"), (original, "test"))
    }
    print(dice, new.model["fine_tuning"][0]["seconds"], "s")
    gain = dice[new.id, "like_them", "all"] - dice[parent.id, "like_them", "all"]
    lost = dice[parent.id, "hippocampus", "test"] - dice[new.id, "hippocampus", "test"]
    assert gain > least_gain
    assert lost <= 0.01


def test_every_set_of_weights_is_fine_tuned(parent, tmp_path):
    other = make_tiny_package(tmp_path / "models" / "other", seed=1, spacing=None, patch_size=[16, 16, 16])
    both = make_tiny_ensemble(tmp_path / "models" / "both", parent, other)
    told = []
    tuning = FineTuningOptions(steps=2, learning_rate=0.01)
    made = fine_tune(
        both,
        corrected(tmp_path / "cases"),
        tmp_path / "new",
        tuning=tuning,
        accelerator="cpu",
        progress=lambda *all: told.append(all),
    )
    assert made.sets == 2 and (made.model["schema"], made.model["fine_tuning"][0]["parent"]["sha256"]) == (
        3,
        both.sha256,
    )
    before, after = weights(both), weights(made)
    assert before.keys() == after.keys()
    for number in ("1.", "2."):
        assert not torch.equal(before[f"{number}head.weight"], after[f"{number}head.weight"])
    alone = fine_tune(parent, tmp_path / "cases", tmp_path / "alone", tuning=tuning, accelerator="cpu")
    for name, tensor in weights(alone).items():
        assert torch.allclose(tensor.float(), after[f"1.{name}"].float(), atol=2e-3), name
    assert "2 sets of weights" in (made.folder / "README.md").read_text()
    fractions = [fraction for stage, fraction, _ in told if stage == "Fine-tuning"]
    assert fractions == sorted(fractions) and 0.5 in fractions and fractions[-1] == 1
    assert all(left is None or left >= 0 for _, _, left in told)
