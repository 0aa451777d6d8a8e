"""Folders of pictures: numbered ones are cases, not channels, where one picture holds all that the model takes."""

import json

import numpy as np
import PIL.Image
import pytest

from prosma.cli.app import main
from prosma.image.reading import read_labels
from prosma.package.model_package import ModelPackage
from tiny_model import make_tiny_package

PLAIN = {
    "dimension": 2,
    "resize": [48, 32],
    "patch_size": [48, 32],
    "intensity": {"rule": "range", "low": 0, "high": 255},
}
NAMES = {"colour": ["red", "green", "blue"], "grey": ["ultrasound"], "sequences": ["T1", "T2", "FLAIR"]}


@pytest.fixture(params=NAMES)
def named(request, tmp_path):
    """What a model takes, and a small model for it."""
    names = NAMES[request.param]
    package = make_tiny_package(tmp_path / "model", channels=len(names), **PLAIN)
    model = {**package.model, "channels": [{"name": name} for name in names]}
    (package.folder / "model.json").write_text(json.dumps(model))
    return request.param, ModelPackage.open(package.folder)


def picture(seed, colour=False) -> np.ndarray:
    shape = (8, 12, 3) if colour else (8, 12)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8).repeat(5, 0).repeat(5, 1)


def fill(folder, names, colour=False):
    folder.mkdir()
    for seed, name in enumerate(names):
        PIL.Image.fromarray(picture(seed, colour)).save(folder / name)
    return folder


def segment(package, images, output, capsys) -> dict:
    """Cases by name, from the command's report."""
    main(["segment", str(images), "-m", str(package.folder), "-o", str(output), "--device", "cpu", "--json"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    return {case["case"]: case for case in report["cases"]}


def test_numbered_frames_are_cases_unless_the_model_takes_several_images(tmp_path, named, capsys):
    """Three grey frames of three patients; each result is that of the frame alone."""
    kind, package = named
    frames = fill(tmp_path / "in", [f"frame_{k:04d}.png" for k in range(3)])
    cases = segment(package, frames, tmp_path / "out", capsys)
    if kind == "sequences":
        assert list(cases) == ["frame"] and len(cases["frame"]["inputs"]) == 3
        return
    assert sorted(cases) == ["frame_0000", "frame_0001", "frame_0002"]
    for name, case in cases.items():
        alone = tmp_path / f"{name}.nrrd"
        command = ["segment", str(frames / f"{name}.png"), "-m", str(package.folder), "-o", str(alone)]
        assert main([*command, "--device", "cpu"]) == 0
        found = read_labels(tmp_path / "out" / f"{name}.seg.nrrd").array
        np.testing.assert_array_equal(found, read_labels(alone).array)
        assert any("grey image" in notice for notice in case["notices"]) == (kind == "colour")


def test_one_picture_a_case_is_named_as_nnunet_names_it(tmp_path, named, capsys):
    kind, package = named
    names = ["a_0000.png", "b_0000.png", "c.png"]
    cases = segment(package, fill(tmp_path / "in", names, kind == "colour"), tmp_path / "out", capsys)
    if kind == "sequences":
        assert "takes _0000, _0001, _0002" in cases["a"]["error"]["message"]
    else:
        assert sorted(cases) == ["a", "b", "c"] and not any("error" in case for case in cases.values())


def test_a_name_with_and_without_a_number_is_two_cases(tmp_path, named, capsys):
    kind, package = named
    cases = segment(package, fill(tmp_path / "in", ["a.png", "a_0000.png"]), tmp_path / "out", capsys)
    if kind == "sequences":
        assert "Several files are called a" in cases["a"]["error"]["message"]
    else:
        assert sorted(cases) == ["a", "a_0000"] and not any("error" in case for case in cases.values())
