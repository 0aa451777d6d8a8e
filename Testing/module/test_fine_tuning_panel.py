"""Fine-tuning on saved cases from the panel: a real training in a process of its own, and what is left when it ends."""

import os
import shutil
import signal
import threading

import numpy as np
import pytest
import scenes

import headless_slicer
from headless_slicer import click, processEvents
from prosma.package import ModelPackage

TRAINING_SECONDS = 600  # lightning and monai are imported; on a busy machine that takes its time


@pytest.fixture
def saved(panel, tmp_path, models):
    """(panel, volume, folder): one case of the model ``tiny`` in the folder that is chosen in the panel."""
    volume = scenes.add_volume(scenes.texture((24, 24, 24)), "case")
    scenes.select(panel, volume)
    folder = tmp_path / "cases"
    panel.ui.trainingFolderPath.currentPath = str(folder)
    if panel.ui.learnCollapsibleButton.collapsed:
        click(panel.ui.learnCollapsibleButton)
    node = scenes.segmented(panel, volume)
    correct(node, volume)
    click(panel.ui.saveCaseButton)
    processEvents(until=lambda: panel._learn._saving is None, timeout=60)
    yield panel, volume, folder
    if panel._learn.tuning is not None:
        panel._learn.tuning.cancel()
    for path in (models.home / "models").glob("tiny-tuned*"):
        shutil.rmtree(path)
    panel.logic.library.refresh()
    panel._input.picker.fill()


def correct(node, volume):
    """The true structures: what is bright, and what is very bright."""
    import slicer

    array = slicer.util.arrayFromVolume(volume)
    for segment_id, inside in zip(scenes.segment_ids(node), ((array > 450) & (array <= 550), array > 550), strict=True):
        slicer.util.updateSegmentBinaryLabelmapFromArray(inside.astype(np.uint8), node, segment_id, volume)


def leftovers(models):
    """Everything that a fine-tuning may have left: among the models and in the temporary folder."""
    import slicer

    temporary = [name for name in os.listdir(slicer.app.temporaryPath) if name.startswith("prosma-finetune-")]
    return temporary + sorted(path.name for path in (models.home / "models").iterdir() if "tuned" in path.name)


def started(panel):
    """Click Fine-tune and wait until its process is there."""
    click(panel.ui.fineTuneButton)
    tuning = panel._learn.tuning
    assert tuning is not None, panel.ui.fineTuneLabel.text
    processEvents(until=lambda: tuning.processId is not None or not tuning.isActive, timeout=TRAINING_SECONDS)
    return tuning


