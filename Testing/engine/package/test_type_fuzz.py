"""Every value of every bundled model.json replaced by each of ten wrong ones: a sentence or a usable model, never less."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prosma.cli import main
from prosma.image.geometry import Image
from prosma.image.writing import write_labels
from prosma.package import (
    BrokenPackage,
    ModelPackage,
    PackageError,
    bundled_models_folder,
    find_packages,
    write_package,
)
from tiny_model import make_tiny_package
from type_fuzz import WRONG, changed, mutants, places

BUNDLED = sorted(bundled_models_folder().glob("*/model.json"))
DOCUMENTS = [*BUNDLED, *sorted(bundled_models_folder().glob("*/finder.json"))]
SEED = 20261129
NAME_OF = {"ids": lambda path: f"{path.parent.name} {path.stem}"}


def drawn(number: int, documents: list[Path] | None = None) -> Iterator[tuple[Path, str, dict]]:
    """Mutants of all descriptions in a fixed random order: whose it is of, what was changed, the description."""
    random_number = random.Random(SEED)
    contents = {path: json.loads(path.read_text()) for path in documents or DOCUMENTS}
    everything = [(path, place) for path, content in contents.items() for place in places(content)]
    for _ in range(number):
        path, place = random_number.choice(everything)
        wrong = random_number.choice(WRONG)
        yield path, f"{path.name} {place} = {wrong!r}", changed(contents[path], place, wrong)


def write(folder: Path, path: Path, description: dict) -> Path:
    """The package that the description at `path` is of, with this one in its place."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in path.parent.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_text(file.read_text())
        elif file.suffix == ".safetensors" and not (folder / file.name).exists():
            try:
                os.link(file, folder / file.name)
            except OSError:  # another file system
                (folder / file.name).write_bytes(file.read_bytes())
    (folder / path.name).write_text(json.dumps(description))
    return folder


def is_sentence(text: str) -> bool:
    return text.endswith(".") and "fault of ProSMA" not in text and 20 < len(text) < 700


def opens_or_says_why(folder: Path, what: str) -> bool:
    try:
        ModelPackage.open(folder)
        return True
    except PackageError as error:
        assert is_sentence(str(error)), (what, error)
        assert error.remedy, what
        return False


def test_a_sample_of_wrong_values_is_refused_in_a_sentence_or_does_no_harm(tmp_path):
    opened = [
        opens_or_says_why(write(tmp_path / path.parent.name, path, model), what) for path, what, model in drawn(300)
    ]
    assert 0 < sum(opened) < 150


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, **NAME_OF)
def test_every_wrong_value_is_refused_in_a_sentence_or_does_no_harm(path, tmp_path):
    opened = 0
    for place, wrong, model in mutants(json.loads(path.read_text())):
        opened += opens_or_says_why(write(tmp_path / "model", path, model), f"{place} = {wrong!r}")
    assert opened


def listing_survives(home: Path, few: list, capsys) -> None:
    """`prosma models` and the list with these mutants among the user's models: each one a model or a line."""
    capsys.readouterr()
    for number, (path, _, changed_one) in enumerate(few):
        folder = write(home / "models" / f"m{number:05}", path, changed_one)
        model = json.loads((folder / "model.json").read_text())
        if model.get("id") == path.parent.name:
            (folder / "model.json").write_text(json.dumps({**model, "id": f"m{number}"}))
    assert main(["models"]) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    found = find_packages([home / "models"])
    assert len(found) == len(few)
    broken = [package for package in found if isinstance(package, BrokenPackage)]
    assert all(is_sentence(package.reason) for package in broken), [package.reason for package in broken]
    assert len(lines) == len(broken)
    assert all(path.parent.name in said.out for path in BUNDLED), "the bundled models stay usable"
    assert main(["models", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["broken"]) == len(broken)


def test_models_lists_a_sample_of_wrong_values(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path))
    listing_survives(tmp_path, list(drawn(120)), capsys)


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, **NAME_OF)
def test_models_lists_every_wrong_value(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path))
    every = [(path, f"{place} = {wrong!r}", model) for place, wrong, model in mutants(json.loads(path.read_text()))]
    listing_survives(tmp_path, every, capsys)


def image_for(model: dict, folder: Path) -> list[str]:
    """An image for each channel of a model: small, but larger than what the model knows where it has a finder."""
    shape, size = ((24, 24, 16) if model["dimension"] == 3 else (24, 24, 1)), 2.0
    if model.get("finder"):
        shape, size = (40, 40, 36), 1 + 1.25 * max(model["field_of_view"]["max_mm"]) / 36
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    image = Image(pixels[None], np.diag([size, size, size, 1]))
    path = folder / "scan.nrrd"
    write_labels(
        path, pixels, image, [{"value": value, "name": str(value), "color": [0, 0, 0]} for value in range(1, 256)]
    )
    return [str(path)] * len(model["channels"])


def segments_or_says_why(few: Iterator, tmp_path: Path, capsys) -> int:
    done = 0
    for number, (path, what, model) in enumerate(few):
        package = write(tmp_path / f"model{number}", path, model)
        images = image_for(json.loads((path.parent / "model.json").read_text()), tmp_path)
        capsys.readouterr()
        code = main(
            ["segment", *images, "-m", str(package), "-o", str(tmp_path / f"{number}.nrrd"), "--accept-licence"]
        )
        said = capsys.readouterr().err
        assert "fault of ProSMA" not in said and "Traceback" not in said, (what, said)
        assert code == 0 or said.splitlines()[-1].endswith("."), (what, said)
        assert (tmp_path / f"{number}.nrrd").exists() == (code == 0), what
        done += code == 0
    return done


def test_segment_takes_a_sample_of_wrong_values(tmp_path, capsys):
    assert segments_or_says_why(drawn(30), tmp_path, capsys) > 0


@pytest.mark.slow
def test_segment_takes_a_large_sample_of_wrong_values(tmp_path, capsys):
    assert segments_or_says_why(drawn(600), tmp_path, capsys) > 0


@pytest.fixture
def with_finder(tmp_path):
    """The descriptions of a small model whose finder, of random weights, marks something in noise."""
    finder = make_tiny_package(tmp_path / "coarse", seed=3, spacing=[4.0, 4.0, 4.0], patch_size=[8, 8, 8])
    plain = make_tiny_package(tmp_path / "plain", patch_size=[16, 16, 16])
    regions = [{"name": "left", "modifier": ["SCT", "7771000", "Left"]}, {"name": "right", "shade": 0.5}]
    entries = {
        "field_of_view": {"min_mm": [8, 8, 8], "max_mm": [20, 20, 20]},
        "finder": {"region_mm": [16, 12, 14], "regions": regions},
    }
    weights = plain.weights_path.read_bytes()
    package = write_package(tmp_path / "fine", {**plain.model, **entries}, weights, "# Fine", finder=finder)
    return [package.folder / name for name in ("model.json", "finder.json")]


@pytest.mark.parametrize("number", [10, pytest.param(400, marks=pytest.mark.slow)])
def test_segment_takes_wrong_values_of_a_model_with_a_finder(with_finder, number, tmp_path, capsys):
    assert segments_or_says_why(drawn(number, with_finder), tmp_path, capsys) > 0
