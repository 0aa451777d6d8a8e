"""Slicer's own process lets go of its files before it removes them: Windows refuses to remove what is mapped."""

import os
import shutil
from pathlib import Path

import pytest
import scenes

from headless_slicer import click, processEvents

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at mapped files in /proc")


def as_windows(function):
    def guarded(path, *arguments, dir_fd=None, **options):
        folder = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else ""
        real = os.path.realpath(os.path.join(folder, path))
        if any(line.rstrip().endswith(real) for line in Path("/proc/self/maps").read_text().splitlines()):
            raise PermissionError(13, "it is being used by another process", str(path))
        return (
            function(path, *arguments, dir_fd=dir_fd, **options) if dir_fd is not None else function(path, *arguments)
        )

    return guarded


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(os, "unlink", as_windows(os.unlink))
    monkeypatch.setattr(os, "rename", as_windows(os.rename))


def folders():
    import slicer

    return sorted(name for name in os.listdir(slicer.app.temporaryPath) if name.startswith("prosma-"))


def test_a_run_and_what_it_keeps_leave_nothing_behind(panel, windows):
    import slicer

    volume = scenes.add_volume(scenes.texture((30, 30, 30)))
    node = scenes.segmented(panel, volume)
    assert [name.split("-")[1] for name in folders()] == ["kept"], "the job's own folder is gone"
    job = panel.logic.gateMap(volume, model="tiny", wait=False)
    job.wait()
    panel.logic.setSensitivity(node, scenes.segment_ids(node)[0], 0.5)
    panel.logic.reviewRegions(node)
    panel.logic.outputVolume("entropy", node)
    assert len(folders()) == 1
    slicer.mrmlScene.RemoveNode(node)
    processEvents()
    assert folders() == []


def test_what_is_in_use_when_it_should_go_goes_later(panel, windows):
    """The segmentation is removed amid the computation of something that is made of its probabilities."""
    import slicer

    from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities

    node = scenes.segmented(panel, scenes.add_volume(scenes.texture((30, 30, 30))))
    view = KeptProbabilities.shared().latest(node).probabilities[1]  # as a step in the event loop holds it
    slicer.mrmlScene.RemoveNode(node)
    processEvents()
    assert len(folders()) == 1, "Windows refuses"
    del view
    other = scenes.segmented(panel, scenes.add_volume(scenes.texture((30, 30, 30), 3)))
    assert len(folders()) == 1, "and the next run's end takes it along"
    slicer.mrmlScene.RemoveNode(other)
    processEvents()
    assert folders() == []


def test_a_run_that_fails_while_it_writes_leaves_nothing(panel, windows, monkeypatch):
    from ProSMASegmentationLib.Results.ResultWriter import ResultWriter

    def failing(self, labels, offset, say=None):
        yield
        raise OSError(f"no room for {labels.shape}")

    monkeypatch.setattr(ResultWriter, "write", failing)
    scenes.select(panel, scenes.add_volume(scenes.texture((30, 30, 30))))
    click(panel.ui.segmentButton)
    job = panel.job
    processEvents(until=lambda: not job.isActive, timeout=120)
    assert job.state == job.FAILED
    monkeypatch.undo()
    scenes.segmented(panel, scenes.add_volume(scenes.texture((30, 30, 30), 2)))
    assert [name.split("-")[1] for name in folders()] == ["kept"]


def test_the_imitation_of_windows_refuses(windows, tmp_path):
    import numpy

    path = tmp_path / "folder" / "a.npy"
    path.parent.mkdir()
    numpy.save(path, numpy.arange(1000))
    array = numpy.load(path, mmap_mode="r")
    with pytest.raises(PermissionError):
        path.unlink()
    shutil.rmtree(path.parent, ignore_errors=True)
    assert path.exists()
    del array
    shutil.rmtree(path.parent)
    assert not path.exists()
