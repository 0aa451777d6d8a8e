"""Packages with several sets of weights (training/prosma/package): what they hold, and what is refused."""

import hashlib
import json
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save

from prosma.package import ModelPackage, PackageError, find_packages, import_package, model_folders
from prosma.package import schema as schema_module
from prosma.package.schema import MOST_SETS, SCHEMA, check_description, least_schema
from prosma.package.weights import load_networks
from remedies import refused
from tiny_model import make_tiny_ensemble, make_tiny_package


@pytest.fixture
def singles(tmp_path):
    return [make_tiny_package(tmp_path / str(seed), seed=seed) for seed in (0, 1)]


@pytest.fixture
def package(singles, tmp_path):
    return make_tiny_ensemble(tmp_path / "both", *singles)


def rewrite(package: ModelPackage, change=lambda tensors: None, **weights) -> None:
    """Other tensors in the file, and other entries about it, with a digest that is right."""
    tensors = load_file(package.weights_path)
    change(tensors)
    package.weights_path.write_bytes(save(tensors))
    digest = hashlib.sha256(package.weights_path.read_bytes()).hexdigest()
    model = {**package.model, "weights": {**package.model["weights"], "sha256": digest, **weights}}
    (package.folder / "model.json").write_text(json.dumps(model))


def test_each_set_is_the_network_that_it_was(package, singles):
    for found, single in zip(load_networks(package), singles, strict=True):
        stored = load_file(single.weights_path)
        assert all(torch.equal(tensor, stored[name].float()) for name, tensor in found.state_dict().items())
    assert len({single.sha256 for single in (*singles, package)}) == 3, "one digest for all sets together"


def test_a_zip_of_it_is_imported_and_opened(package, tmp_path, monkeypatch):
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path / "home"))
    archive = tmp_path / "both.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in package.folder.iterdir():
            file.write(path, path.name)
    imported = import_package(archive)
    assert (imported.sha256, imported.sets) == (package.sha256, 2)
    assert [each.sets for each in find_packages(model_folders()[-1:])] == [2]


def test_older_software_refuses_it_and_reads_packages_of_one_set(package, singles, monkeypatch):
    """What that says is what it has always said of newer packages."""
    monkeypatch.setattr(schema_module, "SCHEMA", 2)
    name = "package/schema.py: made for a newer ProSMA"
    refused(name, "Update ProSMA", ModelPackage.open, package.folder)
    monkeypatch.setattr(schema_module, "SCHEMA", SCHEMA)
    assert ModelPackage.open(package.folder).sets == 2
    assert [
        least_schema({"weights": weights}) for weights in ({}, {"dtype": "int8"}, {"dtype": "int8", "sets": 2})
    ] == [1, 2, 3]
    assert [single.sets for single in singles] == [1, 1]


@pytest.mark.parametrize("sets", [0, MOST_SETS + 1, 2.0, "2", None, True])
def test_a_number_of_sets_that_is_none_is_refused(package, sets):
    with pytest.raises(PackageError, match=r"weights\.sets"):
        check_description({**package.model, "weights": {**package.model["weights"], "sets": sets}})


def test_a_description_that_older_software_would_misread_is_refused(package):
    with pytest.raises(PackageError, match="'schema' should be 3 where there are several sets"):
        check_description({**package.model, "schema": 2})


def drop_second(tensors):
    for name in [name for name in tensors if name.startswith("2.")]:
        del tensors[name]


def other_shape(tensors):
    tensors["2.encoder.1.0.weight"] = tensors["2.encoder.1.0.weight"][:, :2].contiguous()


def other_labels(tensors):
    tensors["2.head.weight"] = tensors["2.head.weight"][:2].contiguous()


def third_set(tensors):
    tensors |= {name.replace("2.", "3.", 1): each.clone() for name, each in tensors.items() if name.startswith("2.")}


@pytest.mark.parametrize(
    ("change", "name", "remedy"),
    [
        (drop_second, "package/weights_file.py: sets of weights, and number", "Export it again"),
        (third_set, "package/weights_file.py: which belongs to none of the", "Export it again"),
        (other_shape, "package/weights_file.py: The weights do not fit the network", "Export or install it again"),
        (other_labels, "package/weights_file.py: The weights separate", "Export it again"),
    ],
)
def test_a_set_that_is_missing_or_no_network_of_the_package_is_named(package, singles, change, name, remedy):
    rewrite(package, change)
    error = refused(name, remedy, ModelPackage.open, package.folder)
    assert change is not other_shape or "'2.encoder.1.0.weight'" in error.message
    assert make_tiny_ensemble(package.folder, *singles).sets == 2


def test_one_set_in_place_of_several_and_the_other_way_round(package, singles):
    with pytest.raises(PackageError, match=r"number 1 is missing"):
        check(singles[0], sets=2, schema=3)
    with pytest.raises(PackageError, match=r"separate no structures"):
        check(package, sets=1)


def check(package, schema=None, **weights):
    rewrite(package, **weights)
    if schema is not None:
        model = json.loads((package.folder / "model.json").read_text())
        (package.folder / "model.json").write_text(json.dumps({**model, "schema": schema}))
    ModelPackage.open(package.folder)


def test_a_truncated_or_swapped_file_is_refused(package, singles):
    whole = package.weights_path.read_bytes()
    package.weights_path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PackageError, match="cut off"):
        ModelPackage.open(package.folder)
    for other in singles:
        package.weights_path.write_bytes(other.weights_path.read_bytes())
        with pytest.raises(PackageError, match="sha256 differs"):
            ModelPackage.open(package.folder)
    package.weights_path.write_bytes(whole)
    assert ModelPackage.open(package.folder).sets == 2


def test_tensors_that_no_check_of_shapes_looks_at_are_refused_when_it_is_loaded(package, singles):
    rewrite(package, lambda tensors: tensors.pop("2.decoder.0.0.weight"))
    opened = ModelPackage.open(package.folder)
    refused("package/weights.py: do not fit its network", "export or install it again", load_networks, opened)
    assert len(load_networks(make_tiny_ensemble(package.folder, *singles))) == 2
