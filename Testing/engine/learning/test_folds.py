"""Two folds trained, packed as one model and used, on the ways that users have (training/prosma/learning/packing/runs.py)."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from test_learning import small_recipe

from prosma.cli import main
from prosma.image.reading import read_image
from prosma.inference.segmenter import Segmenter
from prosma.learning.packing import runs as packing_runs
from prosma.learning.packing.export import export
from prosma.network.unet import ProSMAUNet
from prosma.package import ModelPackage
from remedies import complained
from small_volumes import smooth_volume

SHAPE = (16, 24, 16)
SPLITS = [
    {"train": ["case_0", "case_1", "case_2"], "val": ["case_3", "case_4"], "test": ["case_5"]},
    {"train": ["case_3", "case_4", "case_2"], "val": ["case_0", "case_1"], "test": ["case_5"]},
]


def write_volume(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(array, np.eye(4)).to_filename(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An nnU-Net folder of volumes whose labels follow their brightness, with two folds and one test case."""
    folder = tmp_path_factory.mktemp("Dataset002")
    for number in range(6):
        array = smooth_volume(SHAPE, seed=number).array[0].astype(np.float32)
        bright = (array > np.percentile(array, 60)).astype(np.uint8) + (array > np.percentile(array, 85))
        write_volume(folder / f"imagesTr/case_{number}_0000.nii.gz", array)
        write_volume(folder / f"labelsTr/case_{number}.nii.gz", bright.astype(np.uint8))
    (folder / "splits_final.json").write_text(json.dumps(SPLITS))
    return folder


def write_recipe(path: Path, **model) -> Path:
    recipe = small_recipe(epochs=1, learning_rate=0.05, validate_every=1).to_dict()
    recipe["model"].update(patch_size=list(SHAPE), intensity={"rule": "zscore"}, field_of_view=None, **model)
    path.write_text(yaml.safe_dump(recipe))
    return path


def trained(recipe: Path, data: Path, run: Path, fold: int) -> Path:
    arguments = ["train", str(recipe), "--data", str(data), "--fold", str(fold), "-o", str(run), "--workers", "0"]
    assert main([*arguments, "--device", "cpu"]) == 0
    return run


