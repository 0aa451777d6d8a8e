"""Licences that a person has to accept: asked for once for each content, by command line and panel together."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from prosma.cli import main
from prosma.cli.licence_question import check_licence
from prosma.package import LicenceError
from prosma.package.accepted_licences import accept, is_accepted
from tiny_model import make_tiny_package


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def strict(folder, **changes):
    return make_tiny_package(folder, accept_licence=True, **changes)


def test_a_model_without_such_a_licence_is_never_asked_about(home, tmp_path):
    package = make_tiny_package(tmp_path / "free")
    assert is_accepted(package)
    check_licence(package, False)
    assert not home.exists()


def test_a_program_has_to_say_so_once(home, tmp_path):
    package = strict(tmp_path / "m")
    with pytest.raises(LicenceError, match=r"CC0-1\.0") as refused:
        check_licence(package, False)
    assert refused.value.code == "licence" and "--accept-licence" in refused.value.remedy
    assert not home.exists(), "nothing is written for a question"
    check_licence(package, True)
    check_licence(package, False)
    assert is_accepted(package)
    (entry,) = json.loads((home / "accepted-licences.json").read_text()).values()
    assert entry == {"model": "tiny", "licence": "CC0-1.0"}


@pytest.mark.parametrize("change", ["licence", "id", "a file", "a changed file"])
def test_another_content_is_asked_about_again_and_another_version_is_not(home, tmp_path, change):
    (tmp_path / "m").mkdir()
    package = strict(tmp_path / "m")
    if change == "a changed file":
        (package.folder / "LICENSE.txt").write_text("One.")
    accept(package)
    assert is_accepted(strict(tmp_path / "newer", version="9.0.0", seed=3)) == (change != "a changed file")
    if change == "licence":
        package = strict(tmp_path / "n", training={"data": "none", "licence": "Another", "citation": "none"})
    elif change == "id":
        package = strict(tmp_path / "n", id="other")
    else:
        (package.folder / "LICENSE.txt").write_text("Two.")
    assert not is_accepted(package)
    accept(package)
    assert is_accepted(package) and is_accepted(package)


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", "null", "[" * 100_000])
def test_a_damaged_record_means_that_nothing_was_accepted(home, tmp_path, content):
    home.mkdir()
    (home / "accepted-licences.json").write_text(content)
    package = strict(tmp_path / "m")
    assert not is_accepted(package)
    accept(package)
    assert is_accepted(package)


def test_where_nothing_can_be_written_the_command_still_runs(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path / "file"))
    package = strict(tmp_path / "m")
    check_licence(package, True)
    with pytest.raises(LicenceError):
        check_licence(package, False)
    with pytest.raises(OSError):
        accept(package)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize(("answer", "accepted"), [("y", True), ("YES", True), ("n", False), ("", False)])
def test_a_person_is_asked_with_the_licence(home, tmp_path, answer, accepted):
    """At a real terminal."""
    import pty

    package = strict(tmp_path / "m")
    ours, theirs = pty.openpty()
    code = (
        "import sys; from prosma.package import ModelPackage; from prosma.cli.licence_question import check_licence\n"
        "check_licence(ModelPackage.open(sys.argv[1]), False); print('accepted')"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(package.folder)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ},
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    child.wait(timeout=120)
    said = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "CC0-1.0" in said and ("accepted\r\n" in said) == accepted == is_accepted(package)


def test_the_command_line_asks_until_it_was_accepted(home, tmp_path, capsys):
    """The panel reads the same record: see test_other_peoples_models.py."""
    package = strict(tmp_path / "m", spacing=None, patch_size=[16, 16, 16])
    pixels = np.arange(24 * 24 * 24, dtype=np.uint16).reshape(24, 24, 24)
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(tmp_path / "scan.nrrd"))
    arguments = ["segment", str(tmp_path / "scan.nrrd"), "-m", str(package.folder), "-o", str(tmp_path / "x.nrrd")]
    assert main(arguments) == 1
    assert "--accept-licence" in capsys.readouterr().err and not (tmp_path / "x.nrrd").exists()
    assert main([*arguments, "--accept-licence"]) == 0
    (tmp_path / "x.nrrd").unlink()
    assert main(arguments) == 0 and (tmp_path / "x.nrrd").exists()
