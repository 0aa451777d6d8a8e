"""The extension, installed by a real CMake from its own lists (Slicer's macros are stand-ins), runs where it is."""

import json
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import cmake_lists
import pytest

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


def _python(installed: Path, *arguments, **options) -> str:
    """Run Python as the module runs the engine: the folder beside the module on PYTHONPATH, nothing of the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    return _run(sys.executable, *arguments, cwd=installed, env=environment, **options)


def test_cmake_installs_what_the_lists_say_and_no_more(installed):
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert files == set(cmake_lists.installed_files(ROOT))


def test_every_installed_script_compiles(installed, tmp_path):
    for script in installed.rglob("*.py"):
        py_compile.compile(str(script), cfile=str(tmp_path / "compiled.pyc"), doraise=True)


def test_the_installed_engine_is_the_one_that_starts_and_knows_the_bundled_models(installed):
    where = _python(installed, "-c", "import prosma; print(prosma.__file__)").strip()
    assert Path(where) == installed / "prosma/__init__.py"
    bundled = "from prosma.bundle import bundled_models_folder; print(bundled_models_folder())"
    assert Path(_python(installed, "-c", bundled).strip()) == installed / "Resources/Models"


def test_the_installed_worker_gets_ready_and_shuts_down(installed):
    events = _python(installed, "-m", "prosma.worker", input='{"id": "1", "do": "shutdown"}\n').splitlines()
    assert json.loads(events[0])["event"] == "ready"