@pytest.fixture(scope="module")
def folds(data, tmp_path_factory):
    """Runs of fold 0 and 1 of one recipe."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = write_recipe(folder / "recipe.yaml")
    return [trained(recipe, data, folder / f"run{fold}", fold) for fold in (0, 1)]


@pytest.fixture(scope="module")
def package(folds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages") / "both"
    assert main(["export", *map(str, folds), "-o", str(folder)]) == 0
    return ModelPackage.open(folder)


def probabilities(package: ModelPackage, array: np.ndarray) -> list[np.ndarray]:
    """Of each set of weights in the file, by PyTorch alone: float64 (classes, I, J, K)."""
    stored = load_file(package.weights_path)
    normalised = torch.from_numpy((array - array.mean()) / array.std())[None, None].double()
    found = []
    for number in range(1, package.model["weights"]["sets"] + 1):
        own = {name.removeprefix(f"{number}."): each for name, each in stored.items() if name.startswith(f"{number}.")}
        network = ProSMAUNet(**package.model["network"]).double().eval()
        for name, parameter in network.named_parameters():
            values = own[name].astype(np.float64) * own.get(f"{name}.scale", 1.0)
            parameter.data.copy_(torch.from_numpy(values))
        with torch.inference_mode():
            found.append(network(normalised)[0].softmax(0).numpy())
    return found


def test_two_folds_answer_with_the_mean_of_their_probabilities(package, folds, data, tmp_path, capsys):
    """From the command line to the voxel, against plain PyTorch on the tensors in the file."""
    path, result = data / "imagesTr" / "case_5_0000.nii.gz", tmp_path / "labels.nii.gz"
    capsys.readouterr()
    assert main(["segment", str(path), "-m", str(package.folder), "-o", str(result), "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["cases"][0]
    array = np.asarray(nibabel.load(path).dataobj).astype(np.float64)
    one, other = probabilities(package, array)
    assert np.abs(one - other).max() > 0.02, "two networks"
    mean = (one + other) / 2
    labels = np.asarray(nibabel.load(result).dataobj)
    ahead = np.sort(mean, axis=0)
    sure = ahead[-1] > ahead[-2] + 1e-3
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(labels[sure], mean.argmax(0)[sure])

    segmenter = Segmenter(package, "cpu")
    found = segmenter.segment(read_image([path]), ["probabilities"]).probabilities
    np.testing.assert_allclose(found / 255, mean, atol=0.003)
    assert np.abs(found / 255 - one).max() > 0.01
    alone = [Segmenter(export(run, tmp_path / run.name), "cpu").segment(read_image([path])) for run in folds]
    shares = [result.statistics["removed_share"] for result in alone]
    assert told["removed_share"] == pytest.approx(np.mean(shares), abs=1e-3) and shares[0] != shares[1]


def test_a_package_of_several_runs_says_so_everywhere(package, folds, tmp_path, monkeypatch, capsys):
    weights = package.model["weights"]
    assert (package.model["schema"], weights["sets"], package.sets) == (3, 2, 2)
    single = export(folds[0], tmp_path / "single")
    assert single.model["schema"] == 2 and "sets" not in single.model["weights"] and single.sets == 1
    assert weights["parameters"] == 2 * single.model["weights"]["parameters"]
    card = (package.folder / "README.md").read_text()
    assert "weights in 8 bits; 2 sets of weights, whose class probabilities are averaged" in card
    assert "- Set 1: fold 0, seed" in card and "- Set 2: fold 1, seed" in card
    seconds = [json.loads((run / "history.json").read_text())["seconds"] for run in folds]
    assert package.model["training"]["seconds"] == sum(seconds)
    assert package.model["training"]["cases"] == {}, "without the data nobody knows which cases are the same"
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path / "home"))
    shutil.copytree(package.folder, tmp_path / "home" / "models" / "both")
    monkeypatch.setattr("prosma.cli.models.model_folders", lambda: [tmp_path / "home" / "models"])
    capsys.readouterr()
    assert main(["models"]) == 0
    assert "networks 2, whose answers are averaged" in capsys.readouterr().out


def test_it_is_measured_on_cases_that_no_run_has_learnt_from(folds, data, tmp_path, monkeypatch, capsys):
    for module in ("learning.packing.fit_statistics", "inference.fit"):
        monkeypatch.setattr(f"prosma.{module}.LEAST_CASES", 2)
    before = {path.name for run in folds for path in run.iterdir()}
    arguments = ["export", *folds, "--data", data, "--device", "cpu", "-o"]
    complained(
        "learning/packing/runs.py: how good their average is",
        "Give --split test",
        [*arguments, tmp_path / "p", "--split", "val"],
        capsys,
    )
    assert not (tmp_path / "p").exists()
    assert main([*map(str, arguments), str(tmp_path / "p")]) == 0
    assert "tells no expected quality" in capsys.readouterr().out
    made = ModelPackage.open(tmp_path / "p")
    assert made.model["training"]["cases"] == {"train": 5, "test": 1}
    assert (
        made.model["results"]["cases"] == 1 and "1 cases of the test split" in (made.folder / "README.md").read_text()
    )
    assert made.fit_path.is_file() and not made.quality_path.is_file()
    assert {path.name for run in folds for path in run.iterdir()} == before, "what lies in a run is about it alone"
    assert [path.name for path in tmp_path.iterdir()] == ["p"], "nothing else is left"
    report = tmp_path / "report.json"
    assert main(["evaluate", str(made.folder), "--data", str(data), "--json", str(report), "--device", "cpu"]) == 0
    assert json.loads(report.read_text())["mean"]["dice"] == made.model["results"]["dice"]["mean"]


def test_test_cases_that_another_fold_was_chosen_by_are_refused(folds, data, tmp_path, capsys):
    moved = shutil.copytree(data, tmp_path / "data")
    splits = [SPLITS[0], {**SPLITS[1], "val": ["case_0", "case_5"], "test": ["case_1"]}]
    (moved / "splits_final.json").write_text(json.dumps(splits))
    arguments = ["export", *folds, "--data", moved, "--device", "cpu", "-o", tmp_path / "p"]
    name, remedy = "learning/packing/runs.py: how good their average is", "every fold has the same test cases"
    assert "'case_5' of the split 'test' is among the val cases" in complained(name, remedy, arguments, capsys)
    (moved / "splits_final.json").write_text(json.dumps(SPLITS))
    assert main(list(map(str, arguments))) == 0


def test_runs_that_do_not_belong_together_are_refused(folds, data, tmp_path, capsys):
    first, second = folds
    other = trained(write_recipe(tmp_path / "other.yaml", spacing=[2.0, 2.0, 2.0]), data, tmp_path / "run", 1)
    told = complained(
        "learning/packing/runs.py: cannot be averaged",
        f"prosma train {first / 'recipe.json'} --data DATA --fold K -o RUN",
        ["export", first, other, "-o", tmp_path / "p"],
        capsys,
    )
    assert "'spacing' is [1.0, 1.0, 1.0] and [2.0, 2.0, 2.0]" in told
    other = trained(first / "recipe.json", data, tmp_path / "again", 1)
    assert main(["export", str(first), str(other), "-o", str(tmp_path / "p")]) == 0
    complained(
        "learning/packing/runs.py: hold the same weights",
        "Give each run once",
        ["export", first, second, first, "-o", tmp_path / "q"],
        capsys,
    )
    complained(
        "learning/packing/runs.py: at most",
        "Give fewer runs",
        ["export", *([first] * 11), "-o", tmp_path / "q"],
        capsys,
    )
    assert not (tmp_path / "q").exists()


def test_what_differs_is_named(folds):
    recipe = packing_runs.Run.read(folds[0]).recipe
    other = packing_runs.Run.read(folds[0]).recipe
    other.network["features"] = [4, 8]
    assert list(packing_runs.differences(recipe, other)) == ["their 'network.features' is [4, 8, 8] and [4, 8]"]
    other.network["features"] = [4, 8, 8]
    other.model["labels"] = other.model["labels"][:1]
    assert [text.split("' is")[0] for text in packing_runs.differences(recipe, other)] == [
        "their 'labels",
        "their 'network.out_channels",
    ]


def test_the_commands_of_the_page_about_folds_run(data, tmp_path, monkeypatch):
    """Word for word, with a recipe cut down to seconds."""
    page = (Path(__file__).parents[3] / "docs" / "own-model.md").read_text()
    commands = page.split("### Several folds as one model")[1].split("```")[1].strip().splitlines()
    assert len(commands) == 5
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DATA").symlink_to(data)
    shutil.copy(data / "imagesTr" / "case_5_0000.nii.gz", "scan.nii.gz")
    for command in commands:
        program, *arguments = command.split()
        options = ["--workers", "0", "--device", "cpu"] if arguments[0] == "train" else []
        assert program == "prosma" and main([*arguments, *options]) == 0, command
        if arguments[0] == "plan":
            recipe = yaml.safe_load(Path("recipe.yaml").read_text())
            recipe["network"]["features"] = [4, 8, 8]
            recipe["network"].pop("strides", None)
            recipe["network"].pop("kernel_sizes", None)
            recipe["fitting"].update(epochs=1, iterations=1, validate_every=1)
            Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert ModelPackage.open("PACKAGE").sets == 2 and Path("scan.seg.nrrd").is_file()


def test_seeds_of_one_fold_tell_the_expected_quality_of_their_average(folds, data, tmp_path, monkeypatch, capsys):
    """Their validation cases are new to both. Few cases suffice here."""
    monkeypatch.setattr("prosma.learning.packing.quality_statistics.LEAST_ROWS", 2)
    monkeypatch.setattr("prosma.learning.packing.quality_statistics.PARTS", 2)
    content = yaml.safe_load((folds[0].parent / "recipe.yaml").read_text())
    content["fitting"]["seed"] = 4
    (tmp_path / "seed.yaml").write_text(yaml.safe_dump(content))
    other = trained(tmp_path / "seed.yaml", data, tmp_path / "run", 0)
    arguments = ["export", str(folds[0]), str(other), "--data", str(data), "--device", "cpu", "--split", "val"]
    capsys.readouterr()
    assert main([*arguments, "-o", str(tmp_path / "p")]) == 0
    assert "no expected quality" not in capsys.readouterr().out
    made = ModelPackage.open(tmp_path / "p")
    assert made.model["training"]["cases"] == {"train": 3, "val": 2, "test": 1}
    assert "seed 4" in (made.folder / "README.md").read_text()
    result = Segmenter(made, "cpu").segment(read_image([data / "imagesTr" / "case_5_0000.nii.gz"]), refuse_unfit=False)
    assert result.expected_dice
