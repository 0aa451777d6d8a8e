"""The check box Mirror too: which models it is for, what comes of it, and what a saved scene keeps. Batch: test_batch."""

import json

import numpy as np
import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents


@pytest.fixture(scope="module")
def segmenter(models):
    from prosma.inference.segmenter import Segmenter

    return Segmenter(models.flips, "cpu")


def options_of(node):
    """The options that the segments were made with."""
    (options,) = {scenes.tag(node, each, "ProSMA.options") for each in scenes.segment_ids(node)}
    return json.loads(options)


def test_the_box_is_off_for_a_model_that_cannot_and_comes_back_with_one_that_can(panel):
    scenes.open_section(panel, "more")
    box = panel.ui.mirrorCheckBox
    assert not box.enabled and not box.checked
    assert "left and right are different structures" in box.toolTip
    scenes.choose(panel, "flips")
    assert box.enabled and not box.checked
    assert "4 times as long" in box.toolTip
    click(box)
    assert box.checked
    scenes.choose(panel, "tiny")
    assert not box.enabled and not box.checked
    volume = scenes.add_volume(scenes.texture((24, 24, 24)))
    assert options_of(scenes.segmented(panel, volume))["mirror"] is False
    scenes.choose(panel, "flips")
    assert box.enabled and box.checked


def test_with_the_box_on_the_voxels_are_those_of_the_mirroring_engine(panel, segmenter):
    from prosma.image.geometry import Image

    array, matrix = scenes.texture((26, 28, 30)), scenes.oblique()
    volume = scenes.add_volume(array, ijk_to_ras=matrix)
    image = Image(array.transpose(2, 1, 0)[None], matrix)
    plain, mirrored = (segmenter.segment(image, mirror=mirror).labels.transpose(2, 1, 0) for mirror in (False, True))
    assert not np.array_equal(plain, mirrored)
    scenes.choose(panel, "flips")
    node = scenes.segmented(panel, volume)
    assert np.array_equal(scenes.label_map(node, volume), plain)
    assert options_of(node)["mirror"] is False
    scenes.open_section(panel, "more")
    click(panel.ui.mirrorCheckBox)
    assert scenes.segmented(panel, volume) is node
    assert np.array_equal(scenes.label_map(node, volume), mirrored)
    assert options_of(node)["mirror"] is True
    by_python = panel.logic.segment(volume, model="flips", mirror=True)
    assert np.array_equal(scenes.label_map(by_python, volume), mirrored)
    assert options_of(by_python)["mirror"] is True


def test_python_is_told_where_a_model_cannot_mirror(panel):
    volume = scenes.add_volume(scenes.texture((24, 24, 24)))
    expected = scenes.label_map(panel.logic.segment(volume, model="tiny"), volume)
    job = panel.logic.segment(volume, model="tiny", mirror=True, wait=False)
    node = job.wait()
    assert np.array_equal(scenes.label_map(node, volume), expected)
    assert options_of(node)["mirror"] is False
    assert "mirroring was left out" in " ".join(job.result["notices"])


def test_the_choice_is_saved_with_the_scene(panel, tmp_path):
    import slicer

    scenes.choose(panel, "flips")
    scenes.open_section(panel, "more")
    click(panel.ui.mirrorCheckBox)
    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    headless_slicer.closeScene()
    scenes.choose(panel, "flips")
    assert not panel.ui.mirrorCheckBox.checked
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    processEvents()
    assert panel.ui.mirrorCheckBox.checked
