"""Whether a picture shows a model's structure at all: features, statistics, and what a run makes of it."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from prosma.cli.app import main
from prosma.image.geometry import Image
from prosma.image.reading import read_labels
from prosma.inference.presence import PresenceStatistics, stage_features
from prosma.inference.segmenter import Segmenter
from prosma.learning.data.dataset import LabelledFolder
from prosma.learning.packing import presence_statistics as making
from prosma.package import ModelPackage, bundled_models_folder
from prosma.package.weights import load_network
from tiny_model import make_tiny_package

SIZE = (48, 32)


@pytest.fixture
def package(tmp_path) -> ModelPackage:
    """A 2D model for grey pictures."""
    return make_tiny_package(
        tmp_path / "flat",
        dimension=2,
        labels=1,
        resize=list(SIZE),
        patch_size=list(SIZE),
        mirror_axes=[0],
        intensity={"rule": "range", "low": 0, "high": 255},
    )


def picture(seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, SIZE).astype(np.uint8)


def write_pictures(folder: Path, count: int) -> LabelledFolder:
    """Pictures of noise; each second one has a bright square, which is labelled."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        values, mask = (picture(number) * 0.4).astype(np.uint8), np.zeros(SIZE, np.uint8)
        if number % 2:
            mask[10:30, 8:20] = 255
            values[mask > 0] += 150
        for name, array in (("images", values), ("masks", mask)):
            sitk.WriteImage(sitk.GetImageFromArray(array.T), str(folder / name / f"p{number:02d}.png"))
    ids = [f"p{number:02d}" for number in range(count)]
    splits = {"train": ids[: count * 2 // 3], "val": ids[count * 2 // 3 :], "test": []}
    (folder / "splits.json").write_text(json.dumps(splits))
    return LabelledFolder.open(folder)


def statistics_of(package: ModelPackage, odds: float, **changes) -> PresenceStatistics:
    """The presence is the same for all pictures."""
    size = 2 * sum(package.model["network"]["features"])
    made = PresenceStatistics(package.sha256, np.zeros(size), np.ones(size), np.zeros(size), odds, 0.5)
    return replace(made, **changes)


def test_features_are_mean_and_deviation_behind_each_stage_of_the_picture_and_its_mirror_image(package):
    segmenter, values = Segmenter(package, "cpu"), np.random.default_rng(0).normal(size=(1, *SIZE)).astype(np.float32)
    found = stage_features(segmenter.network, "cpu", values, [0])
    network = load_network(package).eval()
    for row, array in zip(found, (values, values[:, ::-1].copy()), strict=True):
        x, expected = torch.from_numpy(array)[None], []
        with torch.inference_mode():
            for block in network.encoder:
                x = block(x)
                channels = x[0].double().numpy().reshape(x.shape[1], -1)
                expected += [channels.mean(axis=1), channels.std(axis=1)]
        np.testing.assert_allclose(row, np.concatenate(expected), atol=1e-3)
    assert len(stage_features(segmenter.network, "cpu", values, [])) == 1


def test_pictures_with_and_without_are_told_apart(package, tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "data", 36)
    segmenter = Segmenter(package, "cpu")
    assert making.presence_statistics(segmenter, folder) is None, "too few"
    monkeypatch.setattr(making, "LEAST_CASES", 8)
    made = PresenceStatistics.from_bytes(making.presence_statistics(segmenter, folder))
    found: dict[bool, list[float]] = {False: [], True: []}
    for name in folder.splits["val"]:
        image, labels = making.read_case(folder.cases[name], package.model)
        found[bool(labels.any())].append(made.presence(making.features_of(segmenter, image)))
    assert len(found[True]) == len(found[False]) == 6
    assert max(found[False]) < min(0.1, made.threshold) and min(found[True]) > 0.9


def test_a_file_that_cannot_be_right_tells_nothing(package, tmp_path):
    good = statistics_of(package, 1.0)
    path = tmp_path / "presence.npz"
    for content in (b"", good.to_bytes()[:200], replace(good, scale=0 * good.scale).to_bytes()):
        path.write_bytes(content)
        assert PresenceStatistics.of_package(path, package.sha256) is None
    path.write_bytes(good.to_bytes())
    found = PresenceStatistics.of_package(path, package.sha256)
    assert found.presence(np.zeros((2, len(good.centre)))) == pytest.approx(1 / (1 + np.exp(-1)))
    assert found.presence(np.zeros((2, 3))) is None, "features of another network"
    assert PresenceStatistics.of_package(path, "1" * 64) is None


def test_what_is_marked_in_a_picture_without_the_structure_is_left_out_with_a_word(package, tmp_path, capsys):
    sitk.WriteImage(sitk.GetImageFromArray(picture().T), str(tmp_path / "a.png"))
    command = ["segment", str(tmp_path / "a.png"), "-m", str(package.folder), "--json", "-o"]
    told = {}
    for name, odds, more in (
        ("plain", None, []),
        ("there", 3.0, []),
        ("absent", -2.0, []),
        ("forced", -2.0, ["--force"]),
    ):
        if odds is not None:
            package.presence_path.write_bytes(statistics_of(package, odds).to_bytes())
        assert main([*command, str(tmp_path / f"{name}.nrrd"), *more]) == 0
        (case,) = json.loads(capsys.readouterr().out.splitlines()[-1])["cases"]
        told[name] = [each for each in case["notices"] if each.startswith("No ")]
        (segment,) = case["segments"]
        assert segment["presence"] == (None if odds is None else pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-3))
    masks = {name: read_labels(tmp_path / f"{name}.nrrd").array[0] for name in told}
    assert masks["plain"].any() and not masks["absent"].any()
    np.testing.assert_array_equal(masks["plain"], masks["there"])
    np.testing.assert_array_equal(masks["plain"], masks["forced"])
    assert told["plain"] == told["there"] == told["forced"] == []
    (notice,) = told["absent"]
    assert notice.startswith("No structure 1 found: presence 0.12, below 0.50.")


def test_a_table_has_the_presence_also_when_results_are_measured_afterwards(package, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(picture().T), str(images / "a.png"))
    package.presence_path.write_bytes(statistics_of(package, 3.0).to_bytes())
    command = ["segment", str(images), "-m", str(package.folder), "-o", str(out)]
    for more in ([], ["--statistics"]):
        assert main([*command, *more]) == 0
        assert main(["report", str(out), "--csv", str(tmp_path / "a.csv")]) == 0
        (row,) = csv.DictReader((tmp_path / "a.csv").open())
        assert float(row["presence"]) == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-3)
    assert float(row["boundary_pixels"]) > 0, "it was measured"


def test_a_volume_of_slices_is_not_judged(package):
    package.presence_path.write_bytes(statistics_of(package, -9.0).to_bytes())
    slices = np.stack([picture(0), picture(1)], axis=-1)[None]
    result = Segmenter(package, "cpu").segment(Image(slices, np.eye(4)), force=True)
    assert result.presence is None and result.labels.any()


def test_the_bundled_model_whose_object_may_be_absent_can_tell():
    package = ModelPackage.open(bundled_models_folder() / "breast-lesion-us")
    assert package.presence_path.stat().st_size <= 50_000
    assert isinstance(PresenceStatistics.of_package(package.presence_path, package.sha256), PresenceStatistics)
