"""A disk that fills up in the middle of a batch: named failures, nothing half, and with more room the same call goes on."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from dicom_writing import noise, without_times, write_series
from test_cli import run

from prosma.batch.records import RECORDS
from prosma.cli import exit_codes

pytest.importorskip("highdicom")
OUTPUTS = ["--format", ".dcm"]
for ending in (".rtstruct.dcm", ".seg.nrrd", ".preview.png", ".stl", ".probabilities.nrrd"):
    OUTPUTS += ["--also", ending]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs Linux and the right to mount")
    yield place
    subprocess.run(["umount", place], check=True)


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.iterdir() if path.name != RECORDS]
    return {path.name: hashlib.sha256(without_times(path)).hexdigest() for path in files}


@pytest.mark.slow
def test_a_full_disk_costs_named_failures_and_nothing_is_half(tiny, small_disk, tmp_path, capsys):
    for number in range(4):

        def edit(ds, _k, number=number):
            ds.SeriesInstanceUID = f"1.2.3.{number}"

        write_series(tmp_path / "images" / f"case{number}", noise((12, 12, 14), seed=number), edit=edit)
    command = ["segment", tmp_path / "images", "-m", tiny.folder, "--device", "cpu", *OUTPUTS, "-o"]
    assert run(*command, tmp_path / "alone") == 0
    expected, out = digests(tmp_path / "alone"), small_disk / "out"
    assert len(expected) == 4 * 6
    capsys.readouterr()
    assert run(*command, out) in (exit_codes.SOME_FAILED, exit_codes.FAILED)
    assert "could not be written (No space left on device). Free some space there" in capsys.readouterr().err
    there = digests(out)
    assert there and there.items() < expected.items(), "what is there is whole, and no claim or part of a file is left"
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert run(*command, out) == 0
    assert digests(out) == expected
    lines = [json.loads(line) for line in (out / RECORDS).read_text().splitlines() if line.endswith("}")]
    outputs = [line["output"] for line in lines if "sha256" in line]
    assert sorted(outputs) == sorted(expected), "each was written once"
