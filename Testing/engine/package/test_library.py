"""The list of models survives whatever lies among them; each thing that is no usable model is one line that names it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from prosma.cli import main
from prosma.package import (
    BrokenPackage,
    ModelPackage,
    PackageError,
    bundled_models_folder,
    find_packages,
    import_package,
    model_folders,
    resolve,
)
from remedies import tries
from tiny_model import make_tiny_package

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


@pytest.fixture
def models(monkeypatch, tmp_path) -> Path:
    """The user's folder of models, with a usable one on either side of the odd ones, by name."""
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "models"
    make_tiny_package(folder / "aa", id="aa")
    shutil.copytree(folder / "aa", folder / "zz")
    change(folder / "zz", id="zz")
    return folder


def change(folder: Path, **entries) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "model.json")


def unix_socket(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind("model.json")
    finally:
        os.chdir(here)


def sparse(folder: Path) -> None:
    with (folder / "model.json").open("wb") as file:
        file.truncate(1 << 36)


def huge_weights(folder: Path) -> None:
    shutil.copytree(folder.parent / "aa", folder, dirs_exist_ok=True)
    with (folder / "weights.safetensors").open("r+b") as file:
        file.truncate(1 << 36)


def long_header(folder: Path) -> None:
    """A header of 90 MB, as long as the file says."""
    shutil.copytree(folder.parent / "aa", folder, dirs_exist_ok=True)
    with (folder / "weights.safetensors").open("wb") as file:
        file.write((90_000_000).to_bytes(8, "little"))
        file.truncate(90_000_008)


def endless_weights(folder: Path) -> None:
    shutil.copytree(folder.parent / "aa", folder, dirs_exist_ok=True)
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").symlink_to("/dev/zero")


def deep(folder: Path) -> None:
    (folder / "model.json").write_text("[" * 500_000)


def digits(folder: Path) -> None:
    (folder / "model.json").write_text('{"schema": ' + "9" * 100_000 + "}")


ODD = {
    "a pipe": (fifo, "no ordinary file"),
    "a socket": (unix_socket, "cannot be read"),
    "a device": (lambda folder: (folder / "model.json").symlink_to("/dev/zero"), "no ordinary file"),
    "a folder": (lambda folder: (folder / "model.json").mkdir(), "no ordinary file"),
    "a dangling link": (lambda folder: (folder / "model.json").symlink_to("nowhere"), "has no model.json"),
    "a link to itself": (lambda folder: (folder / "model.json").symlink_to("model.json"), "cannot be read"),
    "64 GB": (sparse, "more than 1048576 bytes"),
    "no text": (lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe\x00"), "not valid JSON"),
    "nothing": (lambda folder: (folder / "model.json").touch(), "not valid JSON"),
    "brackets": (deep, "not valid JSON"),
    "digits": (digits, "not valid JSON"),
    "64 GB of weights": (huge_weights, "more than 2 GB"),
    "a long header": (long_header, "header is longer than any network needs"),
    "endless weights": (endless_weights, "no ordinary file"),
}


@posix
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_model_is_one_line_and_the_others_stay(kind, models, capsys):
    make, words = ODD[kind]
    (models / "odd").mkdir()
    make(models / "odd")
    first, odd, last = find_packages([models])
    assert (first.id, last.id) == ("aa", "zz")
    assert isinstance(odd, BrokenPackage) and words in odd.reason, odd.reason
    assert "fault of ProSMA" not in odd.reason
    assert main(["models"]) == 0
    said = capsys.readouterr()
    assert "aa  1.0.0" in said.out and "zz  1.0.0" in said.out
    (line,) = said.err.splitlines()
    assert str(models / "odd") in line and words in line
    assert resolve("zz").id == "zz"
    with pytest.raises(PackageError):
        resolve("odd")


@posix
def test_odd_folders_among_the_models_do_not_matter(models, capsys):
    (models / "loop").symlink_to("loop")
    (models / "file.txt").write_text("mine")
    (models / "empty").mkdir()
    (models / ".hidden").mkdir()
    Path(os.fsdecode(os.fsencode(models) + b"/no\xfftext")).mkdir()
    found = find_packages([models])
    assert [package.id for package in found if isinstance(package, ModelPackage)] == ["aa", "zz"]
    (broken,) = [package for package in found if isinstance(package, BrokenPackage)]
    assert broken.name == "loop" and "cannot be read" in broken.reason


def test_a_broken_package_asked_for_by_its_id_tells_what_is_wrong_with_it(models):
    description = json.loads((models / "aa" / "model.json").read_text())
    shutil.copytree(models / "aa", models / "copied")
    (models / "copied" / "model.json").write_text(json.dumps({**description, "id": "mine", "dimension": 7}))
    with pytest.raises(PackageError, match="dimension"):
        resolve("mine")
    with pytest.raises(PackageError, match="There is no model 'yours'"):
        resolve("yours")


@posix
def test_a_name_that_is_no_text_is_shown_all_the_same(models, capsys):
    folder = Path(os.fsdecode(os.fsencode(models) + b"/no\xfftext"))
    folder.mkdir()
    (folder / "model.json").write_text("{")
    broken = find_packages([models])[1]
    assert broken.name == "no\ufffdtext"
    for arguments in (["models"], ["models", "--json"]):
        done = subprocess.run([sys.executable, "-m", "prosma.cli", *arguments], capture_output=True, check=False)
        assert done.returncode == 0 and b"Traceback" not in done.stderr and b"aa" in done.stdout


@posix
def test_a_folder_of_models_that_cannot_be_read_is_one_line(tmp_path, models):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "loop").symlink_to("loop")
    found = find_packages([tmp_path / "absent", tmp_path / "loop", models])
    assert [type(package) for package in found] == [BrokenPackage, ModelPackage, ModelPackage]
    assert found[0].folder == tmp_path / "loop"
    assert len(find_packages([tmp_path / "file", models])) == 2


@posix
def test_what_a_person_may_not_read_is_named(models, tmp_path):
    """Nobody is asked for root's models; run as nobody where these tests run as root."""
    (models / "odd").mkdir()
    (models / "odd" / "model.json").write_text("{}")
    (models / "odd").chmod(0)
    if os.getuid() == 0:
        top = next(folder for folder in tmp_path.parents if folder.name.startswith("pytest-of-"))
        for folder in (models, *models.parents):
            if folder.is_relative_to(top):  # pytest lets its user alone in
                folder.chmod(folder.stat().st_mode | 0o055)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            os._exit(not reads_all_but_the_odd_one(models))
        assert os.waitpid(child, 0)[1] == 0
    else:
        assert reads_all_but_the_odd_one(models)
    (models / "odd").chmod(0o700)


def reads_all_but_the_odd_one(models: Path) -> bool:
    first, odd, last = find_packages([models])
    return (first.id, last.id) == ("aa", "zz") and "Permission denied" in odd.reason


def test_an_unexpected_failure_is_one_line_as_well(models, monkeypatch):
    from prosma.package import library

    def fail(folder):
        if folder.name == "odd":
            raise ZeroDivisionError("a fault of somebody")
        return opened(folder)

    opened = library.ModelPackage.open
    shutil.copytree(models / "aa", models / "odd")
    monkeypatch.setattr(library.ModelPackage, "open", fail)
    _, odd, last = find_packages([models])
    assert "ZeroDivisionError" in odd.reason and last.id == "zz"


def test_the_first_of_two_models_with_one_id_counts_and_the_other_is_named(models):
    shutil.copytree(models / "aa", models / "bb")
    _, second, _ = find_packages([models])
    assert isinstance(second, BrokenPackage)
    assert second.folder.name == "bb" and f"that of the model in '{models / 'aa'}'" in second.reason
    assert resolve("aa").folder == models / "aa"
    change(models / "bb", id="bb")  # the remedy
    assert [package.id for package in find_packages([models])] == ["aa", "bb", "zz"]


@tries("package/importing.py: is that of a model that comes with ProSMA")
def test_a_model_with_the_id_of_a_bundled_one_is_never_used_in_silence(models, tmp_path):
    package = make_tiny_package(tmp_path / "mine", id="hippocampus-mr")
    with pytest.raises(PackageError, match="a model that comes with ProSMA") as refused:
        import_package(package.folder)
    assert sorted(os.listdir(models)) == ["aa", "zz"]
    assert '"id"' in refused.value.remedy
    change(package.folder, id="hippocampus-mine")
    assert import_package(package.folder).id == "hippocampus-mine"
    shutil.copytree(tmp_path / "mine", models / "hippocampus-mr")
    change(models / "hippocampus-mr", id="hippocampus-mr")
    assert main(["models"]) == 0
    assert resolve("hippocampus-mr").folder == bundled_models_folder() / "hippocampus-mr"
    broken = [each for each in find_packages(model_folders()) if isinstance(each, BrokenPackage)]
    assert [each.folder for each in broken] == [models / "hippocampus-mr"]
