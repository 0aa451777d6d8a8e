"""Model packages that are refused, and what the refusals say is to be done (training/prosma/package/)."""

import json
import shutil
import stat
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save

from prosma.cli.app import main
from prosma.network.unet import ProSMAUNet
from prosma.package import ModelPackage, import_package, importing, model_folders, resolve, write_package
from prosma.package.weights import load_network
from remedies import refused
from tiny_model import make_tiny_package


@pytest.fixture
def package(tmp_path):
    return make_tiny_package(tmp_path / "tiny")


def zipped(package, archive, prefix="tiny/", more=()):
    with zipfile.ZipFile(archive, "w") as file:
        for path in package.folder.iterdir():
            file.write(path, f"{prefix}{path.name}")
        for name, content in more:
            file.writestr(name, content)
    return archive


def unpacked(archive, folder):
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


def rewrite(package, name="model.json", **changes):
    path = package.folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def without_sum(package) -> dict:
    """The description for other weights."""
    return {**package.model, "weights": {"dtype": "float16"}}


def imports(path) -> None:
    assert resolve(import_package(path).id).folder.parent == model_folders()[-1]


# --- what is imported


def test_the_path_of_a_package_is_given(package, tmp_path):
    refused(
        "package/importing.py: There is no model package at",
        "Give the path of a folder or a zip",
        import_package,
        tmp_path / "tny",
    )
    refused("package/importing.py: Choose its folder", "Choose its folder", import_package, tmp_path)
    imports(package.folder)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("notes.txt", "text")
    refused(
        "package/importing.py: Choose a package's zip", "Choose a package's zip", import_package, tmp_path / "other.zip"
    )
    imports(zipped(package, tmp_path / "a.zip"))


def test_a_damaged_package_is_copied_again(package, tmp_path, monkeypatch):
    archive = zipped(package, tmp_path / "a.zip")
    good = archive.read_bytes()
    place = good.find(b"PK\x01\x02")
    archive.write_bytes(good[: place + 10] + b"\x09" + good[place + 11 :])  # an unknown way of packing
    refused("package/importing.py: cannot be unpacked", "Copy or download the package again", import_package, archive)
    with pytest.warns(UserWarning, match="Duplicate"):
        zipped(package, archive, more=[("tiny/model.json", "{}")])
    refused("package/importing.py: twice", "Copy or download the package again", import_package, archive)
    archive.write_bytes(good)
    imports(archive)
    with (package.folder / "README.md").open("ab") as file:
        file.truncate(2 << 20)
    refused(
        "package/importing.py: is larger than any package's",
        "Copy or download the package again",
        import_package,
        package.folder,
    )
    imports(make_tiny_package(tmp_path / "again").folder)
    with (package.folder / "model.json").open("ab") as file:
        file.truncate(2 << 20)
    refused(
        "package/importing.py: has more than ... MB",
        "Copy or download the package again",
        import_package,
        package.folder,
    )
    imports(make_tiny_package(tmp_path / "again").folder)


def test_a_zip_with_too_much_in_it_is_zipped_alone(package, tmp_path):
    archive = zipped(package, tmp_path / "a.zip", more=[(f"tiny/{n}", "") for n in range(1000)])
    refused("package/importing.py: a package has a handful", "Zip the package alone", import_package, archive)
    imports(zipped(package, archive))


