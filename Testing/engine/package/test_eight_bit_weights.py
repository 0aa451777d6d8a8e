"""Weights in 8 bits (training/prosma/package/weights.py): what is stored, what is read, and what is refused."""

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from prosma.image.geometry import Image
from prosma.inference.segmenter import Segmenter
from prosma.package import ModelPackage, PackageError, write_package
from prosma.package.weights import load_network, packed, unpacked
from tiny_model import make_tiny_package


def in_eight_bits(package: ModelPackage, folder, change=lambda stored: None) -> ModelPackage:
    stored = packed({name: tensor.float() for name, tensor in load_file(package.weights_path).items()})
    change(stored)
    model = {key: value for key, value in package.model.items() if key != "weights"}
    return write_package(folder, {**model, "schema": 2, "weights": {"dtype": "int8"}}, save(stored), "# Eight bits\n")


def header(path) -> dict:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))


@pytest.mark.parametrize("dimension", [2, 3])
def test_each_output_channel_is_rounded_to_161_steps_of_its_own(dimension, tmp_path):
    package = make_tiny_package(tmp_path / "m", dimension)
    weights = {name: tensor.numpy().astype(np.float64) for name, tensor in load_file(package.weights_path).items()}
    weights["encoder.0.0.weight"][1] *= 1000
    weights["encoder.1.0.weight"][2] = 0
    network = {name: torch.from_numpy(values).float() for name, values in weights.items()}
    back = {name: tensor.numpy() for name, tensor in unpacked(packed(network)).items()}
    assert list(back) == list(weights)
    for name, values in weights.items():
        if values.ndim < 2:
            assert np.array_equal(back[name], values.astype(np.float16).astype(np.float32)), name
            continue
        output = 1 if name.startswith("upsamplings.") else 0  # transposed convolutions are (in, out, ...)
        rows, found = (np.moveaxis(each, output, 0).reshape(values.shape[output], -1) for each in (values, back[name]))
        largest = np.abs(rows).max(1, keepdims=True)
        assert (np.abs(rows - found) <= largest / 160 * 1.001).all(), name
        assert np.allclose(np.abs(found).max(1, keepdims=True), largest, rtol=1e-6), name


def test_a_package_in_eight_bits_takes_half_the_room_and_segments_alike(tmp_path):
    package = make_tiny_package(tmp_path / "half")
    small = in_eight_bits(package, tmp_path / "eight")
    kinds = {name: entry["dtype"] for name, entry in header(small.weights_path).items()}
    assert kinds["encoder.0.0.weight"] == "I8" and kinds["encoder.0.0.weight.scale"] == "F32"
    assert kinds["encoder.0.1.weight"] == "F16"
    data = [entry["data_offsets"][1] for entry in header(small.weights_path).values()]
    before = [entry["data_offsets"][1] for entry in header(package.weights_path).values()]
    assert max(data) < 0.65 * max(before)  # of so small a network the scales take a tenth
    image = Image(np.random.default_rng(0).normal(size=(1, 40, 36, 30)).astype(np.float32), np.eye(4))
    labels = [Segmenter(each, "cpu").segment(image).labels for each in (package, ModelPackage.open(small.folder))]
    assert (labels[0] == labels[1]).mean() > 0.97


def test_what_is_no_number_of_eight_bits_or_lacks_its_scale_is_refused(tmp_path):
    package = make_tiny_package(tmp_path / "half")

    def without_a_scale(stored):
        del stored["encoder.1.0.weight.scale"]

    def of_another_shape(stored):
        stored["encoder.1.0.weight.scale"] = torch.ones(3, 1, 1, 1, 1)

    def infinite(stored):
        stored["encoder.1.0.weight.scale"][0] = float("inf")

    for number, change in enumerate((without_a_scale, of_another_shape)):
        wrong = in_eight_bits(package, tmp_path / f"wrong{number}", change)
        with pytest.raises(PackageError, match="export or install it again"):
            load_network(wrong)
    with pytest.raises(PackageError, match=r"encoder.1.0.weight.scale.*infinite"):
        in_eight_bits(package, tmp_path / "infinite", infinite)


def test_packages_of_before_load_and_those_of_later_are_refused(tmp_path):
    package = make_tiny_package(tmp_path / "m")
    assert ModelPackage.open(package.folder).model["schema"] == 1
    assert load_network(package).head.weight.dtype == torch.float32
    content = json.loads((package.folder / "model.json").read_text())
    (package.folder / "model.json").write_text(json.dumps({**content, "schema": 4}))
    with pytest.raises(PackageError, match="newer ProSMA"):
        ModelPackage.open(package.folder)
