"""Model packages: what opens, what is refused and with which words (training/prosma/package/)."""

import hashlib
import json
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from prosma.package import BrokenPackage, ModelPackage, PackageError, find_packages, write_package
from remedies import tries
from tiny_model import make_tiny_package

WEIGHTS = "weights.safetensors"
DTYPES = {"F16": torch.float16, "F32": torch.float32, "BF16": torch.bfloat16}
BITS = {"F16": torch.int16, "F32": torch.int32, "BF16": torch.int16}


@pytest.fixture
def package(tmp_path):
    return make_tiny_package(tmp_path / "tiny")


def rewrite(package, **changes):
    """Change entries of model.json; None removes one."""
    path = package.folder / "model.json"
    model = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in model.items() if value is not None}))


def sha256(package):
    return hashlib.sha256(package.weights_path.read_bytes()).hexdigest()


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
    assert "the name of a .safetensors file" in refusal(package.folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 4}, "newer ProSMA"),
        ({"schema": None}, "no schema"),
        ({"labels": [{"value": 1, "name": "one", "color": [1, 2, 3]}]}, "out_channels"),
        ({"labels": []}, "'labels' should be a list of 1 to 1000"),
        (
            {"labels": [{"value": 2, "name": "two", "color": [1, 2, 3]}]},
            "'labels[0].value' should be 1, for labels are",
        ),
        ({"labels": [{"value": 1, "name": "one", "color": [1, 2]}]}, "'labels[0].color' should be a list of 3, each"),
        (
            {"labels": [{"value": n, "name": "one", "color": [1, 2, 3]} for n in (1, 2)]},
            "'labels[1].name' should be another",
        ),
        (
            {"labels": [{"value": 1, "name": "mean", "color": [1, 2, 3]}]},
            "'labels[0].name' should be another name than mean",
        ),
        ({"id": "../x"}, "'id' should be a name of lower-case letters"),
        ({"id": "con"}, "'id'"),
        ({"id": "x."}, "'id'"),
        ({"name": "a\u001b[31mb"}, "'name' should be a line of text"),
        ({"dimension": 4}, "'dimension' should be 2 or 3, not 4"),
        ({"patch_size": [8, 8]}, "'patch_size' should be a list of 3"),
        ({"patch_size": [1024, 1024, 128]}, "at most 67108864 voxels"),
        ({"patch_size": [1, 1, 10**9]}, "'patch_size[2]' should be a whole number from 1 to 1024"),
        ({"orientation": "RRS"}, "'orientation' should be three letters such as RAS"),
        ({"spacing": [1, 0, 1]}, "'spacing[1]'"),
        ({"spacing": 1.0}, "'spacing' should be a list of 3"),
        ({"spacing": [1, 1, 1e300]}, "'spacing[2]'"),
        ({"resize": [8, 8, 8]}, "'resize' should be null"),
        ({"mirror_axes": [3]}, "'mirror_axes[0]' should be 0, 1 or 2"),
        ({"mirror_axes": [0, 0]}, "each different"),
        ({"mirror_axes": [-1]}, "'mirror_axes[0]'"),
        ({"mirror_axes": [True]}, "'mirror_axes[0]'"),
        (
            {"field_of_view": {"min_mm": [9, 9, 9], "max_mm": [10, 8, 10]}},
            "'field_of_view.max_mm' should be at least min_mm",
        ),
        ({"channels": [7]}, "'channels[0]' should be an object"),
        ({"results": [1]}, "'results' should be an object"),
        ({"intensity": {"rule": "magic"}}, "'intensity.rule' should be 'zscore', 'clip-zscore', 'ct' or 'range'"),
        ({"intensity": {"rule": []}}, "'intensity.rule'"),
        ({"intensity": {"rule": "ct"}}, "'intensity.clip' is missing"),
        (
            {"intensity": {"rule": "ct", "clip": [0, 1], "mean": 0, "std": 0}},
            "'intensity.std' should be a number above 0",
        ),
        ({"intensity": {"rule": "clip-zscore", "percentiles": [99, 1]}}, "the low value before a higher one"),
        ({"intensity": {"rule": "range", "low": 1, "high": 1}}, "the low value before a higher one"),
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


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (
            {"features": [4, 8, 16]},
            "'encoder.2.0.weight' is (8, 8, 3, 3, 3), and the description asks for (16, 8, 3, 3, 3)",
        ),
        ({"features": [4, 8, 8, 2048]}, "'encoder.3.0.weight' is missing"),
        ({"kernel_sizes": [3, 3, [1, 3, 3]]}, "(8, 8, 1, 3, 3)"),
        ({"kernel_sizes": [3, 3, 2]}, "'network.kernel_sizes[2]'"),
        ({"strides": [1, 2]}, "'network.strides' should be a list of 3, as many as"),
        ({"strides": [2, 2, 2]}, "'network.strides[0]' should be 1"),
        ({"depth": 3}, "'network.depth' should be left out (known are"),
        ({"skip": "magic"}, "'network.skip' should be 'prosma', 'attention' or 'plain'"),
        ({"channel_gate": 1}, "'network.channel_gate' should be true or false"),
    ],
)
def test_a_network_that_the_weights_do_not_have_is_refused_before_it_is_made(package, network, words):
    rewrite(package, network={**package.model["network"], **network})
    assert words in refusal(package.folder)


