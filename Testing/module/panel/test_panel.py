"""Choosing models, devices and regions; what the panel says before and after; what a saved scene keeps."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents, qt
from remedies import tries


def listed(panel):
    rows = range(panel.ui.modelList.count)
    return [panel.ui.modelList.item(row).data(qt.Qt.UserRole) for row in rows]


def test_the_search_box_finds_models_by_name_organ_and_modality(panel):
    panel.ui.modelSearch.setText("photograph")
    assert listed(panel) == ["photo", "tiny"], "the chosen model stays in the list"
    panel.ui.modelSearch.setText("no such thing")
    assert listed(panel) == ["tiny"]
    panel.ui.modelSearch.setText("")
    assert len(listed(panel)) >= 7


def test_the_card_says_what_a_person_wants_to_know(panel, models):
    ui = panel.ui
    assert ui.modelTitle.text == "Tiny test model"
    assert len(ui.modelCard.text.splitlines()) == 4
    for part in ("structure 1", "channel 0", "3D", "CC0-1.0", "not measured"):
        assert part in ui.modelCard.text
    assert not ui.modelDetails.isVisible()
    click(ui.moreModelButton)
    assert ui.modelDetails.isVisible()
    for part in ("Tiny test model", "structure 1", "MR", "CC0-1.0", "Random weights"):
        assert part in ui.modelDetails.plainText
    click(ui.moreModelButton)
    assert not ui.modelDetails.isVisible()


def test_the_card_shows_measured_accuracy_and_time(models, tmp_path):
    from ProSMASegmentationLib.Panel.ModelCard import cardLines, detailsText
    from tiny_model import make_tiny_ensemble, make_tiny_package

    package = make_tiny_package(
        tmp_path / "measured",
        results={"split": "test", "cases": 47, "dice": {"mean": 0.894}},
        seconds={"cpu": 0.8, "cuda": None, "hardware": "2 cores"},
    )
    text = detailsText(package)
    assert "Dice 0.89 on 47 cases" in text
    assert "0.8 s on a processor" in text and "Networks" not in text
    several = make_tiny_ensemble(tmp_path / "several", package, make_tiny_package(tmp_path / "other", seed=1))
    assert "Networks: 2, whose answers are averaged" in detailsText(several)
    short = "\n".join(cardLines(package))
    assert "89% (Dice, 47 cases)" in short and "about a second" in short


def test_a_package_can_be_added_from_a_zip(panel, models, tmp_path):
    folder = tmp_path / "added"
    shutil.copytree(models.tiny.folder, folder)
    description = (folder / "model.json").read_text().replace('"id": "tiny"', '"id": "added"')
    (folder / "model.json").write_text(description)
    archive = tmp_path / "added.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, f"added/{path.name}")
    headless_slicer.answer("From a file (.zip)...", str(archive))
    scenes.add_model(panel)
    assert panel._parameters.model == "added"
    assert "added" in listed(panel)
    shutil.rmtree(models.home / "models" / "added")
    panel.logic.library.refresh()


def test_a_broken_package_is_listed_with_the_reason_and_cannot_be_chosen(panel, models):
    folder = models.home / "models" / "broken"
    shutil.copytree(models.tiny.folder, folder)
    (folder / "weights.safetensors").write_bytes(b"no weights")
    try:
        click(panel.ui.setupCollapsibleButton)
        click(panel.ui.checkButton)
        row = next(r for r in range(panel.ui.modelList.count) if "broken" in panel.ui.modelList.item(r).text())
        assert "safetensors" in panel.ui.modelList.item(row).toolTip()
        assert panel.ui.modelList.item(row).data(qt.Qt.UserRole) is None
    finally:
        shutil.rmtree(folder)
        panel.logic.library.refresh()
        click(panel.ui.setupCollapsibleButton)


def test_a_licence_is_asked_for_once(panel):
    scenes.choose(panel, "asking")
    scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
    headless_slicer.answer(qt.QMessageBox.No)
    click(panel.ui.segmentButton)
    assert panel.job is None
    assert "CC0-1.0" in headless_slicer.messages[-1].text
    headless_slicer.answer(qt.QMessageBox.Yes)
    assert scenes.click_segment(panel).state == "finished"
    asked = len(headless_slicer.messages)
    assert scenes.click_segment(panel).state == "finished"
    assert len(headless_slicer.messages) == asked


def test_python_is_told_that_a_licence_was_not_accepted(panel, models):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
    from tiny_model import make_tiny_package

    package = make_tiny_package(models.home / "elsewhere", id="strict", accept_licence=True)
    volume = scenes.add_volume(scenes.texture((24, 24, 24)))
    with pytest.raises(ProSMAError, match="licence") as refused:
        panel.logic.segment(volume, model=package.folder)
    assert refused.value.code == "licence"
    panel.logic.acceptLicence(package.folder)
    assert panel.logic.segment(volume, model=package.folder) is not None


def test_a_model_that_does_not_fit_says_so_before_the_click_and_names_the_way_out(panel):
    import slicer

    scenes.choose(panel, "small")
    volume = scenes.add_volume(scenes.texture((60, 30, 30)))
    scenes.select(panel, volume)
    assert panel.ui.segmentButton.enabled, "a poor fit is a warning, not a ban"
    assert "60" in panel.ui.fitLabel.text
    assert "Place an ROI" in panel.ui.fitLabel.text
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetCenterWorld(15, 15, 30)
    roi.SetSizeWorld(28, 28, 28)
    panel.ui.roiSelector.setCurrentNode(roi)
    processEvents()
    assert panel.ui.fitLabel.text == ""
    roi.SetSizeWorld(10, 10, 10)
    processEvents(until=lambda: "Make the ROI larger" in panel.ui.fitLabel.text)


def test_a_new_roi_starts_on_the_volume_no_larger_than_the_model_expects(panel):
    scenes.choose(panel, "small")
    scenes.select(panel, scenes.add_volume(scenes.texture((60, 30, 30))))
    roi = panel.ui.roiSelector.addNode()
    processEvents()
    assert np.allclose(roi.GetCenter(), (14.5, 14.5, 29.5))
    assert np.allclose(roi.GetSize(), (30, 30, 40))


def test_voxels_that_are_much_larger_than_the_models_are_announced(panel):
    scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 24)), ijk_to_ras=np.diag([1, 1, 6, 1])))
    assert "1 x 1 x 6 mm" in panel.ui.fitLabel.text


def test_the_first_volume_that_is_loaded_becomes_the_input(panel):
    assert not panel.ui.segmentButton.enabled
    assert "Choose a volume" in panel.ui.segmentButton.toolTip
    volume = scenes.add_volume(scenes.texture((24, 24, 24)))
    processEvents(until=lambda: panel.ui.inputVolumeSelector.currentNode() is volume)
    assert panel.ui.segmentButton.enabled


def test_another_volume_gets_a_segmentation_of_its_own(panel):
    first = scenes.add_volume(scenes.texture((24, 24, 24)), "first")
    node = scenes.segmented(panel, first)
    assert panel.ui.outputSelector.currentNode() is node
    second = scenes.add_volume(scenes.texture((24, 24, 24), 5), "second")
    scenes.select(panel, second)
    assert panel.ui.outputSelector.currentNode() is None
    assert scenes.segmented(panel, second) is not node


def test_the_share_that_the_gate_removed_and_the_device_are_told(panel):
    scenes.segmented(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
    scenes.open_section(panel, "more")
    assert panel.ui.gateLabel.isVisible()
    assert "%" in panel.ui.gateLabel.text
    assert "removed" in panel.ui.gateLabel.text
    assert "on cpu" in panel.ui.gateLabel.text
    assert "Done in" in panel.ui.messageLabel.text


def test_the_choice_of_device_stays_with_the_computer(panel):
    combo = panel.ui.deviceComboBox
    names = [combo.itemData(index) for index in range(combo.count)]
    assert names[:2] == ["auto", "cpu"]
    combo.setCurrentIndex(1)
    assert qt.QSettings().value("ProSMASegmentation/Device") == "cpu"
    combo.setCurrentIndex(0)
    assert panel._devices.current == "auto"


def test_only_the_chosen_model_is_loaded_in_advance(panel, monkeypatch):
    engine, asked = panel.logic.engine, []
    processEvents(until=lambda: not engine._handlers)  # what was asked for before
    monkeypatch.setattr(engine, "_send", asked.append)  # an engine that is busy: it answers nothing
    scenes.choose(panel, "coarse")
    scenes.choose(panel, "flips")
    first, cancelled, second = asked
    assert (first["do"], Path(first["model"]).name) == ("describe", "coarse")
    assert (cancelled["do"], cancelled["job"]) == ("cancel", first["id"])
    assert (second["do"], Path(second["model"]).name) == ("describe", "flips")
    for message in (first, second):
        engine._onEvent({"event": "error", "id": message["id"], "code": "cancelled", "message": "", "remedy": ""})
    assert not engine._handlers


def test_choices_are_saved_with_the_scene(panel, tmp_path):
    import slicer

    volume = scenes.add_volume(scenes.texture((24, 24, 24)), "saved")
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "saved roi")
    roi.SetCenterWorld(12, 12, 12)
    roi.SetSizeWorld(20, 20, 20)
    scenes.choose(panel, "coarse")
    scenes.select(panel, volume)
    panel.ui.roiSelector.setCurrentNode(roi)
    node = scenes.segmented(panel, volume)
    name = node.GetName()
    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    headless_slicer.closeScene()
    scenes.choose(panel, "tiny")
    assert panel.ui.inputVolumeSelector.currentNode() is None
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    processEvents()
    assert panel.ui.inputVolumeSelector.currentNode().GetName() == "saved"
    assert panel.ui.roiSelector.currentNode().GetName() == "saved roi"
    assert panel.ui.outputSelector.currentNode().GetName() == name
    assert panel._parameters.model == "coarse"
    assert panel.ui.modelTitle.text == "Coarse"
    assert scenes.click_segment(panel).state == "finished"
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 1, "the loaded segments are known as ours"


def test_the_set_up_check_reports_versions_devices_and_models(panel):
    import torch

    click(panel.ui.setupCollapsibleButton)
    text = panel.ui.setupReport.toPlainText()
    for part in (torch.__version__, "Device cpu", "safetensors", "Model tiny 1.0.0: can be used", "Python"):
        assert part in text
    click(panel.ui.copyButton)
    import slicer

    assert slicer.app.clipboard().text() == panel._setup.check.report()
    click(panel.ui.setupCollapsibleButton)


def test_leaving_the_module_lets_a_job_finish(panel):
    import slicer

    volume = scenes.add_volume(scenes.texture((24, 24, 24)))
    scenes.select(panel, volume)
    click(panel.ui.segmentButton)
    job = panel.job
    panel.exit()
    processEvents(until=lambda: not job.isActive)
    assert job.state == job.FINISHED
    assert job.segmentationNode in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    panel.enter()
    assert panel.ui.outputSelector.currentNode() is job.segmentationNode
    scenes.segmented(panel, volume)


@tries("ModelFit.py: self._refuse(why, remedy)", "ModelFit.py: ProSMAError('does_not_fit', why, remedy)")
def test_a_grid_that_the_engine_would_refuse_disables_the_button_in_the_engines_words(panel):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    scenes.choose(panel, "tiny")
    volume = scenes.add_volume(scenes.texture((24, 24, 24)), ijk_to_ras=np.diag([1e-3, 1e-3, 1e-3, 1]))
    scenes.select(panel, volume)
    assert not panel.ui.segmentButton.enabled
    assert "metres were taken for mm" in panel.ui.segmentButton.toolTip
    with pytest.raises(ProSMAError, match="Correct the image's voxel size") as refused:
        panel.logic.segment(volume, model="tiny")
    assert refused.value.code == "does_not_fit"
    volume.SetSpacing(1, 1, 1)  # what the remedy says, as the Volumes module does it
    processEvents(until=lambda: panel.ui.segmentButton.enabled)


def test_the_panel_knows_every_sentence_of_the_engine_about_grids():
    from prosma.image.grid_fit import SENTENCES
    from ProSMASegmentationLib.Models.GridSentences import GridSentences

    assert GridSentences.translations() == SENTENCES
