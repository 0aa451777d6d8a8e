"""The panel, shown once for all tests in a headless Slicer, with models of random weights in a folder of its own."""

import os
from types import SimpleNamespace

import pytest
import scenes
from hosts import HOST
from launcher import write_launcher

import headless_slicer
from remedies import meets
from tiny_model import make_tiny_package

TORCH_SECONDS = 240  # the engine imports torch; on a busy machine that takes its time


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Packages of random weights by name; ``models.home`` is the user's folder that holds them."""
    home = tmp_path_factory.mktemp("prosma-home")
    folder = home / "models"
    return SimpleNamespace(
        home=home,
        tiny=make_tiny_package(folder / "tiny"),
        coarse=make_tiny_package(folder / "coarse", id="coarse", name="Coarse", spacing=[4.0, 4.0, 4.0]),
        slow=make_tiny_package(
            folder / "slow",
            id="slow",
            name="Slow",
            spacing=None,
            patch_size=[16, 16, 16],
            network={"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [8, 16, 16]},
        ),
        photo=make_tiny_package(
            folder / "photo",
            dimension=2,
            channels=3,
            id="photo",
            name="Photo",
            modality="photograph",
            intensity={"rule": "range", "low": 0, "high": 255},
        ),
        two=make_tiny_package(folder / "two", channels=2, id="two", name="Two channels"),
        flips=make_tiny_package(folder / "flips", id="flips", name="Flips", mirror_axes=[0, 2]),
        asking=make_tiny_package(folder / "asking", id="asking", name="Asking", accept_licence=True),
        small=make_tiny_package(
            folder / "small", id="small", name="Small", field_of_view={"min_mm": [20, 20, 20], "max_mm": [40, 40, 40]}
        ),
    )


@pytest.fixture(scope="session")
def launcher(tmp_path_factory):
    """The folder of a PythonSlicer, the launcher that starts the engine in Slicer."""
    return write_launcher(tmp_path_factory.mktemp("slicer") / "bin")


@pytest.fixture(scope="session")
def widget(models, launcher):
    """The module's widget object, in a Slicer whose engine stays warm from test to test."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PROSMA_HOME", str(models.home))
        environment.setenv("PATH", str(launcher), prepend=os.pathsep)
        headless_slicer.start()
        headless_slicer.loadModule(scenes.EFFECT_MODULE)
        yield headless_slicer.loadModule(scenes.MODULE)
        headless_slicer.close()


@pytest.fixture(autouse=True)
def tried_remedies(request):
    """A test that is marked with refusals (`remedies.tries`) really meets them: those of a Slicer that runs."""
    names = [name for mark in request.node.iter_markers("tries") for name in mark.args]
    if names:
        request.getfixturevalue("widget")
        yield from meets(names)
    else:
        yield


@pytest.fixture
def environment(models, tmp_path):
    """For a Slicer of its own (see hosts.py): its models, and two folders of Python files that come before all others.

    That of Slicer's own process is ``tmp_path``, that of its engine ``tmp_path / "engine"``.
    """
    (tmp_path / "engine").mkdir()
    paths = os.pathsep.join([str(tmp_path), str(HOST.parents[1])])
    programs = os.pathsep.join([str(write_launcher(tmp_path / "bin", paths=[tmp_path / "engine"])), os.environ["PATH"]])
    own = {"PROSMA_HOME": str(models.home), "PYTHONPATH": paths, "PATH": programs, "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **own}


@pytest.fixture(autouse=True)
def private_home(models, monkeypatch):
    """All tests of the panel share one folder of models, as the panel does."""
    monkeypatch.setenv("PROSMA_HOME", str(models.home))


@pytest.fixture
def panel(widget, models):
    """The panel in an empty scene, with a running engine and the model ``tiny`` chosen, whatever ran before.

    The set-up section is closed, and no licence is accepted yet.
    """
    import slicer

    (models.home / "accepted-licences.json").unlink(missing_ok=True)
    headless_slicer.newScene()
    slicer.util.selectModule("ProSMASegmentation")
    current = slicer.modules.ProSMASegmentationWidget  # another object after a reload
    current.panel.logic.engine.start()
    wait(lambda: current.panel.logic.engine.state == "ready", TORCH_SECONDS)
    if any(package.is_promptable for package in current.panel.logic.library.packages):
        scenes.keep_models_for_strokes(current.panel)
    scenes.choose(current.panel, "tiny")
    scenes.settle_soon(current.panel)
    if not current.panel.ui.setupCollapsibleButton.collapsed:
        headless_slicer.click(current.panel.ui.setupCollapsibleButton)
    yield current.panel
    if current.panel.job is not None:
        current.panel.job.cancel()


def wait(until, timeout=60):
    headless_slicer.processEvents(until=until, timeout=timeout)
