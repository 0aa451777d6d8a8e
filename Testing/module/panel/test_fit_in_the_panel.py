"""An image that does not fit the model: asked before the click computes, told after it."""

import json

import numpy as np
import scenes

import headless_slicer
from headless_slicer import click, processEvents

RED, AMBER = "#c0392b", "#b9770e"


def of_a_ct():
    """Noise with the values of a CT, as large as a hippocampus, (K, J, I)."""
    return np.random.default_rng(0).normal(0, 300, (36, 50, 36)).astype(np.int16)


def clicked(panel, answer):
    """Click Segment on what does not fit, and answer the question; the text of it."""
    import qt

    scenes.choose(panel, "hippocampus-mr")
    scenes.select(panel, scenes.add_volume(of_a_ct()))
    asked = len(headless_slicer.messages)
    headless_slicer.answer(getattr(qt.QMessageBox, answer))
    click(panel.ui.segmentButton)
    processEvents(until=lambda: len(headless_slicer.messages) > asked, timeout=120)
    (question,) = headless_slicer.messages[asked:]
    return question.text


def test_a_person_who_says_no_gets_the_reason_and_nothing_else(panel):
    import slicer

    question = clicked(panel, "No")
    assert "does not look like" in question and "looks like a CT" in question and "all the same?" in question
    processEvents()
    assert panel.job is None and slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    assert "does not look like" in panel.ui.messageLabel.text and RED in panel.ui.messageLabel.styleSheet
    assert panel.ui.segmentButton.enabled and panel.ui.segmentButton.text == "Segment"


def test_a_person_who_says_yes_gets_a_result_that_says_in_red_what_it_is(panel):
    clicked(panel, "Yes")
    processEvents(until=lambda: "Done in" in panel.ui.messageLabel.text, timeout=120)
    assert panel.ui.outputSelector.currentNode() is not None
    assert "does not look like" in panel.ui.imageFitLabel.text and panel.ui.imageFitLabel.isVisible()
    assert RED in panel.ui.imageFitLabel.styleSheet
    assert "does not look like" not in panel.ui.noticesLabel.text


def test_what_fits_needs_no_word_and_what_is_unusual_is_told_in_amber(panel):
    import slicer

    scenes.choose(panel, "hippocampus-mr")
    click(panel.ui.sampleButton)
    assert scenes.click_segment(panel).result["fit"]["verdict"] == "fits"
    assert panel.ui.imageFitLabel.text == "" and not panel.ui.imageFitLabel.isVisible()
    array = slicer.util.arrayFromVolume(panel.ui.inputVolumeSelector.currentNode())
    scenes.select(panel, scenes.add_volume(np.clip(array, *np.percentile(array, [30, 70])), "clipped"))
    assert scenes.click_segment(panel).result["fit"]["verdict"] == "unusual"
    assert "cut off" in panel.ui.imageFitLabel.text and AMBER in panel.ui.imageFitLabel.styleSheet


def test_a_model_that_cannot_judge_says_so_under_more(panel):
    scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
    assert scenes.click_segment(panel).result["fit"]["verdict"] == "unknown"
    assert panel.ui.imageFitLabel.text == "" and panel.ui.noticesLabel.text == ""
    scenes.open_section(panel, "more")
    assert "no statistics of its training images" in panel.ui.gateLabel.text


def test_a_volume_that_was_loaded_from_dicom_is_known_by_its_header(panel):
    import qt
    import slicer

    volume = scenes.add_volume(scenes.texture((24, 24, 24)))
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(volume), "DICOM.Modality", "CT")
    scenes.select(panel, volume)
    processEvents(until=lambda: "says that this is CT" in panel.ui.fitLabel.text, timeout=60)
    asked = len(headless_slicer.messages)
    headless_slicer.answer(qt.QMessageBox.No)
    click(panel.ui.segmentButton)
    processEvents(until=lambda: len(headless_slicer.messages) > asked, timeout=120)
    assert "Its DICOM header says that this is CT" in headless_slicer.messages[-1].text
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(volume), "DICOM.Modality", "MR")
    assert scenes.click_segment(panel).result["fit"]["verdict"] == "unknown"


def test_python_gets_the_verdict_with_the_error_and_may_force(panel):
    import pytest

    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    volume = scenes.add_volume(of_a_ct())
    with pytest.raises(ProSMAError) as refusal:
        panel.logic.segment(volume, "hippocampus-mr", device="cpu")
    assert refusal.value.code == "does_not_fit" and refusal.value.fit["verdict"] == "unfit"
    assert panel.logic.segment(volume, "hippocampus-mr", device="cpu", force=True) is not None


def test_the_table_says_how_good_a_segment_is_likely_to_be_until_somebody_edits_it(panel):
    import slicer

    from prosma.image.tags import quality_in_words

    scenes.choose(panel, "hippocampus-mr")
    click(panel.ui.sampleButton)
    job = scenes.click_segment(panel)
    node, table = job.segmentationNode, panel.ui.volumesTable
    processEvents(until=lambda: table.rowCount == 2)
    told = [segment["expected_dice"] for segment in job.result["segments"]]
    ids = scenes.segment_ids(node)
    assert [json.loads(scenes.tag(node, each, "ProSMA.expectedDice")) for each in ids] == told
    for row, expected in enumerate(told):
        assert 0.7 < expected["low"] <= expected["mean"] <= expected["high"] <= 1
        assert table.item(row, 2).text() == quality_in_words(expected)
    volume = panel.ui.inputVolumeSelector.currentNode()
    voxels = scenes.voxels(node, ids[0], volume)
    voxels[:12] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, ids[0], volume)
    processEvents(until=lambda: table.item(0, 2).text() == "")
    assert table.item(1, 2).text() == quality_in_words(told[1])