@pytest.mark.parametrize(("kind", "wrong"), [("F16", 0x7C00), ("F16", 0xFE01), ("F32", 0x7F800000), ("BF16", 0xFF80)])
def test_weights_that_are_not_finite_are_refused_by_name(package, kind, wrong):
    """One number of one tensor, in each type that weights may have."""
    tensors = load_file(package.weights_path)
    tensors = {name: tensor.to(DTYPES[kind]) for name, tensor in tensors.items()}
    package.weights_path.write_bytes(save(tensors))
    rewrite(package, weights={"file": WEIGHTS, "sha256": sha256(package)})
    ModelPackage.open(package.folder)
    tensors["decoder.0.0.weight"].view(BITS[kind]).reshape(-1)[1000] = wrong - (1 << BITS[kind].itemsize * 8) * (
        wrong >> (BITS[kind].itemsize * 8 - 1)
    )
    assert not tensors["decoder.0.0.weight"].isfinite().all()
    package.weights_path.write_bytes(save(tensors))
    rewrite(package, weights={"file": WEIGHTS, "sha256": sha256(package)})
    assert "'decoder.0.0.weight' hold infinite numbers" in refusal(package.folder)


def test_a_header_that_lies_about_its_tensors_is_refused(package):
    data = package.weights_path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for change in ({"dtype": "F8"}, {"shape": [1]}, {"data_offsets": [2, 4]}, {"shape": "ab"}, {"shape": [-1, -2]}):
        name = next(key for key in header if header[key].get("data_offsets", [1])[0] == 0)
        text = json.dumps({**header, name: {**header[name], **change}}).encode()
        package.weights_path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        rewrite(package, weights={"file": WEIGHTS, "sha256": sha256(package)})
        assert "not a valid safetensors file" in refusal(package.folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"schema": "1"}', '{"schema": NaN}', "[" * 10**5, "9" * 5000])
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
        write_package(package.folder, {**package.model, "labels": []}, b"nothing", "")
    assert (package.folder / "model.json").read_bytes() == before
    assert [path.name for path in package.folder.parent.iterdir()] == [package.folder.name]


def test_listing_names_the_broken_ones_with_the_reason(package, tmp_path):
    broken = make_tiny_package(tmp_path / "zz")
    broken.weights_path.unlink()
    good, bad = find_packages([tmp_path])
    assert isinstance(good, ModelPackage)
    assert isinstance(bad, BrokenPackage) and "weights.safetensors" in bad.reason


@tries("package/model_package.py: holds more than a model package")
def test_a_package_takes_the_place_of_nothing_but_a_package(package, tmp_path):
    """Whoever names a folder of photographs as output keeps the photographs."""
    place = tmp_path / "pictures"
    place.mkdir()
    (place / "holiday.png").write_bytes(b"1")
    written = {"weights": package.weights_path.read_bytes(), "readme": ""}
    with pytest.raises(PackageError, match="stays as it is") as refused:
        write_package(place, package.model, **written)
    assert refused.value.code == "bad_output" and [path.name for path in place.iterdir()] == ["holiday.png"]
    (package.folder / "notes.txt").write_text("mine")
    with pytest.raises(PackageError, match=r"notes\.txt"):
        write_package(package.folder, package.model, **written)
    (package.folder / "notes.txt").unlink()
    assert write_package(package.folder, {**package.model, "name": "New"}, **written).name == "New"
    (place / "holiday.png").unlink()
    assert write_package(place, package.model, **written).id == "tiny"


def test_listing_packages_needs_the_standard_library_alone():
    program = "import sys; import prosma.package, prosma.package.accepted_licences; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "safetensors", "SimpleITK"} & set(loaded)
