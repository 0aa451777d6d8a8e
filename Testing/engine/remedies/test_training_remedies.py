"""Recipes, comparisons, runs and result pages that are refused, and what the refusals say is to be done."""

import copy
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from prosma.cli.app import main
from prosma.learning.checkpoints import epochs_to_resume, read_checkpoint
from prosma.learning.compare.comparing import ComparisonError, Run, chosen
from prosma.learning.compare.grid import Grid
from prosma.learning.data.dataset import LabelledFolder
from prosma.learning.fit.finetuning import FineTuningOptions, check_case, check_id, check_output, fine_tune
from prosma.learning.fit.fitting import WholeCheckpoints
from prosma.learning.packing.export import export
from prosma.learning.recipe import Recipe
from prosma.learning.report.page import write_page
from prosma.learning.report.reporting import Scores
from remedies import complained, refused
from tiny_model import make_tiny_package, make_tiny_promptable

TRAINING = Path(__file__).resolve().parents[3] / "training"
RECIPE = yaml.safe_load((TRAINING / "recipes" / "hippocampus-mr.yaml").read_text())
STROKES = yaml.safe_load(next((TRAINING / "recipes").glob("*stroke*.yaml")).read_text())
GRID = {
    "name": "tiny",
    "recipe": str(TRAINING / "recipes" / "hippocampus-mr.yaml"),
    "changes": {"model": {"patch_size": [16, 24, 16]}, "network": {"features": [2, 4]}},
    "variants": {"plain": {"skip": "plain"}, "decoder": {"skip": "prosma", "field_grid": "decoder"}},
    "seeds": [1, 2],
    "reference": "plain",
    "degradations": {"noise": [0.5]},
}


def changed(content, place, value):
    """A copy of `content` with the value at a place ("fitting.fold") set, or removed where it is None."""
    content = copy.deepcopy(content)
    *way, last = place.split(".") if place else ["", ""]
    part = content
    for step in way:
        part = part.setdefault(step, {})
    part.pop(last, None)
    if value is not None:
        part[last] = value
    return content


# --- recipes and comparisons: the entry that is named is set to what is said

RECIPES = [  # entry, its wrong value, the refusal, what it says
    ("extra", 1, "learning/recipe.py: The recipe has unknown entries", "unknown entries ['extra']"),
    ("fitting.epoch", 1, "learning/recipe.py: has unknown entries: ...", "'fitting' has unknown entries: epoch"),
    ("model.intensity", None, "learning/recipe.py: 'model' lacks", "'model' lacks 'intensity'"),
    ("fitting.optimizer", "adam", "learning/recipe.py: The optimizer should be", "adamw or sgd"),
    ("fitting.schedule", "linear", "learning/recipe.py: The schedule should be", "poly or cosine"),
    ("augmentation.outside", "zero", "learning/recipe.py: should be border or reflection", "border or reflection"),
    (
        "augmentation.channel_dropout",
        [0.1, 0.1],
        "learning/recipe.py: channel_dropout should hold",
        "1 probabilities, one a channel",
    ),
    (
        "fitting.early_share",
        1.5,
        "learning/recipe.py: early_scale should be above 0",
        "early_share at least 0 and below 1",
    ),
    ("fitting.fold", -1, "learning/recipe.py: fold should be a whole number", "from 0"),
    (
        "painting",
        {"structures": [[1]]},
        "learning/recipe.py: 'structures' should hold a list for each",
        "for each of the 2 labels",
    ),
    (
        "strokes",
        {"noise": 0.1},
        "learning/recipe.py: belong together: one of them is missing",
        "'strokes' and the model's 'prompt'",
    ),
    ("model.patch_size", [8, 8], "learning/recipe.py: patch_size should hold", "one number per dimension"),
]
CORRECTED = {
    "model.intensity": RECIPE["model"]["intensity"],
    "fitting.optimizer": "sgd",
    "fitting.schedule": "cosine",
    "augmentation.outside": "reflection",
    "augmentation.channel_dropout": [0.1],
    "fitting.early_share": 0.5,
    "fitting.fold": 0,
    "painting": {"structures": [[1], [2]]},
    "model.patch_size": [8, 8, 8],
}


