"""Files that are whole or not there, and what killed processes leave (training/prosma/files.py)."""

import os
import subprocess
import sys

import pytest

from prosma.files import COMPUTER, replaced_when_whole, working_folder

KILLED = """
import os, sys
from pathlib import Path
from prosma.files import replaced_when_whole, working_folder
with replaced_when_whole(Path(sys.argv[1]), ".nrrd") as temporary, working_folder(Path(sys.argv[2]), "work-") as folder:
    temporary.write_text("half")
    (folder / "more").write_text("half")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signals")
def test_what_a_killed_process_left_goes_with_the_next_one_that_does_the_same(tmp_path):
    target, other = tmp_path / "[a].nrrd", tmp_path / ".[a].nrrd.0123abcd-7.nrrd"
    (tmp_path / "work").mkdir()
    code = subprocess.run(
        [sys.executable, "-c", KILLED, target, tmp_path / "work"], timeout=120, check=False
    ).returncode
    assert code == -9 and len(list(tmp_path.iterdir())) == 2 and len(list((tmp_path / "work").iterdir())) == 2
    other.write_text("another computer's, which may be at work on a shared disk")
    living = tmp_path / f".[a].nrrd.{COMPUTER}-{os.getppid()}.nrrd"
    living.write_text("a living process's")
    with replaced_when_whole(target, ".nrrd") as temporary, working_folder(tmp_path / "work", "work-") as folder:
        temporary.write_text("whole")
        assert {file for file in tmp_path.iterdir() if file.name[0] == "."} == {temporary, other, living}
        assert [path.name for path in (tmp_path / "work").iterdir() if path.is_dir()] == [folder.name]
    assert target.read_text() == "whole"
    assert {path.name for path in tmp_path.iterdir()} == {target.name, other.name, living.name, "work"}
    assert not list((tmp_path / "work").iterdir())


def test_a_folder_in_the_place_of_a_file_is_named_before_anything_is_written(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError) as caught, replaced_when_whole(tmp_path / "a.json"):
        pytest.fail("it was written")
    assert caught.value.filename == str(tmp_path / "a.json") and list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_what_finds_no_room_is_named(small_files, tmp_path):
    with small_files(1000):
        with pytest.raises(OSError) as caught, replaced_when_whole(tmp_path / "a.json") as temporary:
            temporary.write_bytes(bytes(2000))
        assert caught.value.filename == str(tmp_path / "a.json")
        with pytest.raises(OSError) as caught, working_folder(tmp_path, "work-") as folder:
            (folder / "b").write_bytes(bytes(2000))
        assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
