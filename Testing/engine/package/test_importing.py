"""Importing other people's packages: what is taken, what is refused, and what a kill leaves behind."""

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from prosma.cancel import Cancelled
from prosma.package import ModelPackage, PackageError, find_packages, import_package, importing, resolve
from prosma.package.weights_file import LARGEST_WEIGHTS
from remedies import tries
from tiny_model import make_tiny_package

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def package(tmp_path) -> ModelPackage:
    return make_tiny_package(tmp_path / "tiny")


def zipped(package: ModelPackage, archive: Path, prefix: str = "tiny/", compression=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as file:
        for path in package.folder.iterdir():
            file.write(path, f"{prefix}{path.name}")
    return archive


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def refused(path: Path, home: Path) -> str:
    """The message and remedy of a refused import, after which the user's folder is as it was."""
    before = everything(home)
    with pytest.raises(PackageError) as caught:
        import_package(path)
    assert [name for name in everything(home) if name not in before] in ([], ["models"])
    assert caught.value.remedy
    return str(caught.value)


# --- what is taken


def test_an_imported_package_is_found_by_its_id(package, home):
    with pytest.raises(PackageError, match="tiny"):
        resolve("tiny")
    imported = import_package(package.folder)
    assert imported.folder == home / "models" / "tiny"
    assert resolve("tiny").sha256 == package.sha256
    assert resolve(package.folder).folder == package.folder


@pytest.mark.parametrize("way", ["folder", "zip"])
def test_only_the_files_of_a_package_are_taken(package, home, tmp_path, way):
    (package.folder / "LICENSE.txt").write_text("Do as you like.")
    (package.folder / "patients.csv").write_text("secret")
    (package.folder / "code.py").write_text("secret")
    (package.folder / "images").mkdir()
    (package.folder / "images" / "scan.nii").write_text("secret")
    path = package.folder if way == "folder" else zipped(package, tmp_path / "tiny.zip")
    import_package(path)
    taken = ["LICENSE.txt", "README.md", "model.json", "weights.safetensors"]
    assert everything(home) == sorted(["models", "models/tiny", *(f"models/tiny/{name}" for name in taken)])
    for name in taken:
        assert (home / "models" / "tiny" / name).read_bytes() == (package.folder / name).read_bytes()


@pytest.mark.parametrize("prefix", ["", "./", "tiny/", "a/b/c/", "tiny\\"])
def test_a_package_may_lie_in_a_folder_of_the_zip(package, home, tmp_path, prefix):
    archive = zipped(package, tmp_path / "tiny.zip", prefix, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/._model.json", "what macOS adds")
    assert import_package(archive).id == "tiny"


def test_progress_rises_to_one_and_a_cancel_leaves_nothing(package, home):
    told = []
    import_package(package.folder, progress=told.append)
    assert told == sorted(told) and told[-1] == 1.0 and len(told) >= 3
    shutil.rmtree(home)
    for moment in range(4):
        asked = iter(range(100))
        with pytest.raises(Cancelled):
            import_package(package.folder, cancelled=lambda asked=asked, moment=moment: next(asked) >= moment)
        assert everything(home) == ["models"]


def test_an_older_model_of_the_same_id_is_replaced_whole(package, home, tmp_path):
    (package.folder / "LICENSE.txt").write_text("old")
    import_package(package.folder)
    newer = make_tiny_package(tmp_path / "newer", seed=1, version="2.0.0")
    assert import_package(newer.folder).version == "2.0.0"
    assert everything(home / "models" / "tiny") == ["README.md", "model.json", "weights.safetensors"]
    assert everything(home / "models") == sorted(
        ["tiny", *(f"tiny/{name}" for name in os.listdir(home / "models/tiny"))]
    )


# --- folders that are refused


LINKS = {
    "a link to a file": lambda path: path.symlink_to("/etc/hostname"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
}


@posix
@pytest.mark.parametrize("name", ["model.json", "README.md", "weights.safetensors", "preview.png", "LICENSE"])
@pytest.mark.parametrize("kind", LINKS)
@tries("package/importing.py: Put the file itself there")
def test_links_and_special_files_are_refused_and_the_remedy_works(package, home, kind, name):
    path = package.folder / name
    content = path.read_bytes() if path.exists() else b"text"
    path.unlink(missing_ok=True)
    LINKS[kind](path)
    said = refused(package.folder, home)
    assert name in said and "not followed" in said and "Put the file itself there" in said
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    path.write_bytes(content)
    assert import_package(package.folder).id == "tiny"


@posix
def test_a_link_that_takes_a_files_place_meanwhile_is_not_followed(package, home, tmp_path, monkeypatch):
    """Between looking and opening."""
    (tmp_path / "secret").write_text("secret")
    looked = importing.part_of

    def swap(path):
        part = looked(path)
        if path.name == "README.md":
            path.unlink()
            path.symlink_to(tmp_path / "secret")
        return part

    monkeypatch.setattr(importing, "part_of", swap)
    assert "it is a link" in refused(package.folder, home)


@posix
@pytest.mark.parametrize(("name", "size"), [("README.md", 1 << 21), ("preview.png", 1 << 25), ("model.json", 1 << 21)])
def test_files_larger_than_any_packages_are_refused(package, home, name, size):
    with (package.folder / name).open("ab") as file:
        file.truncate(size)
    refused(package.folder, home)


@posix
def test_weights_larger_than_the_disk_or_the_limit_are_refused(package, home, monkeypatch):
    with package.weights_path.open("r+b") as file:
        file.truncate(1 << 43)
    assert "the disk has less room" in refused(package.folder, home)
    assert LARGEST_WEIGHTS == 2 << 30
    monkeypatch.setattr(importing, "LARGEST_WEIGHTS", 1000)
    with package.weights_path.open("r+b") as file:
        file.truncate(5000)
    assert "larger than any package's" in refused(package.folder, home)


@pytest.mark.parametrize(
    "file", ["../../etc/passwd", "/etc/passwd", "README.md", "", "a\0b", "sub/w.safetensors", 5, None, "."]
)
def test_weights_are_named_by_a_plain_name(package, home, file):
    model = json.loads((package.folder / "model.json").read_text())
    model["weights"]["file"] = file
    (package.folder / "model.json").write_text(json.dumps(model))
    refused(package.folder, home)


def test_what_is_no_package_is_refused(tmp_path, home):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("text")
    for path in (tmp_path / "absent", tmp_path / "empty", tmp_path / "text", tmp_path):
        assert "no model" in refused(path, home) or "not a model package" in refused(path, home)
    with pytest.raises(PackageError):
        import_package("a\0b")


# --- zips that are refused


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil", "c:evil"])
def test_names_that_lead_elsewhere_are_refused(package, home, tmp_path, name):
    archive = zipped(package, tmp_path / "tiny.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, "{}")
    assert "unsafe path" in refused(archive, home)
    assert not list(tmp_path.rglob("evil"))


def test_links_in_a_zip_are_refused(package, home, tmp_path):
    archive = tmp_path / "tiny.zip"
    (package.folder / "README.md").unlink()
    zipped(package, archive)
    with zipfile.ZipFile(archive, "a") as file:
        link = zipfile.ZipInfo("tiny/README.md")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    assert "is a link" in refused(archive, home)


def test_a_file_that_would_grow_beyond_reason_is_refused(package, home, tmp_path):
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(package.folder / "model.json", "model.json")
        with file.open("weights.safetensors", "w", force_zip64=True) as weights:
            for _ in range(256):
                weights.write(bytes(1 << 20))
    assert archive.stat().st_size < 1 << 19
    assert "would grow to more than 100 times" in refused(archive, home)


def test_thousands_of_files_are_refused(package, home, tmp_path):
    archive = zipped(package, tmp_path / "many.zip")
    with zipfile.ZipFile(archive, "a") as file:
        for number in range(1200):
            file.writestr(f"tiny/{number}", "")
    assert "holds 1203 files" in refused(archive, home)


def test_deep_and_several_packages_are_refused(package, home, tmp_path):
    assert "not a model package" in refused(zipped(package, tmp_path / "deep.zip", "a/" * 4), home)
    archive = zipped(package, tmp_path / "two.zip", "a/")
    with zipfile.ZipFile(archive, "a") as file:
        file.write(package.folder / "model.json", "b/model.json")
    assert "several models" in refused(archive, home)


def test_a_file_that_is_there_twice_is_refused(package, home, tmp_path):
    archive = zipped(package, tmp_path / "twice.zip")
    with pytest.warns(UserWarning), zipfile.ZipFile(archive, "a") as file:
        file.writestr("tiny/model.json", "{}")
    assert "twice" in refused(archive, home)


def test_a_password_and_an_unknown_compression_are_told(package, home, tmp_path):
    archive = zipped(package, tmp_path / "tiny.zip")
    data = archive.read_bytes()
    for offset, value, words in ((8, 1, "password"), (10, 9, "unpack")):  # in each entry of the central directory
        changed = bytearray(data)
        position = changed.find(b"PK\x01\x02")
        while position >= 0:
            changed[position + offset] = value
            position = changed.find(b"PK\x01\x02", position + 1)
        archive.write_bytes(changed)
        assert words in refused(archive, home)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED])
def test_damaged_zips_are_told_in_a_sentence_or_do_no_harm(package, home, tmp_path, compression):
    archive = zipped(package, tmp_path / "tiny.zip", compression=compression)
    data = archive.read_bytes()
    draw = random.Random(compression)
    failed = 0
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 1, 3, 20))):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        archive.write_bytes(changed[: draw.choice((len(changed), len(changed), draw.randrange(len(changed))))])
        try:
            import_package(archive)
        except PackageError as error:
            failed += 1
            assert str(error).endswith((".", ".)")) and "fault" not in str(error)
        assert {name.partition("/")[2].partition("/")[0] for name in everything(home)} <= {"", "tiny"}
        if (home / "models" / "tiny").exists():
            assert ModelPackage.open(home / "models" / "tiny").sha256 == package.sha256
    assert failed > 20


