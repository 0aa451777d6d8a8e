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
from prosma.package import BrokenPackage, ModelPackage, PackageError, bundled_models_folder, find_packages
from type_fuzz import WRONG, changed, mutants, places

BUNDLED = sorted(bundled_models_folder().glob("*/model.json"))
SEED = 20261129


def drawn(number: int) -> Iterator[tuple[Path, str, dict]]:
    """Mutants of all bundled models in a fixed random order: the model's folder, what was changed, the description."""
    random_number = random.Random(SEED)
    documents = {path.parent: json.loads(path.read_text()) for path in BUNDLED}
    everything = [(folder, place) for folder, document in documents.items() for place in places(document)]
    for _ in range(number):
        folder, place = random_number.choice(everything)
        wrong = random_number.choice(WRONG)
        yield folder, f"{place} = {wrong!r}", changed(documents[folder], place, wrong)


def write(folder: Path, original: Path, description: dict) -> Path:
    """A package with this description and the weights of a bundled model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(description))
    weights = folder / "weights.safetensors"
    if not weights.exists():
        try:
            os.link(original / "weights.safetensors", weights)
        except OSError:  # another file system
            weights.write_bytes((original / "weights.safetensors").read_bytes())
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
        opens_or_says_why(write(tmp_path / folder.name, folder, model), what) for folder, what, model in drawn(300)
    ]
    assert 0 < sum(opened) < 150


@pytest.mark.slow
@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.parent.name)
def test_every_wrong_value_is_refused_in_a_sentence_or_does_no_harm(path, tmp_path):
    opened = 0
    for place, wrong, model in mutants(json.loads(path.read_text())):
        opened += opens_or_says_why(write(tmp_path / "model", path.parent, model), f"{place} = {wrong!r}")
    assert opened


def listing_survives(home: Path, few: list, capsys) -> None:
    """`prosma models` and the list with these mutants among the user's models: each one a model or a line."""
    capsys.readouterr()
    for number, (folder, _, model) in enumerate(few):
        unique = (
            {**model, "id": f"m{number}"} if isinstance(model.get("id"), str) and model["id"] == folder.name else model
        )
        write(home / "models" / f"m{number:05}", folder, unique)
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
@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.parent.name)
def test_models_lists_every_wrong_value(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path))
    every = [
        (path.parent, f"{place} = {wrong!r}", model) for place, wrong, model in mutants(json.loads(path.read_text()))
    ]
    listing_survives(tmp_path, every, capsys)


def image_for(model: dict, folder: Path) -> list[str]:
    """A small image for each channel of a model."""
    shape = (24, 24, 16) if model["dimension"] == 3 else (24, 24, 1)
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    image = Image(pixels[None], np.diag([2.0, 2, 2, 1]))
    path = folder / "scan.nrrd"
    write_labels(
        path, pixels, image, [{"value": value, "name": str(value), "color": [0, 0, 0]} for value in range(1, 256)]
    )
    return [str(path)] * len(model["channels"])


def segments_or_says_why(few: Iterator, tmp_path: Path, capsys) -> int:
    done = 0
    for number, (folder, what, model) in enumerate(few):
        package = write(tmp_path / f"model{number}", folder, model)
        images = image_for(json.loads((folder / "model.json").read_text()), tmp_path)
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
