"""One click on Segment, from the volume to the saved file."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scenes

from headless_slicer import click, processEvents
from prosma.image import tags
from prosma.image.geometry import Image
from prosma.image.writing import write_labels
from prosma.steps import finish


def test_a_click_makes_a_segmentation_with_names_colours_and_terminology(panel, models):
    volume = scenes.add_volume(scenes.texture((24, 30, 36)))
    node = scenes.segmented(panel, volume)
    segmentation = node.GetSegmentation()
    assert scenes.names(node) == [label["name"] for label in models.tiny.labels]
    for segment_id, label in zip(scenes.segment_ids(node), models.tiny.labels, strict=True):
        assert np.allclose(segmentation.GetSegment(segment_id).GetColor(), np.array(label["color"]) / 255)
        assert scenes.tag(node, segment_id, "ProSMA.sha256") == models.tiny.sha256
        assert scenes.tag(node, segment_id, "ProSMA.fingerprint")
    assert scenes.label_map(node, volume).any()


def test_the_terms_of_a_label_become_slicers_terminology_entry(panel):
    from prosma.image.labels import terminology_entry

    entry = terminology_entry(
        {
            "category": ["SCT", "123037004", "Anatomical Structure"],
            "type": ["SCT", "10200004", "Liver"],
            "modifier": None,
        }
    )
    assert entry.split("~")[1:4] == ["SCT^123037004^Anatomical Structure", "SCT^10200004^Liver", "^^"]
    assert len(entry.split("~")) == 7


def test_the_voxels_are_those_that_the_engine_computes_without_slicer(panel, models):
    from prosma.image.geometry import Image
    from prosma.inference.segmenter import Segmenter

    array = scenes.texture((26, 28, 30))
    matrix = scenes.oblique()
    volume = scenes.add_volume(array, ijk_to_ras=matrix)
    node = scenes.segmented(panel, volume)
    direct = Segmenter(models.tiny, "cpu").segment(Image(array.transpose(2, 1, 0)[None], matrix))
    assert np.array_equal(scenes.label_map(node, volume), direct.labels.transpose(2, 1, 0))


def test_the_result_has_the_geometry_transform_and_folder_of_the_volume(panel):
    import slicer

    volume = scenes.add_volume(scenes.texture((24, 26, 28)), ijk_to_ras=scenes.oblique())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    node = scenes.segmented(panel, volume)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    assert node.GetNodeReference("referenceImageGeometryRef") is volume
    assert node.GetTransformNodeID() is None


@pytest.mark.parametrize("kind", ["linear", "curved"])
def test_a_volume_under_a_transform_keeps_it_and_the_result_gets_the_same(panel, kind):
    import slicer
    import vtk

    array = scenes.texture((24, 26, 28))
    plain = scenes.add_volume(array, "plain")
    expected = scenes.label_map(scenes.segmented(panel, plain), plain)

    volume = scenes.add_volume(array, "moved")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    if kind == "linear":
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 40)
        transform.SetMatrixTransformToParent(matrix)
    else:
        spline = vtk.vtkThinPlateSplineTransform()
        source, target = vtk.vtkPoints(), vtk.vtkPoints()
        for point in ((0, 0, 0), (30, 0, 0), (0, 30, 0), (0, 0, 30)):
            source.InsertNextPoint(point)
            target.InsertNextPoint([c + 3 * np.sin(c) for c in point])
        spline.SetSourceLandmarks(source)
        spline.SetTargetLandmarks(target)
        transform.SetAndObserveTransformToParent(spline)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    node = scenes.segmented(panel, volume)
    assert volume.GetParentTransformNode() is transform
    assert node.GetParentTransformNode() is transform
    assert np.array_equal(scenes.label_map(node, volume), expected)


def test_a_roi_limits_the_result_even_when_the_volume_is_transformed(panel):
    import slicer
    import vtk

    volume = scenes.add_volume(scenes.texture((30, 32, 34)), ijk_to_ras=np.diag([-1, 1, 2, 1]))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(1, 3, 100)
    transform.SetMatrixTransformToParent(matrix)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    roi.SetCenterWorld(-12, 110, 30)
    roi.SetSizeWorld(16, 12, 20)
    scenes.select(panel, volume)
    panel.ui.roiSelector.setCurrentNode(roi)
    processEvents()
    job = scenes.click_segment(panel)
    labels = scenes.label_map(job.segmentationNode, volume)
    inside = labels[10:21, 4:17, 4:21]  # k: 20..40 mm at 2 mm, j: 104..116 mm, i: -20..-4 mm
    assert job.state == job.FINISHED, str(job.error)
    assert inside.any()
    assert np.count_nonzero(labels) == np.count_nonzero(inside)


def test_a_colour_picture_and_a_two_dimensional_model_work_together(panel):
    picture = np.random.default_rng(1).integers(0, 255, (1, 50, 60, 3), dtype=np.uint8)
    volume = scenes.add_volume(picture, "photograph", vector=True)
    scenes.choose(panel, "photo")
    node = scenes.segmented(panel, volume)
    assert scenes.label_map(node, volume).shape == (1, 50, 60)
    assert scenes.label_map(node, volume).any()


def test_a_model_of_two_channels_shows_two_selectors_and_needs_both(panel):
    scenes.choose(panel, "two")
    first = scenes.add_volume(scenes.texture((24, 24, 24), 1), "first")
    second = scenes.add_volume(scenes.texture((24, 24, 24), 2), "second")
    scenes.select(panel, first)
    assert panel.ui.channel2Selector.isVisible()
    assert not panel.ui.channel3Selector.isVisible()
    assert not panel.ui.segmentButton.enabled
    assert "needs 2 channels" in panel.ui.segmentButton.toolTip
    panel.ui.channel2Selector.setCurrentNode(second)
    processEvents()
    job = scenes.click_segment(panel)
    assert job.state == job.FINISHED, str(job.error)


def test_the_table_shows_the_volume_of_each_segment_and_follows_edits(panel):
    import slicer

    volume = scenes.add_volume(scenes.texture((24, 26, 28)), ijk_to_ras=np.diag([2, 1, 1, 1]))
    node = scenes.segmented(panel, volume)
    table = panel.ui.volumesTable
    processEvents(until=lambda: table.rowCount == 2)
    first = scenes.segment_ids(node)[0]
    assert float(table.item(0, 1).text()) == pytest.approx(2e-3 * scenes.voxels(node, first, volume).sum(), abs=6e-4)
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.ones((24, 26, 28), np.uint8), node, first, volume)
    processEvents(until=lambda: float(table.item(0, 1).text()) == pytest.approx(2e-3 * 24 * 26 * 28, abs=6e-4))


def test_the_result_can_be_shown_in_3d_with_one_click(panel):
    node = scenes.segmented(panel, scenes.add_volume(scenes.texture((24, 26, 28))))
    click(panel.ui.show3DButton)
    assert node.GetSegmentation().ContainsRepresentation("Closed surface")


def test_a_saved_segmentation_comes_back_and_is_still_known_as_unedited(panel, tmp_path):
    import slicer

    from ProSMASegmentationLib.Results.FingerprintSteps import fingerprintsOfImage, isUnchanged
    from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap

    volume = scenes.add_volume(scenes.texture((24, 26, 28)), ijk_to_ras=scenes.oblique())
    node = scenes.segmented(panel, volume)
    expected, expected_names = scenes.label_map(node, volume), scenes.names(node)
    path = tmp_path / "result.seg.nrrd"
    assert slicer.util.saveNode(node, str(path))
    slicer.mrmlScene.RemoveNode(node)
    loaded = slicer.util.loadSegmentation(str(path))
    assert scenes.names(loaded) == expected_names
    assert np.array_equal(scenes.label_map(loaded, volume), expected)
    for segment_id in scenes.segment_ids(loaded):
        segment = loaded.GetSegmentation().GetSegment(segment_id)
        present = finish(fingerprintsOfImage(SegmentLabelmap.of(segment)))[segment.GetLabelValue()]
        assert isUnchanged(present, scenes.tag(loaded, segment_id, "ProSMA.fingerprint"))


@pytest.mark.parametrize("seed", range(12))
def test_slicer_and_command_line_describe_the_same_labels_byte_by_byte(panel, models, seed, tmp_path):
    """Of random label maps: each segment's name, colour, terminology, and every tag but that of Slicer's run."""
    import slicer

    from ProSMASegmentationLib.Results.ResultWriter import ResultWriter

    random = np.random.default_rng(seed)
    shape = random.integers(1, 12, 3)
    labels = random.choice([0, 1, 2], shape, p=[0.5, 0.4, 0.1]).astype(np.uint8)  # (I, J, K); often no 2 at all
    labels[tuple(random.integers(0, shape))] = 1
    matrix = np.eye(4)
    matrix[:3, :3] = np.linalg.qr(random.normal(size=(3, 3)))[0] * random.uniform(0.3, 4, 3)
    matrix[:3, 3] = random.uniform(-200, 200, 3)
    terms = {"category": ["SCT", "123037004", "Anatomical Structure"], "type": ["SCT", "10200004", "Liver"]}
    package = replace(
        models.tiny, model={**models.tiny.model, "labels": [{**models.tiny.labels[0], "terminology": terms}]}
    )
    package.model["labels"].append(models.tiny.labels[1])
    options = {"device": "cpu", "roi": None, "overlap": 0.25}

    image = Image(np.zeros((1, *shape), np.float32), matrix)
    path = tmp_path / "engine.seg.nrrd"
    write_labels(path, labels, image, package.labels, tags.provenance(package, options))
    volume = scenes.add_volume(np.zeros(shape[::-1], np.float32), ijk_to_ras=matrix)
    written = finish(ResultWriter(volume, package, None, options).write(labels.T, (0, 0, 0)))
    facts = [described(node) for node in (written, slicer.util.loadSegmentation(str(path)))]
    assert facts[0] == facts[1]
    assert [each[tags.FINGERPRINT] == tags.EMPTY for each in facts[0]] == [not (labels == v).any() for v in (1, 2)]


def described(node):
    names = (*tags.provenance(SimpleNamespace(id="", version="", sha256="")), tags.LABEL, tags.FINGERPRINT)
    segmentation = node.GetSegmentation()
    return [
        {
            "name": segment.GetName(),
            "color": [round(255 * channel) for channel in segment.GetColor()],
            "terminology": segment.GetTerminology(),
            **{name: scenes.tag(node, each, name) for name in names},
        }
        for each in segmentation.GetSegmentIDs()
        for segment in [segmentation.GetSegment(each)]
    ]


@pytest.mark.slow  # measures time, which other work on the computer takes
def test_the_second_click_spends_little_time_outside_the_network(panel):
    volume = scenes.add_volume(scenes.texture((48, 48, 48)))
    scenes.segmented(panel, volume)
    job = scenes.click_segment(panel)
    assert job.state == job.FINISHED
    assert job.seconds["total"] - job.seconds["network"] <= 0.5


def test_python_gets_the_same_segmentation_from_the_logic(panel):
    import slicer

    volume = scenes.add_volume(scenes.texture((24, 26, 28)))
    clicked = scenes.label_map(scenes.segmented(panel, volume), volume)
    logic = slicer.util.getModuleLogic("ProSMASegmentation")
    node = logic.segment(volume, model="tiny")
    assert np.array_equal(scenes.label_map(node, volume), clicked)
    job = logic.segment(volume, model="tiny", wait=False)
    assert job.isActive
    assert np.array_equal(scenes.label_map(job.wait(), volume), clicked)
