"""Batches with mirroring: other results, kept apart from those without."""

import numpy as np
import pytest
import scenes
from batches import a_sequence, add_files, add_volumes, run, states

from headless_slicer import click


@pytest.mark.parametrize("to_files", [False, True])
def test_mirrored_results_are_others_than_unmirrored_ones(panel, batch, tmp_path, to_files):
    import slicer

    results = tmp_path if to_files else None
    (volume,) = add_volumes(1)
    scenes.choose(panel, "flips")
    assert states(run(panel, results=results)) == ["finished"]
    scenes.open_section(panel, "more")
    click(panel.ui.mirrorCheckBox)
    queue = run(panel, results=results)
    assert states(queue) == ["finished"]
    assert states(run(panel, results=results)) == ["there already"]
    assert len(batch.asked) == 2
    (item,) = queue.items
    node = slicer.util.loadSegmentation(str(item.output)) if to_files else item.segmentationNode
    found = scenes.label_map(node, volume)
    expected, other = (
        scenes.label_map(panel.logic.segment(volume, model="flips", mirror=mirror), volume) for mirror in (True, False)
    )
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, other)
    scenes.open_section(panel, "more")
    click(panel.ui.mirrorCheckBox)
    assert states(run(panel, results=results)) == ["finished"]


def test_frames_and_a_folder_of_images_are_mirrored_too(panel, batch, tmp_path):
    sequence, _browser = a_sequence(1)
    images, out = add_files(tmp_path / "images", 1), tmp_path / "out"
    sources = (sequence, None), (images, out)
    for mirror in (False, True):
        for source, folder in sources:
            queues = [panel.logic.batch(source, "flips", folder, mirror=mirror) for _ in range(2)]
            assert [states(queue) for queue in queues] == [["finished"], ["there already"]]


@pytest.mark.parametrize("to_files", [False, True])
def test_what_a_model_that_cannot_mirror_made_is_there_already(panel, tmp_path, to_files):
    add_volumes(1)
    folder = tmp_path if to_files else None
    queues = [panel.logic.batch(model="tiny", outputFolder=folder, mirror=True) for _ in range(2)]
    assert [states(queue) for queue in queues] == [["finished"], ["there already"]]
