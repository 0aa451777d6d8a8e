"""Comparisons of skips: the grid, its runs, degraded images, paired statistics, tables and figure."""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
import yaml
from PIL import Image as Picture

from prosma.cli import exit_codes, main
from prosma.image.geometry import Image
from prosma.image.intensity import normalise, rule_for
from prosma.learning.compare.comparing import overlaps, versions
from prosma.learning.compare.degrading import KINDS, degrade
from prosma.learning.compare.grid import Grid, GridError
from prosma.learning.compare.paired import estimate, paired
from prosma.learning.data.dataset import IGNORED
from prosma.learning.report.tables import differing
from prosma.network.unet import ProSMAUNet
from small_volumes import smooth_volume

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "Resources" / "Samples"
TRAINING = ROOT / "training"
GRID = {
    "name": "tiny",
    "recipe": str(TRAINING / "recipes" / "hippocampus-mr.yaml"),
    "changes": {
        "model": {"patch_size": [16, 24, 16], "spacing": [2.0, 2.0, 2.0]},
        "network": {"features": [2, 4]},
        "fitting": {"epochs": 2, "iterations": 1, "batch_size": 1, "validate_every": 1},
    },
    "variants": {"plain": {"skip": "plain"}, "decoder": {"skip": "prosma", "field_grid": "decoder"}},
    "seeds": [1, 2],
    "reference": "plain",
    "degradations": {"noise": [0.5], "contrast": [0.5, 1.0]},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An nnU-Net folder of crops of the bundled volume; one of the two test cases has no label."""
    folder = tmp_path_factory.mktemp("hippocampus")
    image = SimpleITK.ReadImage(str(SAMPLES / "hippocampus_017.nii.gz"))
    labels = SimpleITK.ReadImage(str(SAMPLES / "hippocampus_017_labels.nii.gz"))
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
    for number in range(4):
        SimpleITK.WriteImage(image[number:], str(folder / f"imagesTr/case_{number}_0000.nii.gz"))
        SimpleITK.WriteImage(labels[number:] * (number < 3), str(folder / f"labelsTr/case_{number}.nii.gz"))
    splits = {"train": ["case_0"], "val": ["case_1"], "test": ["case_2", "case_3"]}
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


def written(folder, **changes):
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({**copy.deepcopy(GRID), **changes}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A comparison made through the command line: first one variant, then the rest of it."""
    folder = tmp_path_factory.mktemp("comparison")
    command = ["compare", str(written(folder)), "--data", str(data), "--out", str(folder / "runs"), "--workers", "0"]
    assert main([*command, "--only", "plain", "--seeds", "1"]) == 0
    assert [path.name for path in (folder / "runs").glob("[!.]*")] == ["plain-seed1"]
    assert main(command) == 0
    return folder


def fingerprints(folder):
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(("comparison", "."))
    }


