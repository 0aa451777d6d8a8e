"""What is refused of models, samples and the engine, and that it works once a person has done what the refusal says."""

import shutil
import sys

import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents
from remedies import refused, tries
from tiny_model import make_tiny_package

SIZE = (16, 18, 20)


def scan():
    return scenes.add_volume(scenes.texture(SIZE), "scan")


def test_a_licence_that_was_not_accepted(panel, tmp_path):
    package = make_tiny_package(tmp_path / "strict", id="strict-one", accept_licence=True)
    volume = scan()
    name, remedy = "ModelLibrary.py: may be used only under its licence", "call the logic's acceptLicence('strict-one')"
    refused(name, remedy, panel.logic.prepared, volume, package, None)
    panel.logic.acceptLicence(package)
    panel.logic.prepared(volume, package, None)


@tries("SampleVolumes.py: There is no bundled sample for this model")
def test_a_model_without_a_sample(panel, tmp_path):
    import slicer

    click(panel.ui.sampleButton)
    assert "Choose another model or load an image of your own." in panel.ui.messageLabel.text
    path = str(tmp_path / "own.nrrd")
    own = scan()
    slicer.util.saveNode(own, path)
    slicer.mrmlScene.RemoveNode(own)
    slicer.util.loadVolume(path)
    processEvents(until=lambda: panel.ui.segmentButton.enabled, timeout=60)
    scenes.choose(panel, "hippocampus-mr")
    click(panel.ui.sampleButton)
    assert panel.ui.inputVolumeSelector.currentNode().GetName() != "own"


@tries("SampleVolumes.py: is damaged or not there")
def test_a_sample_that_is_not_there(panel, monkeypatch, tmp_path):
    from ProSMASegmentationLib.Base import Places

    whole = Places.samplesFolder()
    folder = shutil.copytree(whole, tmp_path / "samples")
    monkeypatch.setattr(Places, "samplesFolder", lambda: folder)
    (folder / "hippocampus_017.nii.gz").unlink()
    scenes.choose(panel, "hippocampus-mr")
    click(panel.ui.sampleButton)
    assert "Install the extension again." in panel.ui.messageLabel.text
    shutil.copytree(whole, folder, dirs_exist_ok=True)  # as an installation does
    click(panel.ui.sampleButton)
    assert panel.ui.inputVolumeSelector.currentNode() is not None


def test_an_engine_that_is_not_where_it_should_be(panel, monkeypatch, tmp_path):
    from ProSMASegmentationLib.Base import Places

    module = tmp_path / "ProSMASegmentation"
    module.mkdir()
    monkeypatch.setattr(Places, "moduleFolder", lambda: module)
    refused("Places.py: ProSMA's engine is not where", "keep the folder 'training' beside", Places.engineSource)
    engine = tmp_path / "training" / "prosma" / "__init__.py"
    engine.parent.mkdir(parents=True)
    engine.write_text("")
    assert Places.engineSource() == tmp_path / "training"
    shutil.rmtree(tmp_path / "training")
    (module / "prosma").mkdir()  # where an installed extension has it
    (module / "prosma" / "__init__.py").write_text("")
    assert Places.engineSource() == module


@pytest.mark.slow
@tries("OutputsSection.py: No model is chosen", "GateMapJob.py: has no proximal gates")
def test_gate_maps(panel, models):
    network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [4, 8, 8], "skip": "plain"}
    plain = make_tiny_package(models.home / "models" / "plain", id="plain", network=network)
    panel.logic.library.refresh()
    panel._input.picker.fill()
    ui = panel.ui
    scenes.select(panel, scan())
    scenes.open_section(panel, "more")
    ui.outputKindComboBox.setCurrentIndex(ui.outputKindComboBox.findData("gate"))

    def made():
        click(ui.createVolumeButton)
        processEvents(until=lambda: panel._outputs.job is None, timeout=120)
        return ui.outputVolumeLabel.text

    panel._parameters.model = ""
    assert made() == "No model is chosen. Choose a model."
    scenes.choose(panel, "plain")
    assert "so there is no gate map. Choose another model." in made()
    scenes.choose(panel, "tiny")
    assert "is shown over the image" in made()
    shutil.rmtree(plain.folder)
    panel.logic.library.refresh()
    panel._input.picker.fill()


@tries("Base/OwnedFolder.py: A temporary file could not be written")
@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as Unix does")
def test_a_full_disk(panel, small_files):
    scenes.select(panel, scan())
    with small_files():
        click(panel.ui.segmentButton)
        processEvents(until=lambda: panel.job is None, timeout=240)
    assert "Free some space in" in panel.ui.messageLabel.text and "try again" in panel.ui.messageLabel.text
    assert scenes.click_segment(panel).state == "finished"


@pytest.mark.slow
@tries("SegmentationJob.py: The volume changed while")
def test_a_volume_of_another_size(panel):
    import slicer

    volume = scan()
    scenes.select(panel, volume)
    click(panel.ui.segmentButton)
    job = panel.job
    slicer.util.updateVolumeFromArray(volume, scenes.texture((14, 14, 14)))
    processEvents(until=lambda: not job.isActive, timeout=120)
    assert panel.ui.messageLabel.text.endswith("Segment it again.")
    headless_slicer.processEvents()
    assert scenes.click_segment(panel).state == "finished"


@pytest.mark.slow
@tries("Comparison.py: was removed while the models were being compared")
def test_a_result_that_goes_away_under_a_comparison(panel, tmp_path):
    import slicer

    volume, cases = scan(), tmp_path / "cases"
    node = scenes.written(panel, volume, "tiny")
    panel.logic.saveTrainingCase(node, cases)
    comparison = panel.logic.compareOnLastCase(cases, "tiny", "tiny", wait=False)
    slicer.mrmlScene.RemoveNode(volume)
    processEvents(until=lambda: not comparison.isActive, timeout=120)
    assert str(comparison.error).endswith("Compare them again.")
    again = panel.logic.compareOnLastCase(cases, "tiny", "tiny")
    assert [name for name, *_values in again.dice] == ["structure 1", "structure 2"]