def test_what_is_no_plain_zip_is_unpacked_and_its_folder_imported(package, tmp_path):
    """Several models, names that lead elsewhere, a password, and weights that shrink beyond belief."""
    other = make_tiny_package(tmp_path / "other", id="other", seed=1)
    archive = zipped(
        package, tmp_path / "two.zip", more=[(f"other/{p.name}", p.read_bytes()) for p in other.folder.iterdir()]
    )
    refused(
        "package/importing.py: holds several models",
        "Unpack it, and import the folder of each one",
        import_package,
        archive,
    )
    folder = unpacked(archive, tmp_path / "two")
    imports(folder / "tiny"), imports(folder / "other")
    archive = zipped(package, tmp_path / "up.zip", more=[("../evil.txt", "text")])
    refused(
        "package/importing.py: holds the unsafe path",
        "Unpack it, and import the package's folder",
        import_package,
        archive,
    )
    imports(unpacked(archive, tmp_path / "up") / "tiny")
    assert not (tmp_path / "evil.txt").exists()
    locked, data = tmp_path / "locked.zip", bytearray(zipped(package, tmp_path / "a.zip").read_bytes())
    for place in [n for n in range(len(data)) if data[n : n + 4] == b"PK\x01\x02"]:
        data[place + 8] |= 1
    locked.write_bytes(data)
    refused("package/importing.py: has a password", "Unpack it, and import the folder", import_package, locked)
    imports(unpacked(tmp_path / "a.zip", tmp_path / "unlocked") / "tiny")


def test_weights_that_shrink_beyond_belief_are_unpacked(tmp_path):
    network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [16, 32, 64]}
    package = make_tiny_package(tmp_path / "zeros", network=network)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in load_file(package.weights_path).items()}
    zeros["more"] = torch.zeros(1 << 20, dtype=torch.float16)
    package = write_package(tmp_path / "zeros", without_sum(package), save(zeros), "# Zeros\n")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in package.folder.iterdir():
            file.write(path, path.name)
    refused(
        "package/importing.py: would grow to more than",
        "Unpack it, and import the folder",
        import_package,
        tmp_path / "a.zip",
    )
    imports(unpacked(tmp_path / "a.zip", tmp_path / "folder"))


def test_a_link_in_a_zip_is_zipped_as_the_file(package, tmp_path):
    link = zipfile.ZipInfo("tiny/README.md")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    text = (package.folder / "README.md").read_text()
    (package.folder / "README.md").unlink()
    refused(
        "package/importing.py: in the zip is a link",
        "Zip the file itself",
        import_package,
        zipped(package, tmp_path / "a.zip", more=[(link, "../README.md")]),
    )
    imports(zipped(package, tmp_path / "a.zip", more=[("tiny/README.md", text)]))


def test_a_full_disk_and_a_folder_that_cannot_be_made(package, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(importing.shutil, "disk_usage", lambda _: usage._replace(free=1000))
        refused("package/importing.py: the disk has less room", "Free some space", import_package, package.folder)
    imports(package.folder)
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path / "home"))
    refused(
        "package/importing.py: could not be read or written", "Check who may read it", import_package, package.folder
    )
    (tmp_path / "home").unlink()
    imports(package.folder)


# --- what is opened


def damaged(package, kind):
    description, weights = package.folder / "model.json", package.weights_path
    tensors = load_file(weights)
    first = next(iter(tensors))

    def put(**changes):
        data = save({**tensors, **changes})
        weights.write_bytes(data)
        rewrite(package, weights={**package.model["weights"], "sha256": __import__("hashlib").sha256(data).hexdigest()})

    {
        "no weights": weights.unlink,
        "another sum": lambda: weights.write_bytes(save({**tensors, first: tensors[first] + 1})),
        "infinite": lambda: put(**{first: tensors[first] * torch.inf}),
        "no safetensors": lambda: weights.write_bytes(b"PK pickle"),
        "other heads": lambda: put(**{"head.weight": tensors["head.weight"][:2].clone()}),
        "other network": lambda: rewrite(package, network={**package.model["network"], "features": [4, 16, 8]}),
        "no json": lambda: description.write_text("{"),
        "no schema": lambda: description.write_text("{}"),
        "wrong entry": lambda: rewrite(package, patch_size=[8, 8]),
        "no file": lambda: (description.unlink(), description.mkdir()),
    }[kind]()