def test_a_grid_becomes_runs_tables_and_a_figure(finished):
    runs = finished / "runs"
    names = [f"{variant}-seed{seed}" for variant in ("plain", "decoder") for seed in (1, 2)]
    scores = {name: json.loads((runs / name / "scores.json").read_text()) for name in names}
    conditions = ["clean", "noise 0.5", "contrast 0.5", "contrast 1"]
    assert all(list(run["scores"]) == conditions for run in scores.values())
    content = json.loads((runs / "comparison.json").read_text())
    assert content["missing"] == [] and content["cases"] == 2 and content["labelled"] == 1
    assert content["variants"]["plain"]["zeros"] == []
    assert len(content["variants"]["decoder"]["zeros"]) == 1
    assert content["variants"]["decoder"]["parameters"] > content["variants"]["plain"]["parameters"]

    dice = {name: np.array(run["scores"]["clean"]["dice"]) for name, run in scores.items()}
    by_hand = np.mean([dice[f"decoder-seed{seed}"] - dice[f"plain-seed{seed}"] for seed in (1, 2)])
    difference = content["differences"][0]
    assert (difference["variant"], difference["reference"], difference["seeds"]) == ("decoder", "plain", [1, 2])
    assert difference["dice"]["mean"] == pytest.approx(by_hand, abs=1e-5)
    assert content["per_case"]["dice"] == {name: run["scores"]["clean"]["dice"] for name, run in scores.items()}
    for row, condition in zip(content["degradations"], conditions[1:], strict=True):
        worse = [scores[f"decoder-seed{seed}"]["scores"][condition]["dice"][0] for seed in (1, 2)]  # the labelled case
        assert row["variants"]["decoder"]["dice_labelled"]["mean"] == pytest.approx(np.mean(worse), abs=1e-5)
    text = (runs / "comparison.md").read_text()
    assert f"{content['variants']['decoder']['dice']['mean']:.4f}" in text and "| contrast 1 |" in text
    histories = [json.loads((runs / f"decoder-seed{seed}/history.json").read_text())["epochs"] for seed in (1, 2)]
    gain = np.mean([second["val/dice"] - first["val/dice"] for first, second in histories])
    assert content["variants"]["decoder"]["late_gain"] == pytest.approx(gain, abs=1e-4)
    assert f"{gain:+.4f}" in text and "gained in the last third" in text
    assert Picture.open(runs / "comparison.png").size[0] > 500
    assert (runs / "comparison.png").stat().st_size < 80_000


def test_what_is_finished_is_left_alone_and_what_was_broken_off_goes_on(finished, data, capsys):
    runs, grid = finished / "runs", finished / "grid.yaml"
    command = ["compare", str(grid), "--data", str(data), "--out", str(runs), "--workers", "0"]
    whole = json.loads((runs / "decoder-seed2" / "scores.json").read_text())
    before = fingerprints(runs)
    (runs / "decoder-seed2" / "scores.json").unlink()  # as if killed while scoring
    assert main(command) == 0
    after = fingerprints(runs)
    scored_again = {path for path in before if before[path] != after[path]}
    assert {path.parts[-2] for path in scored_again} <= {"decoder-seed2", "package"}
    assert not any(path.name == "last.ckpt" for path in scored_again)
    again = json.loads((runs / "decoder-seed2" / "scores.json").read_text())
    assert again["scores"] == whole["scores"] and again["seconds"] == whole["seconds"]
    assert main(["compare", str(grid), "--report", "--out", str(runs)]) == 0
    assert fingerprints(runs) == after
    assert "done before" in capsys.readouterr().err


