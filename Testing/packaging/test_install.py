"""The extension, installed by a real CMake from its own lists (Slicer's macros are stand-ins), runs where it is."""

import json
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import cmake_lists
import pytest

import system_libraries

ROOT = Path(__file__).parents[2]
STUB = Path(__file__).parent / "slicer_stub"

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder of scripted modules of the installed extension."""
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("installed")
    no_compiler = [f"-DCMAKE_{language}_COMPILER_FORCED=ON" for language in ("C", "CXX")]
    no_compiler += [f"-DCMAKE_{language}_COMPILER={sys.executable}" for language in ("C", "CXX")]
    _run("cmake", "-S", ROOT, "-B", build, f"-DSlicer_DIR={STUB}", *no_compiler)
    _run("cmake", "--install", build, "--prefix", prefix)
    return prefix / "lib"


def _run(*command, **options) -> str:
    done = subprocess.run(
        [str(word) for word in command], check=False, capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _python(installed: Path, *arguments) -> tuple[list[str], dict]:
    """Command and options that run Python as the module runs the engine: the folder beside the module on PYTHONPATH.

    -S keeps an editable installation of the checkout out; the libraries are added by their folder.
    """
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return [sys.executable, "-S", *arguments], {"cwd": installed, "env": environment}


def _evaluate(installed: Path, expression: str) -> str:
    command, options = _python(installed, "-c", f"import prosma.package; print({expression})")
    return _run(*command, **options).strip()


def test_cmake_installs_what_the_lists_say_and_no_more(installed):
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert files == set(cmake_lists.installed_files(ROOT))


def test_every_installed_script_compiles(installed, tmp_path):
    for script in installed.rglob("*.py"):
        py_compile.compile(str(script), cfile=str(tmp_path / "compiled.pyc"), doraise=True)


def test_the_installed_engine_is_the_one_that_is_imported(installed):
    assert _evaluate(installed, "prosma.__file__") == str(installed / "prosma" / "__init__.py")


def test_the_installed_engine_finds_the_installed_models(installed):
    assert _evaluate(installed, "prosma.package.bundled_models_folder()") == str(installed / "Resources" / "Models")
    assert _evaluate(installed, "prosma.package.resolve('hippocampus-mr').id") == "hippocampus-mr"


def test_the_installed_worker_gets_ready_and_shuts_down(installed):
    command, options = _python(installed, "-m", "prosma.worker")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options) as worker:
        ready = json.loads(worker.stdout.readline())
        worker.stdin.write('{"id": "1", "do": "shutdown"}\n')
        worker.stdin.flush()
        assert worker.wait(timeout=30) == 0
    assert ready["event"] == "ready"
    assert ready["problem"] is None


CLICK_IN_PANEL = """
import headless_slicer
headless_slicer.loadModule("SegmentEditorProSMAStrokes.py")
widget = headless_slicer.loadModule("ProSMASegmentation.py")
effect = widget.ui.segmentEditor.effectByName("ProSMA Strokes")
headless_slicer.click(widget.ui.sampleButton)
headless_slicer.click(widget.ui.segmentButton)
job = widget.panel.job
headless_slicer.processEvents(until=lambda: not job.isActive, timeout=120)
from ProSMASegmentationLib.Base import Places
print(effect.self().__class__.__module__)
print(job.state, job.error, job.package.folder, Places.engineSource(), Places.samplesFolder(), sep="\\n")
headless_slicer.close()
"""


@pytest.mark.skipif(bool(system_libraries.missing()), reason=system_libraries.notice())
def test_the_installed_panel_segments_the_installed_sample_with_the_installed_model(installed):
    command, options = _python(installed, "-c", CLICK_IN_PANEL)
    options["env"]["PYTHONPATH"] += os.pathsep + str(ROOT / "Testing")
    effect, state, error, *places = _run(*command, **options).splitlines()
    assert effect == "SegmentEditorProSMAStrokesLib.SegmentEditorEffect"
    assert (state, error) == ("finished", "None")
    resources = installed / "Resources"
    assert places == [str(resources / "Models" / "hippocampus-mr"), str(installed), str(resources / "Samples")]