AGAIN = "again"
DAMAGES = {
    "no weights": "package/weights_file.py: The package has no",
    "another sum": "package/weights_file.py: their sha256 differs",
    "infinite": "package/weights_file.py: hold infinite numbers",
    "no safetensors": "package/weights_file.py: is not a valid safetensors file",
    "other heads": "package/weights_file.py: The weights separate",
    "other network": "package/weights_file.py: The weights do not fit the network",
    "no json": "package/model_package.py: is not valid JSON",
    "no schema": "package/schema.py: it names no schema",
    "wrong entry": "package/schema.py: In ... ...",
    "no file": "package/model_package.py: cannot be read (...)",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_package_is_exported_or_downloaded_again(package, tmp_path, kind):
    good = shutil.copytree(package.folder, tmp_path / "good")
    damaged(package, kind)
    refused(DAMAGES[kind], AGAIN, ModelPackage.open, package.folder)
    assert resolve(good).sha256 == package.sha256
    shutil.rmtree(package.folder)
    shutil.copytree(good, package.folder)
    assert ModelPackage.open(package.folder).id == "tiny"


def test_weights_that_lack_a_part_of_the_network(package, tmp_path):
    tensors = load_file(package.weights_path)
    last = [name for name in tensors if name.startswith("decoder")][-1]
    write_package(tmp_path / "lacking", without_sum(package), save({n: t for n, t in tensors.items() if n != last}), "")
    lacking = ModelPackage.open(tmp_path / "lacking")
    refused("package/weights.py: do not fit its network", "export or install it again", load_network, lacking)
    assert isinstance(load_network(package), ProSMAUNet)


def test_a_model_of_gigabytes_is_left_for_a_smaller_one(package, tmp_path):
    with package.weights_path.open("r+b") as file:
        file.truncate((2 << 30) + 1)
    refused("package/weights_file.py: has more than", "Choose a smaller model", ModelPackage.open, package.folder)
    assert ModelPackage.open(make_tiny_package(tmp_path / "smaller").folder).id == "tiny"


def test_a_path_that_is_none_and_a_folder_around_it(package, tmp_path):
    refused(
        "package/model_package.py: There is no model package, folder or zip file",
        "Choose another model or install",
        ModelPackage.open,
        tmp_path / "tny",
    )
    refused("package/model_package.py: is not a whole model package", "Choose its folder", ModelPackage.open, tmp_path)
    assert ModelPackage.open(package.folder).id == "tiny"


def test_a_name_that_is_none_is_one_of_the_list(package, tmp_path, capsys):
    import_package(package.folder)
    error = refused("package/library.py: There is no model", "one of these: ", resolve, "hippocampus")
    names = error.remedy.split("one of these: ")[1].rstrip(".").split(", ")
    assert "tiny" in names and all(resolve(name).id == name for name in names)
    broken = shutil.copytree(package.folder, model_folders()[-1] / "broken")
    (broken / "weights.safetensors").unlink()
    error = refused("package/library.py: reason", "Export or download it again", resolve, "broken")
    shutil.copy(package.weights_path, broken)
    rewrite(ModelPackage(broken, {}), id="broken")
    assert main(["models"]) == 0 and "broken" in capsys.readouterr().out


# --- finders


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("labels", "package/model_package.py: one for each region, and one channel"),
        ("spacing", "package/model_package.py: should describe a model for volumes, with a spacing"),
        ("gone", "package/model_package.py: is not a whole model package"),
    ],
)
def test_a_finder_that_does_not_belong_is_exported_again(package, tmp_path, change, name):
    coarse = make_tiny_package(tmp_path / "coarse", seed=3, spacing=[4.0, 4.0, 4.0], patch_size=[8, 8, 8])
    regions = [{"name": "left"}, {"name": "right"}]
    model = {**package.model, "finder": {"region_mm": [16, 12, 14], "regions": regions}}
    weights = package.weights_path.read_bytes()
    fine = write_package(tmp_path / "fine", model, weights, "# Fine", finder=coarse)
    if change == "labels":
        rewrite(fine, finder={**model["finder"], "regions": regions[:1]})
    elif change == "spacing":
        rewrite(fine, "finder.json", spacing=None)
    else:
        (fine.folder / "finder.json").unlink()
    refused(name, "Export or download the package again", ModelPackage.open, fine.folder)
    shutil.rmtree(fine.folder)
    fine = write_package(tmp_path / "fine", model, weights, "# Fine", finder=coarse)
    assert ModelPackage.open(fine.folder).open_finder().labels