def test_without_any_labelled_case_all_cases_count(finished, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(finished / "runs", runs)
    for path in runs.glob("*/scores.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "labelled": [False, False]}))
    assert main(["compare", str(finished / "grid.yaml"), "--report", "--out", str(runs)]) == 0
    content = json.loads((runs / "comparison.json").read_text())
    assert (content["measure"], content["labelled"]) == ("dice", 0)
    assert "0 of them with a label" in (runs / "comparison.md").read_text()


def test_a_run_in_the_hands_of_another_process_is_left_to_it(data, tmp_path, capsys):
    from filelock import FileLock

    (tmp_path / "runs").mkdir()
    with FileLock(tmp_path / "runs" / ".plain-seed1.lock"):
        command = ["compare", str(written(tmp_path)), "--data", str(data), "--out", str(tmp_path / "runs")]
        assert main([*command, "--only", "plain", "--seeds", "1"]) == 0
    said = capsys.readouterr()
    assert "another process" in said.err and "Still missing: plain-seed1, decoder-seed1" in said.out
    assert not (tmp_path / "runs" / "plain-seed1" / "last.ckpt").exists()
    assert main(["compare", command[1], "--report", "--out", command[-1]]) == 1
    assert "no finished run of 'plain'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_comparison_killed_while_it_trains_goes_on_where_it_stopped(finished, data, tmp_path):
    runs, grid = tmp_path / "runs", str(finished / "grid.yaml")
    command = ["compare", grid, "--data", str(data), "--out", str(runs), "--workers", "0"]
    environment = {**os.environ, "PYTHONPATH": str(TRAINING)}
    process = subprocess.Popen(
        [sys.executable, "-m", "prosma.cli", *command, "--threads", "1"], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        # Seeds are the outer loop: this is the second run, with one of its two epochs done.
        while not (runs / "decoder-seed1" / "last.ckpt").is_file() and process.poll() is None:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    before = fingerprints(runs / "plain-seed1")
    assert before and not (runs / "decoder-seed1" / "scores.json").exists()
    assert main(command) == 0
    assert fingerprints(runs / "plain-seed1") == before
    for name in ("plain-seed1", "decoder-seed1", "plain-seed2", "decoder-seed2"):
        broken_off, whole = (
            json.loads((folder / name / "scores.json").read_text()) for folder in (runs, finished / "runs")
        )
        assert broken_off["scores"] == whole["scores"]


def test_a_run_of_other_settings_is_not_taken_for_this_one(finished, data, capsys):
    changes = {**GRID["changes"], "fitting": {**GRID["changes"]["fitting"], "learning_rate": 0.5}}
    other = finished / "other"
    other.mkdir()
    command = ["compare", str(written(other, changes=changes)), "--data", str(data), "--out", str(finished / "runs")]
    assert main(command) == 1
    assert "plain-seed1' was trained with other settings" in capsys.readouterr().err


def test_paired_differences_are_those_computed_by_hand():
    scores = np.array([[0.5, 0.7, 0.9], [0.6, 0.8, 0.7]])
    others = np.array([[0.4, 0.7, 1.0], [0.4, 0.8, 0.5]])
    found = paired(scores, others)
    assert found["mean"] == pytest.approx((0.1 + 0.0 - 0.1 + 0.2 + 0.0 + 0.2) / 6, abs=1e-5)
    assert found["seeds"] == pytest.approx([0.0, 0.4 / 3], abs=1e-5)
    assert found["better"] == pytest.approx(2 / 3, abs=1e-3)  # over seeds: +0.15, 0, +0.05
    low, high = found["interval"]
    assert low < found["mean"] < high
    assert paired(scores, scores)["interval"] == [0, 0]


def test_the_interval_covers_cases_and_seeds():
    random = np.random.default_rng(0)
    by_case = np.tile(random.normal(size=200), (3, 1))
    by_seed = np.tile(np.array([[-1.0], [0.0], [1.0]]), (1, 200))
    # For cases alone the interval is that of a mean of 200 values: 1.96 standard errors to each side.
    low, high = estimate(by_case)["interval"]
    assert high - low == pytest.approx(2 * 1.96 * by_case[0].std() / 200**0.5, rel=0.1)
    # Three seeds, the mean of three draws: in 1 of 27 all are the lowest.
    assert estimate(by_seed)["interval"] == pytest.approx([-1, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stronger_degradation_changes_more_and_the_geometry_stays(kind):
    image = smooth_volume((24, 20, 6), channels=2)
    levels = (0.25, 0.5, 1.0)
    images = [degrade(image, kind, level, "case_1") for level in levels]
    changes = [np.abs(version.array - image.array).mean() for version in images]
    assert 0 < changes[0] < changes[1] < changes[2]
    assert changes[2] == pytest.approx(4 * changes[0], rel=1e-3)  # one pattern, rising strength
    for version in images:
        assert np.array_equal(version.ijk_to_ras, image.ijk_to_ras)
        assert version.array.shape == image.array.shape and version.array.dtype == np.float32
    assert np.array_equal(images[1].array, degrade(image, kind, 0.5, "case_1").array)
    assert not np.array_equal(images[1].array, degrade(image, kind, 0.5, "case_2").array)
    assert np.allclose(degrade(image, kind, 0.0, "case_1").array, image.array, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_no_degradation_is_undone_by_the_models_preparation(kind):
    image = smooth_volume((24, 20, 6))
    clean, worse = (
        normalise(version.array, {"rule": "clip-zscore"}) for version in (image, degrade(image, kind, 0.5, "case"))
    )
    assert np.abs(clean - worse).mean() > 0.1


def test_the_strength_of_noise_is_a_share_of_the_range():
    ramp = np.linspace(100, 300, 32**3, dtype=np.float32).reshape(1, 32, 32, 32)
    noisy = degrade(Image(ramp, np.eye(4)), "noise", 0.1, "case")
    assert (noisy.array - ramp).std() == pytest.approx(0.1 * 0.99 * 200, rel=0.02)


@pytest.mark.parametrize("white", [1, 255, 4095])
def test_pictures_stay_between_black_and_white_whatever_is_done_to_them(white):
    picture = smooth_volume((24, 20, 1))
    share = (picture.array - picture.array.min()) / np.ptp(picture.array)
    image = Image((share * white).astype(np.float32), np.eye(4))
    intensity = {"rule": "range", "low": 0, "high": 255}
    conditions = [(kind, level) for kind in KINDS for level in (0.5, 1.0)]
    for name, version in versions(image, "case", conditions, intensity):
        assert rule_for(version.array, intensity)[0] == rule_for(image.array, intensity)[0], name
        assert version.array.min() >= 0 and version.array.max() <= white


def test_labels_that_are_neither_there_nor_found_count_as_right_and_ignored_voxels_not_at_all():
    model = {"labels": [{"value": 1}, {"value": 2}]}
    reference = np.zeros((4, 4, 1), np.uint8)
    reference[0], reference[3] = 1, IGNORED
    predicted = np.zeros_like(reference)
    predicted[0, :2], predicted[3] = 1, 2
    found = overlaps(predicted, reference, model)
    assert found == {"dice": pytest.approx((2 / 3 + 1) / 2), "iou": pytest.approx((1 / 2 + 1) / 2)}


def test_networks_of_one_seed_share_all_weights_outside_the_gates():
    states = []
    for skip in ({"skip": "plain"}, {"skip": "attention"}, {"field_grid": "skip"}, {"field_grid": "decoder"}):
        torch.manual_seed(7)
        states.append(ProSMAUNet(2, 1, 2, [4, 8, 8], deep_supervision=True, **skip).state_dict())
    for state in states[1:]:
        assert {name for name in state if not name.startswith("gates.")} == set(states[0])
        assert all(torch.equal(state[name], states[0][name]) for name in states[0])


@pytest.mark.parametrize("path", sorted((TRAINING / "comparisons").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_committed_comparison_is_valid(path):
    grid = Grid.read(path)
    assert grid.name == path.stem and len(grid.seeds) >= 3


def test_attention_at_the_coarsest_stage_is_a_variant_too(tmp_path):
    variants = {"plain": {"skip": "plain"}, "attention": {"skip": "plain", "bottleneck": "attention"}}
    changes = {**GRID["changes"], "network": {"features": [2, 4], "bottleneck_heads": 2}}
    grid = Grid.read(written(tmp_path, variants=variants, changes=changes))
    arguments = [grid.recipe(name, 1).network_arguments for name in variants]
    plain, attention = (ProSMAUNet(**each).state_dict() for each in arguments)
    assert {name.split(".")[0] for name in attention.keys() - plain.keys()} == {"bottleneck"}
    networks = {"variants": {name: {"network": entries} for name, entries in variants.items()}}
    assert differing(networks).startswith("Variants differ in the skip and bottleneck alone; one seed")
    assert "in the skip alone" in differing({"variants": {"plain": networks["variants"]["plain"]}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": [1]}, "'seed' is no entry"),
        ({"reference": "attention"}, "'reference' should name variants.*attention"),
        ({"variants": {"plain": {}}}, "at least two"),
        (
            {"variants": {"plain": {}, "wide": {"features": [4, 8]}}},
            "'variants: wide' may change the skip and the bottleneck alone",
        ),
        ({"variants": {"plain": {}, "odd": {"gate": "odd"}}}, "'variants: odd'.*'odd'"),
        ({"seeds": [1, 1]}, "'seeds'"),
        ({"seeds": 3}, "'seeds'"),
        ({"degradations": [0.1]}, "'degradations'"),
        ({"degradations": {"fog": [1]}}, "'fog'"),
        ({"degradations": {"noise": [0.2, 0.1]}}, "'degradations: noise'"),
        ({"changes": {"fittings": {"epochs": 2}}}, "'changes: fittings'"),
        ({"changes": {"fitting": {"epoch": 2}}}, "'fitting' has unknown entries: epoch"),
        ({"recipe": "nowhere.yaml"}, "nowhere.yaml"),
        ({"pairs": [["plain"]]}, "'pairs'"),
    ],
)
def test_a_broken_grid_names_the_entry(tmp_path, changes, words):
    with pytest.raises(GridError, match=words) as error:
        Grid.read(written(tmp_path, **changes))
    assert "grid.yaml" in str(error.value)


def test_the_committed_results_page_is_what_the_command_writes(tmp_path):
    page = tmp_path / "training" / "RESULTS.md"
    shutil.copytree(TRAINING / "results", tmp_path / "training" / "results")
    assert main(["results", str(tmp_path / "training" / "results"), "-o", str(page)]) == 0
    assert page.read_text() == (TRAINING / "RESULTS.md").read_text(), "run: prosma results training/results -o ..."


def test_a_results_page_holds_comparisons_with_figures_findings_and_models(finished, tmp_path):
    results, page = tmp_path / "results", tmp_path / "PAGE.md"
    results.mkdir()
    for ending in ("json", "png"):
        shutil.copy(finished / "runs" / f"comparison.{ending}", results / f"tiny.{ending}")
    (results / "findings.md").write_text("## What was found\n\nNothing yet.\n")
    assert main(["results", str(results), "-o", str(page)]) == 0
    text = page.read_text()
    assert "Nothing yet." in text and "## Comparison: tiny" in text and "](results/tiny.png)" in text
    assert (finished / "runs" / "comparison.md").read_text().strip() in text
    bundled = json.loads((ROOT / "ProSMASegmentation/Resources/Models/hippocampus-mr/model.json").read_text())
    assert f"| hippocampus-mr | 47 (test) | {bundled['results']['dice']['mean']:.4f} " in text


def test_an_evaluation_among_the_results_is_a_row_for_each_label(tmp_path):
    results, page = tmp_path / "results", tmp_path / "PAGE.md"
    results.mkdir()
    found = [{"dice": d, "dice_interval": [d - 0.1, d + 0.1], "dice_cases": 5} for d in (0.7, 0.6, 0.8)]
    labels = dict(zip(("nerve", "vessel"), found[1:], strict=True))
    report = {"model": "mine", "version": "2.0.0", "split": "test", "cases": 5, "mean": found[0], "labels": labels}
    report["gate"] = {"levels": [{"zeros": 0.25}, {"zeros": 0.125}]}
    (results / "mine.json").write_text(json.dumps(report))
    assert main(["results", str(results), "-o", str(page)]) == 0
    text = page.read_text()
    assert "| mine 2.0.0 | mean over labels | 5 (test) | 0.7000 (0.6000 to 0.8000) | 25.0 %, 12.5 % |" in text
    assert (
        "|  | nerve | 5 (test) | 0.6000 (0.5000 to 0.7000) |  |" in text and "|  | vessel | 5 (test) | 0.8000 (" in text
    )


def test_a_wrong_file_among_the_results_is_named(tmp_path, capsys):
    (tmp_path / "other.json").write_text('{"kind": "something"}')
    assert main(["results", str(tmp_path), "-o", str(tmp_path / "PAGE.md")]) == 1
    assert "other.json' is neither" in capsys.readouterr().err
    assert not (tmp_path / "PAGE.md").exists()


def test_processes_for_patches_are_refused_on_a_cluster(finished, data, tmp_path, capsys):
    command = ["compare", str(finished / "grid.yaml"), "--data", str(data), "-o", str(tmp_path / "runs")]
    assert main([*command, "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"]) == exit_codes.FAILED
    assert "Leave out --workers." in capsys.readouterr().err
