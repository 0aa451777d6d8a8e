"""`pip install ./training`: a wheel with all rooms and the bundled models, installed where nothing of the checkout is."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import SimpleITK as sitk

from prosma import __version__

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "ProSMASegmentation/Resources/Models"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy, for a build leaves its traces; with one of what an earlier build left."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "results")
    shutil.copytree(ROOT / "training", folder / "training", ignore=ignored)
    shutil.copytree(MODELS, folder / "ProSMASegmentation/Resources/Models")
    stale = folder / "training/build/lib/prosma/removed_long_ago.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("raise SystemExit")
    return folder


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    done = run(*PIP, "wheel", *options, checkout / "training", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("prosma-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel, which sees the libraries of this one but not its `prosma`."""
    folder = tmp_path_factory.mktemp("environment")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder, timeout=120).returncode == 0
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    purelib = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    Path(purelib, "beneath.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files do not count there
    done = run(*PIP[:3], "--python", python, *PIP[3:], "install", "--no-deps", "--no-index", wheel, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    where = run(python, "-c", "import prosma; print(prosma.__file__)", cwd=folder).stdout
    assert where.startswith(str(folder)), where
    return python.parent


def prosma(installed: Path, home: Path, *arguments) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return run(installed / "prosma", *arguments, cwd=home, env={**environment, "PROSMA_HOME": str(home)}, timeout=600)


def test_the_wheel_holds_every_file_of_the_engine_and_all_models(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name.removeprefix("prosma/") for name in archive.namelist() if name.startswith("prosma/")}
    sources = run("git", "-C", ROOT, "ls-files", "training/prosma").stdout.splitlines() or [
        str(path.relative_to(ROOT)) for path in (ROOT / "training/prosma").rglob("*") if "__pycache__" not in path.parts
    ]
    assert sources
    rooms = {path.removeprefix("training/prosma/") for path in sources if (ROOT / path).is_file()}
    models = {f"bundled_models/{path.relative_to(MODELS)}" for path in MODELS.rglob("*") if path.is_file()}
    assert held == rooms | models


def test_the_installed_command_starts_and_knows_its_models(installed, tmp_path):
    done = prosma(installed, tmp_path, "--version")
    assert done.stdout == f"prosma {__version__}\n", done.stderr
    done = prosma(installed, tmp_path, "models", "--json")
    found = json.loads(done.stdout)
    assert found["broken"] == []
    assert {model["id"] for model in found["models"]} == {path.parent.name for path in MODELS.glob("*/model.json")}
    assert all(Path(model["folder"]).is_relative_to(installed.parent) for model in found["models"])


def test_the_installed_command_segments_the_bundled_sample(installed, tmp_path):
    sample, truth = (ROOT / f"Resources/Samples/hippocampus_017{end}.nii.gz" for end in ("", "_labels"))
    done = prosma(installed, tmp_path, "segment", sample, "-m", "hippocampus-mr", "-o", "out.nii.gz", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    found, wanted = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (tmp_path / "out.nii.gz", truth))
    for label in (1, 2):
        overlap = ((found == label) & (wanted == label)).sum()
        assert 2 * overlap / ((found == label).sum() + (wanted == label).sum()) > 0.8


def test_a_wheel_without_models_says_how_to_get_them(checkout, installed, tmp_path):
    """As one that is built from the folder `training` alone; here the models are taken away instead."""
    bundled = Path(run(installed / "python", "-c", "import prosma; print(prosma.__path__[0])").stdout.strip())
    (bundled / "bundled_models").rename(bundled / "away")
    try:
        done = prosma(installed, tmp_path, "models")
        assert "This installation holds no models: get a checkout of" in done.stdout
        done = prosma(installed, tmp_path, "segment", ROOT / "README.md", "-m", "hippocampus-mr", "-o", "out.nrrd")
        assert "There is no model 'hippocampus-mr'. This installation holds no models" in done.stderr
    finally:
        (bundled / "away").rename(bundled / "bundled_models")


def test_without_the_libraries_of_training_a_command_says_what_to_install(tmp_path):
    code = (
        "import sys\nfor name in ('lightning', 'yaml', 'monai'): sys.modules[name] = None\n"
        "from prosma.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    (tmp_path / "recipe.yaml").write_text("{}")
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "masks").mkdir()
    for folder in ("images", "masks"):
        picture = sitk.GetImageFromArray(sitk.GetArrayFromImage(sitk.Image(8, 8, sitk.sitkUInt8)))
        sitk.WriteImage(picture, str(tmp_path / "data" / folder / "a.png"))
    command = ["train", "recipe.yaml", "--data", "data", "-o", "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "training")}
    done = run(sys.executable, "-c", code, *command, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert "which is not installed. Install what training needs" in done.stderr
    assert len(done.stderr.splitlines()) == 1
