"""The engine behind PythonSlicer's launcher: why it ended, and what it may import."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
import scenes
import SimpleITK
from launcher import write_launcher

from headless_slicer import processEvents

TORCH_SECONDS = 240  # the engine imports torch; on a busy machine that takes its time
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the launcher of these tests is a script for Unix")
PLUGIN = """
#include <stdio.h>
#include <stdlib.h>
__attribute__((constructor)) static void loaded(void) { fclose(fopen(MARKER, "w")); }
"""


@pytest.fixture
def behind(panel, monkeypatch, tmp_path):
    """A function that puts another launcher on PATH, for an engine that starts anew."""

    def change(**options):
        panel.logic.engine.stop()
        folder = write_launcher(tmp_path / "bin", **options)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    yield change
    panel.logic.engine.stop()  # the next test starts it with the usual launcher again


def failed(panel):
    """Click Segment; the error that it ends with."""
    scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
    job = scenes.click_segment(panel, timeout=TORCH_SECONDS)
    assert job.state == job.FAILED
    assert "Report the problem" not in panel.ui.messageLabel.text
    return job.error


def write_volume(path, array):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))


def dying(how):
    """Arguments for a Python that says something and ends so."""
    return ["-c", f"import os, sys; sys.stdin.readline(); {how}"]


def test_words_of_the_engine_about_memory_are_believed(panel, behind):
    said = "sys.stderr.write(\"terminate called after throwing an instance of 'std::bad_alloc'\\\\n\")"
    behind(before=dying(f"{said}; sys.stderr.flush(); os.abort()"))
    error = failed(panel)
    assert error.code == "out_of_memory"
    assert error.message == "The engine ended because the computer's memory did not suffice."
    assert "Close other programs" in error.remedy


def test_the_systems_count_of_processes_ended_for_want_of_memory_is_believed(panel, behind, monkeypatch, tmp_path):
    from ProSMASegmentationLib.Base import ChildProcess

    counts = tmp_path / "vmstat"
    counts.write_text("pgfault 12\noom_kill 3\n")
    monkeypatch.setattr(ChildProcess, "COUNTS_OF_KILLS", (counts, tmp_path / "not there"))
    behind(before=dying("os.kill(os.getpid(), 9)"))
    error = failed(panel)
    assert error.code == "engine_stopped", "it was ended, and nothing says that memory was the reason"
    assert "A computer that runs out of memory does this" in error.message

    scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
    panel.logic.engine.start()
    counts.write_text("pgfault 99\noom_kill 4\n")
    error = failed(panel)
    assert error.code == "out_of_memory"


def test_the_systems_count_is_read_as_it_is():
    from ProSMASegmentationLib.Base.ChildProcess import killsForMemory

    assert killsForMemory() >= 0


def test_a_process_that_ends_by_itself_is_quoted(panel, behind):
    behind(before=dying("sys.stderr.write('no such luck\\\\n'); sys.exit(3)"))
    error = failed(panel)
    assert error.code == "engine_stopped"
    assert "exit code 3" in error.message
    assert "It said last: no such luck" in error.message


@pytest.mark.parametrize(
    "without", [(), ("PYTHONSAFEPATH",)], ids=["as it is", "as Python 3.10, which lacks the variable"]
)
def test_nothing_is_imported_that_lies_in_the_current_folder_or_on_somebodys_path(
    panel, behind, monkeypatch, tmp_path, without
):
    planted = tmp_path / "planted"
    planted.mkdir()
    trap = f"import pathlib; pathlib.Path({str(tmp_path / 'sprung')!r}).write_text('by ' + __file__)\n"
    for name in ("sitecustomize", "numpy", "torch", "json", "prosma", "startup", "usercustomize"):
        (planted / f"{name}.py").write_text(trap)
    subprocess.run(
        [sys.executable, "-c", "import sitecustomize"], cwd=planted, env={"PYTHONPATH": str(planted)}, check=True
    )
    assert (tmp_path / "sprung").exists(), "the trap works"
    (tmp_path / "sprung").unlink()

    monkeypatch.chdir(planted)
    monkeypatch.setenv("PYTHONPATH", str(planted))
    monkeypatch.setenv("PYTHONSTARTUP", str(planted / "startup.py"))
    monkeypatch.setenv("PYTHONINSPECT", "1")
    behind(without=without)
    volume = scenes.add_volume(scenes.texture((24, 24, 24)))
    scenes.select(panel, volume)
    job = scenes.click_segment(panel, timeout=TORCH_SECONDS)
    assert job.state == job.FINISHED, str(job.error)
    assert not (tmp_path / "sprung").exists(), (tmp_path / "sprung").read_text()


def test_paths_that_depend_on_the_current_folder_mean_the_same_to_the_engine(panel, models, monkeypatch, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    write_volume(images / "case.nrrd", scenes.texture((24, 24, 24)))
    shutil.copytree(models.tiny.folder, tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    queue = panel.logic.batch("images", model="package", outputFolder="results")
    assert [item.state for item in queue.items] == ["finished"]
    assert (tmp_path / "results" / "case.seg.nrrd").is_file()


@pytest.mark.skipif(shutil.which("cc") is None, reason="a plug-in has to be compiled")
def test_slicers_image_plug_ins_stay_out_of_the_engine(panel, behind, tmp_path):
    """They crash SimpleITK there. The launcher sets ITK_AUTOLOAD_PATH again, whatever it inherits."""
    plugins, marker = tmp_path / "plugins", tmp_path / "loaded"
    plugins.mkdir()
    source = tmp_path / "plugin.c"
    source.write_text(PLUGIN)
    library = plugins / "libPlugin.so"
    subprocess.run(["cc", "-shared", "-fPIC", f'-DMARKER="{marker}"', str(source), "-o", str(library)], check=True)
    images = tmp_path / "images"
    images.mkdir()
    write_volume(images / "case.nrrd", scenes.texture((24, 24, 24)))
    read = f"import SimpleITK; SimpleITK.ReadImage({str(images / 'case.nrrd')!r})"
    subprocess.run(
        [sys.executable, "-c", read], env={**os.environ, "ITK_AUTOLOAD_PATH": str(plugins)}, check=True, timeout=120
    )
    assert marker.exists(), "SimpleITK loads what lies there"
    marker.unlink()

    behind(plugins=plugins)
    queue = panel.logic.batch(images, model="tiny", outputFolder=tmp_path / "out")
    assert [item.state for item in queue.items] == ["finished"]
    assert not marker.exists()
    command = [str(tmp_path / "bin" / "PythonSlicer"), "-m", "prosma.cli", "segment", str(images / "case.nrrd")]
    command += ["-m", str(panel.logic.library.package("tiny").folder), "-o", str(tmp_path / "b.nrrd")]
    source = scenes.MODULE.parents[1] / "training"
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(source)}, check=True, timeout=TORCH_SECONDS)
    assert not marker.exists()


def test_a_killed_fine_tuning_tells_the_same(panel, behind, tmp_path):
    from ProSMASegmentationLib.Base.ChildProcess import ChildProcess

    behind()
    endings, events = [], []
    code = "import json, os, time; print(json.dumps({'pid': os.getpid()}), flush=True); time.sleep(600)"
    process = ChildProcess(["-c", code], events.append, endings.append).start()
    processEvents(until=lambda: process.processId is not None, timeout=60)
    os.kill(process.processId, signal.SIGKILL)
    processEvents(until=lambda: endings, timeout=60)
    assert endings[0].exitCode == 1 and not endings[0].crashed, "so the launcher ends"
    assert endings[0].wasEndedFromOutside
    assert "Fine-tuning was ended from outside" in endings[0].sentence("Fine-tuning")
