"""The list of places to look at: it follows edits, moves the views, and is saved with the scene."""

import re

import numpy as np
import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents, qt


@pytest.fixture
def result(panel):
    """(panel, volume, segmentation node) after a run, with the list of places computed."""
    volume = scenes.add_volume(scenes.texture((26, 28, 30)), ijk_to_ras=scenes.oblique())
    node = scenes.segmented(panel, volume)
    scenes.open_correct(panel)
    settle(panel)
    return panel, volume, node


def settle(panel):
    """Wait until the list is that of the present voxels."""
    review = panel._review
    processEvents(until=lambda: scenes.is_settled(review) and review._task is None)


def places(panel):
    """R, A, S of each row."""
    tips = [panel.ui.reviewTable.item(row, 1).toolTip() for row in range(panel.ui.reviewTable.rowCount)]
    found = [re.search(r"R, A, S\): (.*), (.*), (.*) mm", tip).groups() for tip in tips]
    return np.array([[float(number) for number in place] for place in found])


def test_the_list_shows_size_and_place_worst_first(result):
    panel, volume, node = result
    regions = panel.logic.reviewRegions(node)
    table = panel.ui.reviewTable
    assert table.rowCount == len(regions) > 1
    errors = [region["error"] for region in regions]
    assert errors == sorted(errors, reverse=True)
    assert np.allclose(places(panel), [region["place"] for region in regions], atol=0.06)
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    assert (places(panel) >= bounds[::2] - 1).all()
    assert (places(panel) <= bounds[1::2] + 1).all()
    assert {table.item(row, 1).text().splitlines()[0] for row in range(table.rowCount)} <= {*scenes.names(node)}
    ml = np.prod(volume.GetSpacing()) / 1000
    assert float(table.item(0, 2).text()) == pytest.approx(regions[0]["voxels"] * ml, rel=0.01)
    assert f"{len(regions)} of {len(regions)}" in panel.ui.reviewLabel.text


def test_next_and_previous_put_the_place_into_the_middle_of_all_views(result):
    import slicer

    panel, _volume, _node = result
    camera = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode")
    camera.SetPosition(0, 500, 0)
    camera.SetFocalPoint(0, 0, 0)
    expected = places(panel)
    for button, row in (
        (panel.ui.nextRegionButton, 0),
        (panel.ui.nextRegionButton, 1),
        (panel.ui.previousRegionButton, 0),
    ):
        click(button)
        assert panel.ui.reviewTable.currentRow() == row
        for name in ("Red", "Green", "Yellow"):
            matrix = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode().GetSliceToRAS()
            assert np.allclose([matrix.GetElement(axis, 3) for axis in range(3)], expected[row], atol=0.06)
        assert np.allclose(camera.GetFocalPoint(), expected[row], atol=0.06)
        assert np.allclose(np.subtract(camera.GetPosition(), camera.GetFocalPoint()), (0, 500, 0))


def test_keys_do_the_same_while_the_module_is_shown(result):
    import slicer

    panel, _volume, _node = result
    assert [s.key.toString() for s in panel._review._shortcuts] == ["F3", "Shift+F3"]
    forward, back = panel._review._shortcuts
    forward.activated.emit()
    forward.activated.emit()
    assert panel.ui.reviewTable.currentRow() == 1
    back.activated.emit()
    assert panel.ui.reviewTable.currentRow() == 0
    panel.exit()
    assert panel._review._shortcuts == []
    processEvents()
    assert not [
        s
        for s in slicer.util.findChildren(slicer.util.mainWindow(), className="QShortcut")
        if "F3" in str(s.key.toString())
    ]
    panel.enter()
    assert len(panel._review._shortcuts) == 2


def test_a_place_under_a_transform_is_shown_where_it_is_in_the_world(result):
    import slicer
    import vtk

    panel, _volume, node = result
    before = places(panel)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 100)
    transform.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    settle(panel)
    panel._review._show()
    assert np.allclose(places(panel), before + np.array([100, 0, 0]), atol=0.06)
    panel.logic.showRegion(node, 0)
    shown = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceToRAS()
    assert shown.GetElement(0, 3) == pytest.approx(before[0][0] + 100, abs=0.06)


