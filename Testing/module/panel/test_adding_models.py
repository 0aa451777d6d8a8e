"""Models added by clicks: a thread copies and checks them, a person sees how far it is, and Cancel leaves nothing."""

import json
import shutil
import threading
import zipfile

import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents, qt
from prosma.package import ModelPackage, importing
from tiny_model import make_tiny_package

BEATS = 50


@pytest.fixture
def own_models(panel, models):
    """The folder of the user's models; what a test adds there is removed."""
    folder = models.home / "models"
    before = {path.name for path in folder.iterdir()}
    yield folder
    processEvents(until=lambda: panel.ui.addModelButton.text == "Add...", timeout=60)
    for name in {path.name for path in folder.iterdir()} - before:
        shutil.rmtree(folder / name)
    panel.logic.library.refresh()
    panel._input.picker.fill()


def content(folder):
    """Every file below a folder, with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def listed(panel):
    rows = range(panel.ui.modelList.count)
    return [panel.ui.modelList.item(row).data(qt.Qt.UserRole) for row in rows]


def zipped(package, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in package.folder.iterdir():
            archive.write(file, f"{package.id}/{file.name}")
    return path


class SlowDisk:
    """Each file of a package is copied only once `let` has been called for it. `asked`: how many were begun."""

    def __init__(self, monkeypatch):
        self.asked = 0
        self._may = threading.Semaphore(0)
        limit_of = importing.limit_of  # asked before a file is opened

        def waiting(name):
            self.asked += 1
            assert threading.current_thread() is not threading.main_thread()
            assert self._may.acquire(timeout=120)
            return limit_of(name)

        monkeypatch.setattr(importing, "limit_of", waiting)

    def let(self, files=100):
        for _ in range(files):
            self._may.release()


@pytest.fixture
def disk(monkeypatch):
    slow = SlowDisk(monkeypatch)
    yield slow
    slow.let()


def beats_of(seconds_between=0.001, number=BEATS):
    """Let the event loop turn until a timer has fired so often."""
    fired = []
    timer = qt.QTimer()
    timer.setInterval(round(1000 * seconds_between))
    timer.connect("timeout()", lambda: fired.append(None))
    timer.start()
    processEvents(until=lambda: len(fired) >= number, timeout=60)
    timer.stop()
    return len(fired)


def start_adding(panel, path):
    headless_slicer.answer("From a file (.zip)..." if path.suffix == ".zip" else "From a folder...", str(path))
    click(panel.ui.addModelButton)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_while_the_disk_is_slow_the_panel_goes_on_and_shows_how_far_it_is(panel, own_models, disk, tmp_path, kind):
    scenes.read_models_again(panel)
    package = make_tiny_package(tmp_path / "source", id="slowly", name="Slowly")
    path = zipped(package, tmp_path / "slowly.zip") if kind == "zip" else package.folder
    before = listed(panel)
    start_adding(panel, path)
    processEvents(until=lambda: disk.asked == 1, timeout=60)
    assert beats_of() >= BEATS, "the event loop turns while the thread waits for the disk"
    assert panel.ui.addModelButton.text == "Cancel" and panel.ui.addModelProgressBar.isVisible()
    scenes.choose(panel, "coarse")
    assert panel._parameters.model == "coarse" and listed(panel) == before
    shown = []
    for files in range(2, len(list(package.folder.iterdir())) + 1):
        disk.let(1)
        processEvents(until=lambda files=files: disk.asked == files, timeout=60)
        beats_of(number=3)
        shown.append(panel.ui.addModelProgressBar.value)
        assert panel.ui.addModelLabel.text == "Copying the model"
    assert shown == sorted(shown) and 0 < shown[0] < shown[-1] <= 1000
    disk.let()
    processEvents(until=lambda: panel.ui.addModelButton.text == "Add...", timeout=60)
    assert panel._parameters.model == "slowly" and sorted(listed(panel)) == sorted([*before, "slowly"])
    assert not panel.ui.addModelLabel.isVisible() and not panel.ui.addModelProgressBar.isVisible()
    assert content(own_models / "slowly") == content(package.folder)


@pytest.mark.parametrize("newer", [False, True], ids=["a new model", "a newer one of a model that is there"])
def test_cancel_leaves_the_models_as_they_were(panel, own_models, disk, tmp_path, newer):
    package = make_tiny_package(tmp_path / "source", id="coarse" if newer else "unwanted", version="9.0", seed=7)
    models, rows, scene = content(own_models), listed(panel), scenes.serialised()
    start_adding(panel, package.folder)
    processEvents(until=lambda: disk.asked == 1, timeout=60)
    disk.let(1)
    processEvents(until=lambda: disk.asked == 2, timeout=60)
    click(panel.ui.addModelButton)
    beats_of(number=3)
    assert panel.ui.addModelLabel.text == "Stopping"
    disk.let()
    processEvents(until=lambda: panel.ui.addModelButton.text == "Add...", timeout=60)
    label = panel.ui.addModelLabel
    assert label.text == "Adding the model was cancelled. Your models are as they were."
    assert label.isVisible() and label.height <= 2.5 * label.fontMetrics().height()
    assert not panel.ui.addModelProgressBar.isVisible()
    assert (content(own_models), listed(panel), scenes.serialised()) == (models, rows, scene)
    assert [path.name for path in own_models.iterdir() if path.name.startswith(".")] == []

    start_adding(panel, package.folder)  # and nothing stands in the way of another try
    processEvents(until=lambda: panel.ui.addModelButton.text == "Add...", timeout=60)
    assert panel._parameters.model == package.id and not panel.ui.addModelLabel.text
    assert ModelPackage.open(own_models / package.id).version == "9.0"
    if newer:
        shutil.rmtree(own_models / "coarse")
        make_tiny_package(own_models / "coarse", id="coarse", name="Coarse", spacing=[4.0, 4.0, 4.0])
        assert content(own_models) == models


def test_what_cannot_be_added_is_said_and_leaves_nothing(panel, own_models, tmp_path):
    package = make_tiny_package(tmp_path / "source", id="spoilt")
    (package.folder / "weights.safetensors").write_bytes(b"no weights")
    no_package = tmp_path / "letter.zip"
    with zipfile.ZipFile(no_package, "w") as archive:
        archive.writestr("letter.txt", "no model")
    taken = make_tiny_package(tmp_path / "taken", id="hippocampus-mr")
    models, rows = content(own_models), listed(panel)
    for path, words in (
        (package.folder, "safetensors"),
        (no_package, "'letter.zip' is not a model package"),
        (taken.folder, "that of a model that comes with ProSMA"),
    ):
        start_adding(panel, path)
        processEvents(until=lambda: panel.ui.addModelButton.text == "Add...", timeout=60)
        assert words in panel.ui.messageLabel.text
        assert (content(own_models), listed(panel)) == (models, rows)


def test_scripts_wait_for_an_import_or_get_its_error(panel, own_models, tmp_path):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
    from ProSMASegmentationLib.Models.PackageImport import PackageImport

    package = make_tiny_package(tmp_path / "source", id="scripted")
    done = PackageImport(panel.logic.library, package.folder).start().wait()
    assert done.package.id == "scripted" and panel.logic.library.package("scripted") == done.package
    description = json.loads((package.folder / "model.json").read_text())
    (package.folder / "model.json").write_text(json.dumps({**description, "dimension": 4}))
    with pytest.raises(ProSMAError, match="dimension"):
        PackageImport(panel.logic.library, package.folder).start().wait()