@pytest.mark.parametrize(("entry", "wrong", "name", "remedy"), RECIPES)
def test_a_recipe_is_corrected_as_it_is_said(tmp_path, entry, wrong, name, remedy):
    path = tmp_path / "recipe.yaml"
    broken = changed(RECIPE, entry, wrong)
    path.write_text(yaml.safe_dump(broken))
    refused(name, remedy, Recipe.read, path)
    refused("learning/recipe.py: cannot be used: ...", f"The recipe '{path}' cannot be used", Recipe.read, path)
    path.write_text(yaml.safe_dump(changed(broken, entry, CORRECTED.get(entry))))
    assert Recipe.read(path).model["id"] == RECIPE["model"]["id"]


def test_what_is_no_mapping_and_what_no_package_comes_of(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text("[]")
    refused("learning/recipe.py: should be a YAML mapping with", "with 'model' and 'network'", Recipe.read, path)
    path.write_text(yaml.safe_dump(changed(RECIPE, "model.name", "two\nlines")))
    refused(
        "learning/recipe.py: No model package can come of this recipe",
        "Correct the recipe",
        Recipe.read(path).check_package,
    )
    path.write_text(yaml.safe_dump(RECIPE))
    Recipe.read(path).check_package()


GRIDS = [
    ("name", "A b", "learning/compare/grid.py: 'name' should be", "lower-case letters", "a-b"),
    (
        "variants",
        {"plain": {}},
        "learning/compare/grid.py: 'variants' should name at least two",
        "at least two",
        GRID["variants"],
    ),
    (
        "seeds",
        [1, 1],
        "learning/compare/grid.py: 'seeds' should be a list of different",
        "different whole numbers",
        [1, 2],
    ),
    ("reference", "none", "learning/compare/grid.py: should name variants", "(decoder, plain)", "decoder"),
    (
        "degradations",
        [1],
        "learning/compare/grid.py: should be a mapping of kinds and levels",
        "a mapping",
        {"noise": [1]},
    ),
    (
        "degradations",
        {"fog": [1]},
        "learning/compare/grid.py: 'degradations' has no kind",
        "there are noise",
        {"noise": [1]},
    ),
    (
        "degradations",
        {"noise": [2, 1]},
        "learning/compare/grid.py: should be rising positive numbers",
        "rising",
        {"noise": [1, 2]},
    ),
    (
        "variants",
        {"plain": {}, "B c": {}},
        "learning/compare/grid.py: The variant '...' should be",
        "lower-case letters",
        GRID["variants"],
    ),
    (
        "variants",
        {"plain": {}, "b": {"features": [2]}},
        "learning/compare/grid.py: may change the skip and the bottleneck alone",
        "(skip, gate,",
        GRID["variants"],
    ),
    (
        "variants",
        {"plain": {}, "b": {"skip": "no"}},
        "learning/compare/grid.py: describes no network",
        "skip",
        GRID["variants"],
    ),
    (
        "changes",
        [1],
        "learning/compare/grid.py: 'changes' should hold sections of a recipe",
        "sections",
        GRID["changes"],
    ),
    (
        "changes",
        {"seeds": {}},
        "learning/compare/grid.py: should be a mapping and one of",
        "model, network",
        GRID["changes"],
    ),
    ("seeds", None, "learning/compare/grid.py: is ...", "'seeds' is missing", [1]),
]


@pytest.mark.parametrize(("entry", "wrong", "name", "remedy", "right"), GRIDS)
def test_a_comparison_is_corrected_as_it_is_said(tmp_path, entry, wrong, name, remedy, right):
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(changed(GRID, entry, wrong)))
    refused(name, remedy, Grid.read, path)
    refused("learning/compare/grid.py: cannot be run: ...", f"The comparison '{path}' cannot be run", Grid.read, path)
    path.write_text(yaml.safe_dump(changed(GRID, entry, right)))
    assert Grid.read(path).variants


