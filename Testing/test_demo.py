"""`make demo` does the main job, says so with its exit code, and manages without Qt's libraries."""

import subprocess
import sys
from pathlib import Path

import pytest

import demo
import system_libraries


@pytest.mark.skipif(bool(system_libraries.missing()), reason=system_libraries.notice())
def test_the_demo_segments_by_a_click_and_exits_with_zero(tmp_path):
    command = [sys.executable, demo.__file__, "--output", tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Segmented by the panel" in done.stdout
    assert (tmp_path / "hippocampus_017.seg.nrrd").is_file()
    assert (tmp_path / "screenshot.png").is_file() or "Notice: No pictures" in done.stdout


def without_qt(monkeypatch, *arguments) -> int:
    """Run the demo in this process as on a machine without Qt's libraries."""
    monkeypatch.setattr(system_libraries, "missing", lambda: ["libGL.so.1"])
    monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, arguments)])
    return demo.main()


def test_without_qts_libraries_the_command_line_does_it_and_the_packages_are_named(monkeypatch, capsys, tmp_path):
    assert without_qt(monkeypatch, "--output", tmp_path) == 0
    said = capsys.readouterr().out
    assert "this machine lacks libGL.so.1" in said
    assert "apt-get install" in said
    assert "Segmented by the command line" in said
    assert "Not written:" in said


@pytest.mark.slow
def test_a_poor_segmentation_is_a_failure(monkeypatch, capsys, tmp_path):
    assert without_qt(monkeypatch, "--output", tmp_path, "--least-dice", "1.01") == 1
    assert "below 1.01" in capsys.readouterr().err


@pytest.mark.slow
def test_a_missing_result_is_a_failure(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo, "SAMPLES", samples_without_volume(tmp_path))
    assert without_qt(monkeypatch, "--output", tmp_path / "out") == 1
    assert "The demo failed" in capsys.readouterr().err


def samples_without_volume(folder: Path) -> Path:
    (folder / "samples.json").write_bytes((demo.SAMPLES / "samples.json").read_bytes())
    return folder