def gone(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
def test_a_click_makes_a_new_model_and_another_compares_it(saved, models):
    panel, volume, _folder = saved
    parent = (models.tiny.folder / "weights.safetensors").read_bytes()
    tuning = started(panel)
    assert panel.ui.fineTuneButton.text == "Cancel"
    seen = set()
    tuning.onProgress.append(lambda t: seen.add((t.stage, t.secondsLeft is not None)))
    processEvents(until=lambda: not tuning.isActive, timeout=TRAINING_SECONDS)
    assert tuning.state == tuning.FINISHED, str(tuning.error)
    assert {("Reading", False), ("Fine-tuning", True)} <= seen
    assert "'Tiny test model, fine-tuned'" in panel.ui.fineTuneLabel.text
    assert "learnt from: 1;" in panel.ui.fineTuneLabel.text
    assert panel.ui.fineTuneButton.text == "Fine-tune on saved cases"
    assert (models.tiny.folder / "weights.safetensors").read_bytes() == parent
    new = ModelPackage.open(models.home / "models" / "tiny-tuned")
    assert new.sha256 != models.tiny.sha256
    assert leftovers(models) == ["tiny-tuned"]

    click(panel.ui.compareButton)
    comparison = panel._learn.comparison
    processEvents(until=lambda: not comparison.isActive, timeout=TRAINING_SECONDS)
    assert comparison.error is None, str(comparison.error)
    original, tuned = comparison.nodes
    assert [scenes.tag(n, scenes.segment_ids(n)[0], "ProSMA.model") for n in (original, tuned)] == [
        "tiny",
        "tiny-tuned",
    ]
    truth = np.digitize(scenes.texture((24, 24, 24)), (451, 551))
    for row, (name, *values) in enumerate(comparison.dice):
        for column, (node, value) in enumerate(zip(comparison.nodes, values, strict=True), start=1):
            result = scenes.label_map(node, volume) == row + 1
            expected = 2 * (result & (truth == row + 1)).sum() / (result.sum() + (truth == row + 1).sum())
            assert value == pytest.approx(expected)
            assert panel.ui.comparisonTable.item(row, column).text() == f"{value:.3f}"
        assert panel.ui.comparisonTable.item(row, 0).text() == name == f"structure {row + 1}"
    means = np.mean([values for _name, *values in comparison.dice], axis=0)
    assert means[0] != means[1], "the new model is another one"
    scenes.choose(panel, "tiny-tuned")
    assert panel.logic.segment(volume, model="tiny-tuned").GetName().startswith("case - Tiny test model, fine-tuned")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals that a process could be killed by")
def test_cancelled_or_killed_it_leaves_nothing_and_says_so(saved, models):
    panel, _volume, _folder = saved
    before = leftovers(models)
    for end, words in ((lambda t: click(panel.ui.fineTuneButton), "cancelled"), (kill, "No model was made")):
        tuning = started(panel)
        process = tuning.processId
        end(tuning)
        processEvents(until=lambda tuning=tuning: not tuning.isActive, timeout=60)
        assert words in panel.ui.fineTuneLabel.text
        assert panel.ui.fineTuneButton.text == "Fine-tune on saved cases"
        processEvents(until=lambda process=process: gone(process), timeout=60)
        assert leftovers(models) == before
    assert "Close other programs" in panel.ui.fineTuneLabel.text


@pytest.mark.slow
def test_cancelled_while_the_new_model_is_added_it_leaves_nothing(saved, models, monkeypatch):
    from prosma.package import importing

    panel, _volume, folder = saved
    before = leftovers(models)
    reached, let = threading.Event(), threading.Event()
    limit_of = importing.limit_of  # asked by the thread before it copies a file

    def waiting(name):
        reached.set()
        assert let.wait(60)
        return limit_of(name)

    monkeypatch.setattr(importing, "limit_of", waiting)
    tuning = panel.logic.fineTune(folder, "tiny", wait=False, steps=2)
    processEvents(until=lambda: reached.is_set() or not tuning.isActive, timeout=TRAINING_SECONDS)
    assert tuning.isActive and tuning.stage == "Copying the model", str(tuning.error)
    tuning.cancel()
    let.set()
    processEvents(until=lambda: not tuning.isActive, timeout=60)
    assert tuning.state == tuning.CANCELLED and leftovers(models) == before
    assert panel.logic.fineTune(folder, "tiny", steps=2).id == "tiny-tuned"


def kill(tuning):
    os.kill(tuning.processId, signal.SIGKILL)


def test_what_cannot_work_is_said_before_anything_starts(saved, models, tmp_path):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    panel, _volume, folder = saved
    panel.ui.trainingFolderPath.currentPath = str(tmp_path / "empty")
    click(panel.ui.fineTuneButton)
    assert "no case" in panel.ui.fineTuneLabel.text
    click(panel.ui.compareButton)
    assert "no fine-tuned model" in panel.ui.compareLabel.text
    panel.ui.trainingFolderPath.currentPath = str(folder)
    scenes.choose(panel, "two")
    click(panel.ui.fineTuneButton)
    assert "1 channels" in panel.ui.fineTuneLabel.text
    for model, code in (("asking", "licence"), ("nonsense", "bad_model"), (removed(models), "bad_model")):
        with pytest.raises(ProSMAError) as error:
            panel.logic.fineTune(folder, model)
        assert error.value.code == code
    (folder / "labelsTr" / "case.nii.gz").write_bytes(b"broken")
    with pytest.raises(ProSMAError, match=r"case\.nii\.gz"):
        panel.logic.compareOnLastCase(folder, "tiny", "tiny")
    assert leftovers(models) == []


def removed(models):
    """A package whose folder is not there any more."""
    folder = shutil.copytree(models.tiny.folder, models.home / "removed")
    package = ModelPackage.open(folder)
    shutil.rmtree(folder)
    return package


@pytest.mark.slow
def test_a_case_that_does_not_fit_is_named(saved, models):
    from prosma.image.geometry import Image
    from prosma.image.writing import write_labels
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    panel, _volume, folder = saved
    wrong = np.full((24, 24, 24), 9, np.uint8)
    write_labels(folder / "labelsTr" / "case.nii.gz", wrong, Image(wrong[None], np.eye(4)), models.tiny.labels)
    with pytest.raises(ProSMAError, match=r"'case'.*9.*No model was made"):
        panel.logic.fineTune(folder, "tiny", steps=1)
    assert leftovers(models) == []


@pytest.mark.slow
def test_a_bundled_model_learns_from_a_corrected_sample(panel, models, tmp_path):
    """A person corrects the sample with its reference labels, fine-tunes and compares, all from Python."""
    from prosma.image.reading import read_labels
    from ProSMASegmentationLib.Base import Places

    scenes.choose(panel, "hippocampus-mr")
    click(panel.ui.sampleButton)
    volume = panel.ui.inputVolumeSelector.currentNode()
    node = scenes.segmented(panel, volume)
    truth = read_labels(Places.samplesFolder() / "hippocampus_017_labels.nii.gz").array[0].T
    import slicer

    for value, segment_id in enumerate(scenes.segment_ids(node), start=1):
        slicer.util.updateSegmentBinaryLabelmapFromArray((truth == value).astype(np.uint8), node, segment_id, volume)
    panel.logic.saveTrainingCase(node, tmp_path / "cases")
    headless_slicer.closeScene()
    new = panel.logic.fineTune(tmp_path / "cases", "hippocampus-mr", name="Mine", steps=20)
    assert (new.id, new.name) == ("hippocampus-mr-tuned", "Mine")
    comparison = panel.logic.compareOnLastCase(tmp_path / "cases", "hippocampus-mr", new.id)
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 1, "the case's image was loaded"
    before, after = np.mean([values for _name, *values in comparison.dice], axis=0)
    assert after > before > 0.8
    again = panel.logic.compareOnLastCase(tmp_path / "cases", "hippocampus-mr", new.id)
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 1, "and is not loaded again"
    assert again.dice == comparison.dice
    shutil.rmtree(models.home / "models" / "hippocampus-mr-tuned")
    panel.logic.library.refresh()