def test_what_is_no_mapping_is_no_comparison(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("text")
    refused(
        "learning/compare/grid.py: it should be a YAML mapping", "with 'name', 'recipe', 'variants'", Grid.read, path
    )
    path.write_text(yaml.safe_dump(GRID))
    assert Grid.read(path).name == "tiny"


# --- runs


def finished(out, grid, variant, seed, cases=("a", "b")):
    run = Run(grid, variant, seed, out)
    run.folder.mkdir(parents=True)
    (run.folder / "recipe.json").write_text(json.dumps(run.recipe.to_dict()))
    scores = {"evaluation": run.evaluation, "cases": list(cases), "data": "d", "labelled": [True] * len(cases)}
    (run.folder / "scores.json").write_text(json.dumps(scores))
    return run


def test_runs_of_a_comparison(tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID))
    grid = Grid.read(tmp_path / "grid.yaml")
    error = refused(
        "learning/compare/comparing.py: it has ...",
        "it has decoder, plain",
        chosen,
        "variant",
        ["none"],
        list(grid.variants),
    )
    assert chosen("variant", ["plain"], list(grid.variants)) == ["plain"] and isinstance(error, ComparisonError)
    report = ["compare", tmp_path / "grid.yaml", "-o", tmp_path / "runs"]
    complained(
        "cli/compare.py: Say with --data what to train on", "report on finished runs with --report", report, capsys
    )
    with_workers = [*report, "--data", tmp_path / "data", "--scheduler", "tcp://none", "--workers", 2]
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / "data" / part).mkdir(parents=True)
        name = "a_0000.nii.gz" if part == "imagesTr" else "a.nii.gz"
        nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)).to_filename(tmp_path / "data" / part / name)
    complained("cli/compare.py: Leave out --workers", "Leave out --workers", with_workers, capsys)
    complained("learning/report/reporting.py: holds no finished run of", "'plain'", [*report, "--report"], capsys)
    finished(tmp_path / "runs", grid, "plain", 1)
    assert Scores(grid, tmp_path / "runs").cases == ["a", "b"]
    other = finished(tmp_path / "runs", grid, "decoder", 1, ("c", "d"))
    refused(
        "learning/report/reporting.py: were scored on different cases",
        "Use one --out for each data set",
        Scores,
        grid,
        tmp_path / "runs",
    )
    shutil.move(other.folder, tmp_path / "others" / other.name)
    assert Scores(grid, tmp_path / "runs").cases == ["a", "b"]
    (other.out / "plain-seed1/recipe.json").write_text(json.dumps(grid.recipe("plain", 2).to_dict()))
    run = Run(grid, "plain", 1, other.out)
    refused(
        "learning/compare/comparing.py: was trained with other settings",
        "remove that folder to train it again",
        run.check,
    )
    Run(grid, "plain", 1, tmp_path / "another").check()
    shutil.rmtree(run.folder)
    run.check()


