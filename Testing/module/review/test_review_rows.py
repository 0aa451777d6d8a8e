"""A row of the review list: why it is there, how grave it is, and its picture. The network's answer is made by hand here."""

import json

import numpy as np
import pytest
import scenes
from test_review import settle

from headless_slicer import processEvents, qt

SHAPE = (26, 28, 30)  # K, J, I; voxels of 1 mm
CERTAIN = 255
ISLAND_DOUBT = 115  # of 255
BORDER = "Border with structure {number}"


def answer_by_hand():
    """(labels, probabilities): two blocks side by side with a doubtful part of the border between them, a doubtful patch on
    the outside of the first, and an island of the second."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[6:18, 6:20, 4:14], labels[6:18, 6:20, 14:24] = 1, 2
    labels[22:24, 24:26, 2:4] = 2
    probabilities = np.zeros((3, *SHAPE), np.uint8)
    for label in range(3):
        probabilities[label][labels == label] = CERTAIN

    def doubt(part, label, rival, share):
        probabilities[(label, *part)], probabilities[(rival, *part)] = CERTAIN - share, share

    between = slice(6, 10), slice(6, 10)
    doubt((*between, 13), 1, 2, 127)
    doubt((*between, 14), 2, 1, 127)
    doubt((slice(10, 13), slice(14, 18), 4), 1, 0, 95)
    doubt((slice(22, 24), slice(24, 26), slice(2, 4)), 2, 0, ISLAND_DOUBT)
    return labels, probabilities


@pytest.fixture
def result(panel):
    """(panel, volume, segmentation node) whose run has given the answer made by hand."""
    import slicer

    from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities

    volume = scenes.add_volume(scenes.texture(SHAPE))
    node = scenes.segmented(panel, volume)
    labels, probabilities = answer_by_hand()
    kept = KeptProbabilities.shared().latest(node)
    kept.probabilities, kept.offset = probabilities, [0, 0, 0]
    kept._labels, kept._labelsOffset = labels, [0, 0, 0]
    kept.reach = [((0, 30), (0, 28), (0, 26))] * 2
    for segment_id in scenes.segment_ids(node):
        value = int(scenes.tag(node, segment_id, "ProSMA.label"))
        mask = (labels == value).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment_id, volume)
    processEvents()
    scenes.open_correct(panel, "review")
    settle(panel)
    return panel, volume, node


def rows(panel):
    """(segment, reason, size in ml, ml that is likely to be wrong) of each row."""
    table = panel.ui.reviewTable
    found = []
    for row in range(table.rowCount):
        segment, reason = table.item(row, 1).text().splitlines()
        found.append((segment, reason, float(table.item(row, 2).text()), float(table.item(row, 3).text())))
    return found


def test_the_place_of_a_segment_that_is_likely_to_be_poor_comes_first_and_says_so(result):
    panel, _volume, node = result
    assert [row[0] for row in rows(panel)].index("structure 2") > 0
    for segment_id in scenes.segment_ids(node):
        segment = node.GetSegmentation().GetSegment(segment_id)
        mean = 0.0 if segment.GetName() == "structure 2" else 1.0
        segment.SetTag("ProSMA.expectedDice", json.dumps({"mean": mean, "low": 0.0, "high": 1.0}))
    assert panel.logic.reviewRegions(node)[0]["segment"] == "structure 2"
    processEvents(until=lambda: rows(panel)[0][0] == "structure 2")
    assert "poor, 0.00" in panel.ui.reviewTable.item(0, 1).toolTip()


def test_each_row_says_the_reason(result):
    panel, _volume, _node = result
    reasons = {(segment, reason) for segment, reason, _size, _wrong in rows(panel)}
    assert ("structure 1", "Outer border") in reasons
    assert ("structure 2", "Island, apart from the rest") in reasons
    borders = {("structure 1", BORDER.format(number=2)), ("structure 2", BORDER.format(number=1))}
    assert reasons & borders
    assert len(reasons - borders) == 2


def test_the_gravest_consequence_comes_first(result):
    """What is likely to be wrong is size times mean doubt: computed here from the voxels."""
    panel, _volume, _node = result
    labels, probabilities = answer_by_hand()
    doubt = 1 - np.take_along_axis(probabilities, labels[None], axis=0)[0] / 255
    wrong = [wrong for _segment, _reason, _size, wrong in rows(panel)]
    assert wrong == sorted(wrong, reverse=True)
    total = doubt.sum() / 1000  # ml
    assert 0.7 * total <= sum(wrong) <= 1.05 * total
    (island,) = [row for row in rows(panel) if row[1].startswith("Island")]
    assert island[2] == 0.008
    assert island[3] == pytest.approx(8 * ISLAND_DOUBT / 255 / 1000, rel=0.02)
    assert rows(panel)[0][1].startswith("Border"), "the most doubtful voxels lie between the two"


def test_each_row_has_its_picture(result):
    from ProSMASegmentationLib.Panel.PlacePicture import SIZE, placePicture

    panel, volume, node = result
    regions = panel.logic.reviewRegions(node)
    table = panel.ui.reviewTable
    assert table.rowCount == len(regions)
    for row, region in enumerate(regions):
        shown = table.item(row, 1).icon().pixmap(SIZE, SIZE).toImage()
        drawn = placePicture(node, volume, region["place"], region["radius"])
        seen = [[qt.QColor(shown.pixel(x, y)).getRgb()[:3] for x in range(SIZE)] for y in range(SIZE)]
        assert np.array_equal(np.array(seen), drawn)


def test_pictures_come_back_with_a_saved_scene(result, tmp_path):
    import slicer

    import headless_slicer

    panel, _volume, _node = result
    count = panel.ui.reviewTable.rowCount
    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    headless_slicer.closeScene()
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    processEvents()
    settle(panel)
    table = panel.ui.reviewTable
    assert table.rowCount == count
    assert not [row for row in range(count) if table.item(row, 1).icon().isNull()]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "half",
        '{"run": 1, "regions": [null]}',
        *(pytest.param(text, marks=pytest.mark.slow) for text in ("[]", "7", '{"regions": 3}', '{"regions": [{}]}')),
    ],
)
def test_a_damaged_list_in_a_scene_is_made_anew(result, text):
    panel, _volume, node = result
    expected = panel.logic.reviewRegions(node)
    stored = node.GetAttribute("ProSMA.review")
    if text == "half":
        damaged = json.loads(stored)
        damaged["regions"][0]["voxels"] = "many"
        text = json.dumps(damaged)
    node.SetAttribute("ProSMA.review", text)
    panel._review._show()
    assert panel.ui.reviewTable.rowCount == 0
    assert panel.logic.reviewRegions(node) == expected


# ---- the picture itself


def volume_with_a_spot(shape, spacing, ijk):
    """A dark volume (first voxel at R, A, S = 0) with one bright voxel."""
    array = np.zeros(shape, np.int16)
    array[ijk[2], ijk[1], ijk[0]] = 1000
    return scenes.add_volume(array, ijk_to_ras=np.diag([*spacing, 1]))


@pytest.mark.parametrize(
    ("spacing", "right_and_up"),
    [
        ((1, 1, 1), ((-1, 0, 0), (0, 1, 0))),  # axial: the patient's left on the right side, anterior on top
        ((1, 1, 4), ((-1, 0, 0), (0, 1, 0))),
        ((4, 1, 1), ((0, -1, 0), (0, 0, 1))),  # sagittal: anterior on the left side, superior on top
        ((1, 4, 1), ((-1, 0, 0), (0, 0, 1))),  # coronal
    ],
)
def test_the_picture_lies_in_the_slices_that_were_taken_and_is_turned_as_in_slicers_views(panel, spacing, right_and_up):
    import slicer

    from ProSMASegmentationLib.Panel.PlacePicture import SIZE, placePicture

    spot = np.array([20, 20, 20])
    volume = volume_with_a_spot((40, 40, 40), spacing, spot)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    right, up = (np.array(direction) for direction in right_and_up)
    place = spot * spacing - 3 * right - 5 * up  # the spot is 3 mm to the right of it and 5 mm above
    picture = placePicture(node, volume, place, radius=1.0)
    assert picture.shape == (SIZE, SIZE, 3)
    row, column = np.argwhere(picture[..., 0] > 200).mean(axis=0)
    pixels_per_mm = SIZE / (2 * 10)  # ten of the smallest voxels to each side
    assert column == pytest.approx((SIZE - 1) / 2 + 3 * pixels_per_mm, abs=0.6)
    assert row == pytest.approx((SIZE - 1) / 2 - 5 * pixels_per_mm, abs=0.6)


def test_the_picture_shows_the_outline_of_a_segment_in_its_colour(panel):
    from ProSMASegmentationLib.Panel.PlacePicture import placePicture

    volume = scenes.add_volume(scenes.texture((30, 30, 30)))
    node = scenes.segmented(panel, volume)
    (first, _second) = scenes.segment_ids(node)
    mask = np.zeros((30, 30, 30), np.uint8)
    mask[10:20, 10:20, 10:20] = 1
    import slicer

    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, first, volume)
    node.GetSegmentation().RemoveSegment(_second)
    color = [round(255 * part) for part in node.GetSegmentation().GetSegment(first).GetColor()]
    picture = placePicture(node, volume, (14.5, 14.5, 15), radius=1.0)
    coloured = (picture == color).all(axis=-1)
    rows_, columns = np.argwhere(coloured).min(axis=0), np.argwhere(coloured).max(axis=0)
    side = (columns - rows_ + 1) * 20 / 48  # mm
    assert np.allclose(side, 10, atol=0.5)
    assert not coloured[20:28, 20:28].any(), "the inside is seen"