def test_a_zip_can_be_used_without_importing_it(package, home, tmp_path):
    archive = zipped(package, tmp_path / "tiny.zip")
    opened = ModelPackage.open(archive)
    assert opened.sha256 == package.sha256 and opened.folder.parent == home / "unpacked"
    written = os.stat(opened.weights_path).st_mtime_ns
    assert os.stat(ModelPackage.open(archive).weights_path).st_mtime_ns == written, "unpacked once for each content"
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(PackageError):
        ModelPackage.open(archive)
    assert len(os.listdir(home / "unpacked")) == 1


# --- kills

IMPORT_AGAIN_AND_AGAIN = """
import sys
from prosma.package import import_package
print("ready", flush=True)
while True:
    for path in sys.argv[1:]:
        import_package(path)
"""

DIE_AT_A_MOVE = """
import os, signal, sys
from prosma import files
from prosma.package import import_package, write_package, ModelPackage
moves, replace, remove = iter(range(100)), os.replace, files.shutil.rmtree
def die(function):
    def step(*arguments, **options):
        if next(moves) == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return step
os.replace, files.shutil.rmtree = die(replace), die(remove)
new = ModelPackage.open(sys.argv[3])
if sys.argv[2] == "import":
    import_package(new.folder)
else:
    write_package(sys.argv[4], new.model, new.weights_path.read_bytes(), "")
print("done")
"""