def test_checkpoints(tmp_path):
    path, right = tmp_path / "last.ckpt", {"epoch": 1, "state_dict": {"a": torch.full((9,), 1.5)}}
    path.write_bytes(b"damaged")
    refused(
        "learning/checkpoints.py: cannot be read: it is damaged",
        "Use the run's own checkpoint, or train again",
        read_checkpoint,
        path,
    )
    torch.save({"epoch": 1}, path)
    refused("learning/checkpoints.py: is no checkpoint of", "Train again", read_checkpoint, path)
    torch.save(right, path)
    assert read_checkpoint(path)["epoch"] == 1
    whole = path.read_bytes()
    place = whole.index(np.full(9, 1.5, np.float32).tobytes())
    path.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
    torch.load(path, weights_only=True)  # PyTorch does not mind
    refused("learning/checkpoints.py: cannot be read: it is damaged", "or train again elsewhere", read_checkpoint, path)


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(small_files, tmp_path):
    save, path = WholeCheckpoints().save_checkpoint, tmp_path / "last.ckpt"
    save({"epoch": 1, "state_dict": {}}, path)
    before, large = path.read_bytes(), {"epoch": 2, "state_dict": {"a": torch.zeros(9000)}}
    with small_files(20_000):
        refused("learning/fit/fitting.py: could not be written; the one before", "Make room", save, large, path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    save(large, path)
    assert read_checkpoint(path)["epoch"] == 2


def test_exports(tmp_path, capsys):
    complained(
        "cli/export.py: There is no run",
        "Give the folder that train -o named",
        ["export", tmp_path / "none", "-o", tmp_path / "p"],
        capsys,
    )
    run, old = tmp_path / "run", make_tiny_package(tmp_path / "old").folder
    run.mkdir()
    (old / "README.md").write_text("Mine.")
    arguments = ["export", run, "-o", old]
    complained("cli/export.py: There is a package in", "or say --again", arguments, capsys)
    assert (old / "README.md").read_text() == "Mine."
    complained("learning/packing/runs.py: train one first", "prosma train RECIPE", [*arguments, "--again"], capsys)
    refused(
        "learning/packing/runs.py: train one first",
        f"prosma train RECIPE --data DIR --out {run}",
        export,
        run,
        tmp_path / "p",
    )
    recipe = Recipe.from_dict(changed(STROKES, "network.features", [4, 8]))
    (run / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    (run / "history.json").write_text(json.dumps({"seconds": 1, "hardware": "none", "epochs": []}))
    from prosma.network.unet import ProSMAUNet

    weights = {f"network.{name}": value for name, value in ProSMAUNet(**recipe.network_arguments).state_dict().items()}
    average = {f"average.{name}": value for name, value in weights.items()}
    torch.save({"epoch": 1, "state_dict": {**weights, **average}}, run / "last.ckpt")
    record = (run / "recipe.json").read_text()
    (run / "recipe.json").write_text(record[:-40])
    damaged = "learning/checkpoints.py: a record of the run, is missing or damaged"
    refused(damaged, "Put a copy of it back", epochs_to_resume, run, recipe)
    refused(damaged, f"'{run / 'recipe.json'}'", export, run, tmp_path / "p")
    (run / "recipe.json").write_text(record)
    epochs_to_resume(run, recipe)
    fewer = Recipe.from_dict(changed(recipe.to_dict(), "fitting.epochs", 1))
    refused("learning/checkpoints.py: are asked for", "Ask for more, or export it", epochs_to_resume, run, fewer)
    refused(
        "learning/packing/export.py: could be compared with those of a data set",
        "Export it without --data",
        export,
        run,
        tmp_path / "p",
        tmp_path,
    )


def corrected(folder):
    """A folder with one corrected volume."""
    image, labels = np.random.default_rng(0).normal(size=(16, 16, 16)), np.ones((16, 16, 16))
    for name, array in (("imagesTr/a_0000", image), ("labelsTr/a", labels)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array.astype(np.float32), np.eye(4)), folder / f"{name}.nii.gz")
    return folder


def test_fine_tuning(tmp_path):
    package, flat = make_tiny_package(tmp_path / "p"), make_tiny_package(tmp_path / "f", dimension=2)
    strokes, data = make_tiny_promptable(tmp_path / "s"), corrected(tmp_path / "data")
    refused(
        "learning/fit/finetuning.py: Choose another model", "strokes mean", fine_tune, strokes, data, tmp_path / "t"
    )
    assert fine_tune(package, data, tmp_path / "t", tuning=FineTuningOptions(steps=1)).id == "tiny-tuned"
    refused("learning/fit/finetuning.py: Steps, batch size and learning rate", "above zero", FineTuningOptions, steps=0)
    refused(
        "learning/fit/finetuning.py: The share of the old weights", "at least 0 and below 1", FineTuningOptions, keep=1
    )
    assert FineTuningOptions(steps=1, keep=0).steps == 1
    refused(
        "learning/fit/finetuning.py: is there already and stays as it is",
        "Choose another --output",
        check_output,
        package.folder,
    )
    check_output(tmp_path / "new")
    refused("learning/fit/finetuning.py: Give the new one another --id", "another --id", check_id, "tiny", package)
    refused(
        "learning/fit/finetuning.py: is not allowed: use",
        "lower-case letters, digits, '.', '-' and '_'",
        check_id,
        "A b",
        package,
    )
    check_id("tiny-2.a_b", package)
    for depth, folder in ((1, "slices"), (6, "volumes")):
        for part, file in (("imagesTr", "a_0000.nii.gz"), ("labelsTr", "a.nii.gz")):
            (tmp_path / folder / part).mkdir(parents=True)
            voxels = np.indices((8, 8, depth)).sum(0).astype(np.uint8) % 3
            nib.Nifti1Image(voxels, np.eye(4)).to_filename(tmp_path / folder / part / file)
    slices, volumes = (LabelledFolder.open(tmp_path / folder).cases["a"] for folder in ("slices", "volumes"))
    refused(
        "learning/fit/finetuning.py: Save each corrected slice as a case of its own",
        "a volume of 6 slices",
        check_case,
        volumes,
        flat,
    )
    refused(
        "learning/fit/finetuning.py: Fine-tune a model for 2D images with it",
        "a single image",
        check_case,
        slices,
        package,
    )
    check_case(slices, flat), check_case(volumes, package)


# --- pages of results


def test_pages_of_results(tmp_path, capsys):
    results, models, page = tmp_path / "results", tmp_path / "models", tmp_path / "page.md"
    command = ["results", results, "--models", models, "-o", page]
    complained("cli/results.py: There is no folder", "Check its name", command, capsys)
    results.mkdir()
    models.mkdir()
    (results / "a.json").write_text("{")
    refused("learning/report/page.py: is not valid JSON", "a.json", write_page, results, models, page)
    (results / "a.json").write_text("{}")
    refused(
        "learning/report/page.py: is neither a comparison.json",
        "of `prosma compare`",
        write_page,
        results,
        models,
        page,
    )
    (results / "a.json").write_text(json.dumps({"kind": "published", "introduction": "", "sets": [], "protocols": {}}))
    package = make_tiny_package(models / "tiny", results={"split": "test"})
    refused("learning/report/page.py: The results of the model", "Export it again", write_page, results, models, page)
    whole = {"split": "test", "cases": 1, "dice": {"mean": 0.5, "interval": [0.4, 0.6]}, "iou": {"mean": 0.4}}
    gate = {"removed_share": 0, "levels": []}
    entries = {"results": {**whole, "gate": gate}, "seconds": {"cpu": 1, "cuda": None, "hardware": "none"}}
    good = make_tiny_package(models / "tiny", **entries).weights_path.read_bytes()
    assert main(list(map(str, command))) == 0 and "tiny" in page.read_text()
    package.weights_path.unlink()
    refused(
        "learning/report/page.py: cannot be used: ...", "Export or download it again", write_page, results, models, page
    )
    package.weights_path.write_bytes(good)
    write_page(results, models, page)


def test_a_page_without_bundled_models_names_a_folder(tmp_path, monkeypatch, capsys):
    from prosma import package

    monkeypatch.setattr(package, "bundled_models_folder", lambda: None)
    command = ["results", tmp_path, "-o", tmp_path / "page.md"]
    complained("cli/results.py: There are no bundled models here", "with --models", command, capsys)
    (tmp_path / "models").mkdir()
    assert main([*map(str, command), "--models", str(tmp_path / "models")]) == 0
