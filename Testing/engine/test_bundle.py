"""Model packages: what opens, what is refused and with which words (training/prosma/package/model_package.py)."""

import json
import pickle
import subprocess
import sys
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prosma.package import model_package
from prosma.package.model_package import BrokenPackage, ModelPackage, PackageError
from tiny_model import make_tiny_package


@pytest.fixture
def package(tmp_path):
    return make_tiny_package(tmp_path / "tiny")


def rewrite(package, **changes):
    """Change entries of model.json; None removes one."""
    path = package.folder / "model.json"
    model = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in model.items() if value is not None}))


def refusal(path):
    with pytest.raises(PackageError) as caught:
        ModelPackage.open(path)
    message = str(caught.value)
    assert message.rstrip().endswith(".") and len(message) > 30
    return message


def test_a_package_opens_with_all_it_says(package):
    again = ModelPackage.open(package.folder)
    assert (again.id, again.dimension, len(again.labels)) == ("tiny", 3, 2)
    assert again.weights_path.is_file()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_single_changed_bit_of_the_weights_is_refused(package, position, bit):
    data = package.weights_path.read_bytes()
    index = int(position * len(data))
    changed = data[:index] + bytes([data[index] ^ (1 << bit)]) + data[index + 1 :]
    package.weights_path.write_bytes(changed)
    try:
        refusal(package.folder)
    finally:
        package.weights_path.write_bytes(data)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_cut_off_weights_are_refused(package, keep):
    data = package.weights_path.read_bytes()
    package.weights_path.write_bytes(data[: keep if keep > 1 or keep == 0 else int(keep * len(data))])
    assert "safetensors" in refusal(package.folder)


def test_a_pickle_in_place_of_the_weights_is_refused_and_not_run(package, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    package.weights_path.write_bytes(pickle.dumps(Payload()))
    assert "pickle" in refusal(package.folder)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_by_name_is_refused(package):
    package.weights_path.rename(package.folder / "weights.pt")
    rewrite(package, weights={"file": "weights.pt", "sha256": package.sha256})
    assert "safetensors" in refusal(package.folder)


def test_weights_outside_the_package_are_refused(package):
    rewrite(package, weights={"file": "../weights.safetensors", "sha256": package.sha256})
    assert "inside the package" in refusal(package.folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "newer ProSMA"),
        ({"schema": None}, "no schema"),
        ({"labels": [{"value": 1, "name": "one", "color": [1, 2, 3]}]}, "out_channels"),
        ({"labels": []}, "names no label"),
        ({"labels": [{"value": 2, "name": "two", "color": [1, 2, 3]}]}, "Label 1 is missing"),
        ({"labels": [{"value": 1, "name": "one", "color": [1, 2]}]}, "colour"),
        ({"id": "../x"}, "id"),
        ({"dimension": 4}, "dimensions"),
        ({"patch_size": [8, 8]}, "patch_size"),
        ({"orientation": "RRS"}, "orientation"),
        ({"spacing": [1, 0, 1]}, "spacing"),
        ({"intensity": {"rule": "magic"}}, "intensity"),
        ({"intensity": {"rule": "ct"}}, "clip"),
        ({"intensity": {"rule": "clip-zscore", "percentiles": [0, 100], "power": 0}}, "power"),
        ({"intensity": {"rule": "clip-zscore", "percentiles": [0, 100], "power": "half"}}, "power"),
        ({"channels": [{"name": "a"}, {"name": "b"}]}, "in_channels"),
        ({"training": {"data": "x", "citation": "y"}}, "licence"),
        ({"network": None}, "network"),
        ({"accept_licence": "no"}, "accept_licence"),
    ],
)
def test_a_description_that_is_wrong_is_refused_by_name(package, changes, words):
    rewrite(package, **changes)
    assert words in refusal(package.folder)


def test_a_missing_label_is_refused_even_when_the_description_agrees_with_itself(package):
    model = json.loads((package.folder / "model.json").read_text())
    rewrite(package, labels=model["labels"][:1], network={**model["network"], "out_channels": 2})
    assert "separate 2 structures" in refusal(package.folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"schema": "1"}'])
def test_any_other_json_is_refused(package, text):
    (package.folder / "model.json").write_text(text)
    refusal(package.folder)


def test_what_is_no_package_is_refused(tmp_path):
    assert "no model package" in refusal(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "model.json" in refusal(tmp_path / "empty")


def test_a_zip_opens_like_the_folder(package, tmp_path):
    archive = tmp_path / "tiny.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in package.folder.iterdir():
            file.write(path, f"tiny/{path.name}")
    assert ModelPackage.open(archive).sha256 == package.sha256
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    refusal(archive)


def test_a_zip_that_would_write_elsewhere_is_refused(tmp_path):
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../evil.json", "{}")
    assert "unsafe" in refusal(archive)
    assert not list(tmp_path.rglob("evil.json"))


def test_writing_a_package_that_would_not_open_leaves_the_old_one(package):
    before = (package.folder / "model.json").read_bytes()
    with pytest.raises(PackageError):
        model_package.write_package(package.folder, {**package.model, "labels": []}, b"nothing", "")
    assert (package.folder / "model.json").read_bytes() == before
    assert [path.name for path in package.folder.parent.iterdir()] == [package.folder.name]


def test_listing_names_the_broken_ones_with_the_reason(package, tmp_path):
    broken = make_tiny_package(tmp_path / "zz")
    broken.weights_path.unlink()
    good, bad = model_package.find_packages([tmp_path])
    assert isinstance(good, ModelPackage)
    assert isinstance(bad, BrokenPackage) and "weights.safetensors" in bad.reason


def test_an_imported_package_is_found_by_its_id(package):
    with pytest.raises(PackageError, match="tiny"):
        model_package.resolve("tiny")
    imported = model_package.import_package(package.folder)
    assert imported.folder != package.folder
    assert model_package.resolve("tiny").sha256 == package.sha256
    assert model_package.resolve(package.folder).folder == package.folder


def test_listing_packages_needs_the_standard_library_alone():
    program = "import sys; import prosma.package.model_package; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "safetensors", "SimpleITK"} & set(loaded)