def python(script: str, *arguments, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}, **options)


def check_one_whole_model(models: Path, versions: set[str]) -> str:
    """What the next start finds: one usable model and nothing else."""
    (found,) = find_packages([models])
    assert isinstance(found, ModelPackage) and found.version in versions
    assert os.listdir(models) == ["tiny"]
    return found.version


@pytest.fixture
def versions(tmp_path) -> list[ModelPackage]:
    """Two packages of one id."""
    return [make_tiny_package(tmp_path / f"v{n}", seed=n, version=f"{n}.0.0") for n in (1, 2)]


@posix
@pytest.mark.parametrize("kills", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_of_an_import_loses_no_model(versions, home, kills):
    import_package(versions[0].folder)
    draw = random.Random(kills)
    seen = []
    for _ in range(kills):
        child = python(IMPORT_AGAIN_AND_AGAIN, *(package.folder for package in versions))
        assert child.stdout.readline() == "ready\n"
        time.sleep(draw.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
        seen.append(check_one_whole_model(home / "models", {"1.0.0", "2.0.0"}))
    if kills > 15:  # few kills may all come before the first move where other work is done
        assert set(seen) == {"1.0.0", "2.0.0"}, "kills before and after the moves"


@posix
@pytest.mark.parametrize("how", ["import", "write"])
def test_a_kill_before_each_single_move_loses_no_model(versions, home, how):
    """And there are such moves: killed at a later one than there are, the program ends by itself."""
    models = home / "models"
    import_package(versions[0].folder)
    ends = []
    for move in range(12):
        child = python(DIE_AT_A_MOVE, move, how, versions[1].folder, models / "tiny")
        said, _ = child.communicate(timeout=120)
        ends.append(child.returncode)
        version = check_one_whole_model(models, {"1.0.0", "2.0.0"})
        if said == "done\n":
            assert version == "2.0.0" and child.returncode == 0
            break
        assert child.returncode == -signal.SIGKILL
        import_package(versions[0].folder)
    assert len(ends) >= 5 and ends[-1] == 0


@posix
def test_a_killed_export_is_put_right_when_its_package_is_opened(versions, home, tmp_path):
    """Where nobody lists a folder of models: the package's own path is enough."""
    shutil.copytree(versions[0].folder, tmp_path / "out" / "mine")
    for move in (0, 1, 2, 3):
        child = python(DIE_AT_A_MOVE, move, "write", versions[1].folder, tmp_path / "out" / "mine")
        child.communicate(timeout=120)
        assert ModelPackage.open(tmp_path / "out" / "mine").version in ("1.0.0", "2.0.0")


@posix
def test_a_running_import_is_left_alone_by_those_who_list(versions, home):
    """Folders of processes that live are not swept, whether they are this one's or another's."""
    models = home / "models"
    import_package(versions[0].folder)
    child = python(IMPORT_AGAIN_AND_AGAIN, *(package.folder for package in versions))
    assert child.stdout.readline() == "ready\n"
    listed = [find_packages([models]) for _ in range(200)]
    assert child.poll() is None, "no import failed because somebody looked"
    child.kill()
    child.wait()
    assert {len(found) for found in listed} <= {0, 1} and sum(len(found) == 1 for found in listed) > 150
    assert all(isinstance(package, ModelPackage) for found in listed for package in found)

    def list_meanwhile(fraction):
        assert any(name.startswith(".prosma-import") for name in os.listdir(models))
        find_packages([models])

    assert import_package(versions[1].folder, progress=list_meanwhile).version == "2.0.0"
    check_one_whole_model(models, {"2.0.0"})


def test_what_an_earlier_version_left_is_removed_once_it_is_old(versions, home):
    import_package(versions[0].folder)
    for name, age in ((".import-old", 7200), (".import-new", 10)):
        (home / "models" / name / "old").mkdir(parents=True)
        os.utime(home / "models" / name, (time.time() - age,) * 2)
    find_packages([home / "models"])
    assert sorted(os.listdir(home / "models")) == [".import-new", "tiny"]