def test_what_was_checked_stays_checked_and_is_skipped(result):
    panel, volume, node = result
    count = panel.ui.reviewTable.rowCount
    click(panel.ui.nextRegionButton)
    click(panel.ui.checkRegionButton)
    assert panel.ui.reviewTable.currentRow() == 1
    panel.ui.reviewTable.item(2, 0).setCheckState(qt.Qt.Checked)
    assert f"{count - 2} of {count}" in panel.ui.reviewLabel.text
    click(panel.ui.nextRegionButton)
    assert panel.ui.reviewTable.currentRow() == 3
    checked = [region["place"] for region in panel.logic.reviewRegions(node) if region["checked"]]
    assert len(checked) == 2
    erase(node, scenes.segment_ids(node)[0], volume, (0, 0, 0))
    settle(panel)
    still = [region["place"] for region in panel.logic.reviewRegions(node) if region["checked"]]
    assert len(still) == 2
    assert np.allclose(sorted(still), sorted(checked), atol=1)


def erase(node, segment_id, volume, ijk, half=3):
    """Take the voxels round a place out of a segment."""
    import slicer

    voxels = scenes.voxels(node, segment_id, volume).copy()
    i, j, k = (max(0, round(number)) for number in ijk)
    voxels[max(0, k - half) : k + half + 1, max(0, j - half) : j + half + 1, max(0, i - half) : i + half + 1] ^= 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segment_id, volume)


def test_an_edited_place_leaves_the_list(result):
    panel, volume, node = result
    first = panel.logic.reviewRegions(node)[0]
    inverse = np.linalg.inv(scenes.oblique())
    segment_id = scenes.segment_ids(node)[first["label"] - 1]
    erase(node, segment_id, volume, (inverse @ [*first["place"], 1])[:3], half=4)
    settle(panel)
    left = [np.linalg.norm(np.subtract(region["place"], first["place"])) for region in panel.logic.reviewRegions(node)]
    assert min(left) > 1
    assert np.allclose(places(panel), [region["place"] for region in panel.logic.reviewRegions(node)], atol=0.06)


def test_the_list_is_saved_with_the_scene(result, tmp_path):
    import slicer

    panel, _volume, node = result
    click(panel.ui.nextRegionButton)
    click(panel.ui.checkRegionButton)
    expected = panel.logic.reviewRegions(node)
    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    headless_slicer.closeScene()
    assert panel.ui.reviewTable.rowCount == 0
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    processEvents()
    settle(panel)
    node = panel.ui.outputSelector.currentNode()
    assert panel.logic.reviewRegions(node) == expected
    assert panel.ui.reviewTable.rowCount == len(expected)
    assert panel.ui.reviewTable.item(0, 0).checkState() == qt.Qt.Checked
    assert "not saved with the scene" in panel.ui.reviewLabel.text
    click(panel.ui.nextRegionButton)
    assert panel.ui.reviewTable.currentRow() == 1


def test_nothing_to_look_at_is_said_in_words(panel):
    import slicer

    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    scenes.open_correct(panel)
    assert "Segment a volume first" in panel.ui.reviewLabel.text
    assert not panel.ui.nextRegionButton.enabled
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "from elsewhere")
    with pytest.raises(ProSMAError, match="not saved with the scene") as refused:
        panel.logic.reviewRegions(node)
    assert refused.value.code == "no_probabilities"
    with pytest.raises(ProSMAError, match="no segmentation to review"):
        panel.logic.reviewRegions(None)
    panel.ui.outputSelector.setCurrentNode(node)
    settle(panel)
    assert "Segment the volume again" in panel.ui.reviewLabel.text
    slicer.mrmlScene.RemoveNode(node)
    processEvents()
    assert panel.ui.reviewTable.rowCount == 0
