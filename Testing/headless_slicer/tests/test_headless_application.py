"""The facade of the application: files, subject hierarchy, settings, modules, samples."""

import sys
from pathlib import Path

import numpy as np
import pytest

import headless_slicer
from headless_slicer import real

without_slicers_files = pytest.mark.skipif(real.source() is not None, reason="tells of the stand-ins")


@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz", ".mha"])
def test_volume_survives_its_file(slicer, volume, tmp_path, extension):
    path = tmp_path / f"a volume{extension}"
    assert slicer.util.saveNode(volume, str(path))
    loaded = slicer.util.loadVolume(str(path))
    assert loaded.GetName() == "a volume"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(loaded), slicer.util.arrayFromVolume(volume))
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == loaded.GetID()


def test_missing_and_broken_files_are_refused(slicer, tmp_path):
    with pytest.raises(RuntimeError, match="not found"):
        slicer.util.loadVolume(str(tmp_path / "absent.nrrd"))
    (tmp_path / "broken.nrrd").write_text("no image")
    with pytest.raises(RuntimeError, match="broken"):
        slicer.util.loadVolume(str(tmp_path / "broken.nrrd"))
    headless_slicer.newScene()


def test_segmentation_survives_its_file(slicer, volume, segmentation, tmp_path):
    path = str(tmp_path / "result.seg.nrrd")
    assert slicer.util.saveNode(segmentation, path)
    loaded = slicer.util.loadSegmentation(path)
    assert list(loaded.GetSegmentation().GetSegmentIDs()) == ["red", "green"]
    for name in ("red", "green"):
        voxels = [slicer.util.arrayFromSegmentBinaryLabelmap(each, name, volume) for each in (segmentation, loaded)]
        np.testing.assert_array_equal(*voxels)
        assert voxels[0].any()


def test_subject_hierarchy_items_come_move_and_go(slicer, volume):
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    item = hierarchy.GetItemByDataNode(volume)
    assert hierarchy.GetItemOwnerPluginName(item) == "Volumes"
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(item, study)
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(segmentation), hierarchy.GetItemParent(item))
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation)) == study
    slicer.mrmlScene.RemoveNode(volume)
    assert not hierarchy.GetItemByDataNode(volume)
    hidden = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
    hidden.UnRegister(None)
    hidden.SetHideFromEditors(True)
    slicer.mrmlScene.AddNode(hidden)
    assert not hierarchy.GetItemByDataNode(hidden)


def test_scene_survives_a_bundle(slicer, segmentation, tmp_path):
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    headless_slicer.newScene()
    assert not slicer.util.getNodesByClass("vtkMRMLVolumeNode")
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    loaded = slicer.util.getNode("Ramp")
    assert slicer.mrmlScene.GetSubjectHierarchyNode().GetItemByDataNode(loaded)
    assert slicer.util.getNode("Result").GetSegmentation().GetNumberOfSegments() == 2


def test_settings_stay_out_of_the_home_folder(slicer):
    import qt

    qt.QSettings().setValue("Test/Flag", True)
    assert slicer.util.settingsValue("Test/Flag", False, converter=slicer.util.toBool) is True
    assert qt.QSettings().fileName().startswith(slicer.app.slicerHome)


def test_util_functions_that_need_the_application(slicer, volume, panel):
    assert slicer.util.tempDirectory().startswith(slicer.app.temporaryPath)
    progress = slicer.util.createProgressDialog(maximum=5, labelText="Working")
    progress.value = 2
    assert (progress.value, progress.maximum, progress.labelText) == (2, 5, "Working")
    progress.close()
    slicer.util.delayDisplay("Hello", 1000)
    assert headless_slicer.messages[-1].text == "Hello"
    slicer.util.resetSliceViews()
    slicer.util.resetThreeDViews()
    slicer.util.forceRenderAllViews()
    slicer.util.selectModule("Volumes")
    assert slicer.util.selectedModule() == "Volumes" and not panel.parent.isEntered and panel._parameterNode is None


def test_modules_and_their_logics(slicer):
    assert slicer.modules.volumes.logic().IsA("vtkSlicerVolumesLogic")
    assert slicer.util.getModuleLogic("Segmentations").IsA("vtkSlicerSegmentationsModuleLogic")
    with pytest.raises(RuntimeError, match="Nonsense"):
        slicer.util.getModule("Nonsense")


def test_sample_data(slicer, volume, tmp_path):
    from SampleData import SampleDataLogic

    path = tmp_path / "ramp volume.nrrd"
    slicer.util.saveNode(volume, str(path))
    checksum = "SHA256:" + slicer.util.computeChecksum("SHA256", str(path))
    register = SampleDataLogic.registerCustomSampleDataSource
    for _ in range(2):  # twice: it is registered once
        register("Tests", "Ramp sample", path.as_uri(), "ramp.nrrd", "Sample", checksums=checksum)
    assert [each.sampleName for each in SampleDataLogic.sampleDataSourcesByCategory("Tests")] == ["Ramp sample"]
    loaded = SampleDataLogic().downloadSample("Ramp sample")
    assert loaded.GetName() == "Sample" and loaded.GetImageData().GetDimensions() == (100, 80, 60)
    register("Tests", "Changed", path.as_uri(), "ramp.nrrd", "Sample", checksums="SHA256:" + 64 * "0")
    assert SampleDataLogic().downloadSamples("Changed") == []


@without_slicers_files
def test_nothing_is_downloaded(slicer):
    from SampleData import SampleDataLogic

    SampleDataLogic.registerCustomSampleDataSource("Tests", "Remote", "https://example.org/a.nrrd", "a.nrrd", "A")
    with pytest.raises(RuntimeError, match="downloads nothing"):
        SampleDataLogic().downloadSample("Remote")


def test_nothing_is_installed(slicer):
    from slicer.packaging import pip_check

    assert pip_check("numpy>=1") and not pip_check("numpy>=999") and not pip_check("no-such-package-here")
    with pytest.raises(RuntimeError, match="installs nothing"):
        slicer.util.pip_install("numpy")


def test_terminology_entries_are_real(slicer):
    entry = slicer.vtkSlicerTerminologyEntry()
    text = "List~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Anatomic codes~^^~^^"
    assert slicer.modules.terminologies.logic().DeserializeTerminologyEntry(text, entry)
    assert entry.GetTypeObject().GetCodeMeaning() == "Liver"


@pytest.mark.skipif(real.source() is None, reason="SLICER_SOURCE names no checkout of Slicer")
def test_slicers_own_files_are_in_place(slicer):
    import SampleData
    import SegmentEditorEffects

    effect = SegmentEditorEffects.AbstractScriptedSegmentEditorEffect
    names = [f"slicer.{name}" for name in real.MODULES]
    files = [sys.modules[name].__file__ for name in [*names, SampleData.__name__, effect.__module__]]
    assert all(Path(file).is_relative_to(real.source()) for file in files), files
    assert slicer.util.__file__ is not None and not Path(slicer.util.__file__).is_relative_to(real.source())


def test_a_folder_that_is_no_checkout_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("SLICER_SOURCE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no checkout of Slicer"):
        real.source()
    monkeypatch.delenv("SLICER_SOURCE")
    assert real.source() is None
