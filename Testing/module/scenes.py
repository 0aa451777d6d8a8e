"""What a person does in the tests: load volumes, choose, click Segment, and look at the scene."""

from pathlib import Path

import numpy as np

import headless_slicer

MODULE = Path(__file__).resolve().parents[2] / "ProSMASegmentation" / "ProSMASegmentation.py"
EFFECT_MODULE = MODULE.with_name("SegmentEditorProSMAStrokes.py")  # the hidden module of the effect ProSMA Strokes


def choose(panel, model_id):
    """Click a model in the list."""
    ids = [panel.ui.modelList.item(row).data(headless_slicer.qt.Qt.UserRole) for row in range(panel.ui.modelList.count)]
    panel.ui.modelList.setCurrentRow(ids.index(model_id))
    headless_slicer.processEvents()


def read_models_again(panel, keeps=lambda package: True):
    """Read the model folders again; of what lies there the panel has the packages that are kept."""
    library = panel.logic.library
    library.refresh()
    library.packages = [each for each in library.packages if keeps(each)]
    panel._input.picker.fill()
    headless_slicer.processEvents()


def keep_models_for_strokes(panel, *ids):
    """Read the model folders again; of the models for strokes only these are there."""
    read_models_again(panel, lambda package: not package.is_promptable or package.id in ids)


def add_model(panel):
    """Click Add, whose menu and dialog have an answer (`headless_slicer.answer`), and wait until that has ended."""
    headless_slicer.click(panel.ui.addModelButton)
    headless_slicer.processEvents(until=lambda: panel.ui.addModelButton.text == "Add...", timeout=60)


def texture(shape, seed=0, dtype="int16"):
    """Smooth noise (K, J, I): different everywhere, with structures of some voxels."""
    from scipy.ndimage import zoom

    coarse = np.random.default_rng(seed).normal(size=[max(2, size // 6 + 1) for size in shape])
    smooth = zoom(coarse, [size / len_ for size, len_ in zip(shape, coarse.shape, strict=True)], order=1)
    return (smooth * 200 + 400).astype(dtype)


def add_volume(array, name="scan", ijk_to_ras=None, vector=False):
    """Add a volume node with the voxels (K, J, I) or (K, J, I, components), on a 1 mm grid by default."""
    import slicer

    matrix = slicer.util.vtkMatrixFromArray(np.eye(4) if ijk_to_ras is None else np.asarray(ijk_to_ras, float))
    kind = "vtkMRMLVectorVolumeNode" if vector else "vtkMRMLScalarVolumeNode"
    node = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=name, nodeClassName=kind)
    headless_slicer.processEvents()
    return node


def oblique():
    """A grid that is rotated, anisotropic, left-handed and far from the origin."""
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([-1.2, 0.9, 1.5])
    matrix[:3, 3] = 30, -12, 55
    return matrix


def quarter_turn():
    """A transform node that turns by 90 degrees about S and moves."""
    import slicer

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    matrix[:3, 3] = 20, -30, 10
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return transform


def select(panel, volume):
    panel.ui.inputVolumeSelector.setCurrentNode(volume)
    headless_slicer.processEvents()


def click_segment(panel, timeout=240):
    """Click Segment and wait for the end. Returns the job."""
    headless_slicer.click(panel.ui.segmentButton)
    job = panel.job
    assert job is not None, panel.ui.messageLabel.text
    headless_slicer.processEvents(until=lambda: not job.isActive, timeout=timeout)
    headless_slicer.processEvents()
    return job


def segmented(panel, volume):
    """Click Segment on a volume and return the resulting segmentation node."""
    select(panel, volume)
    job = click_segment(panel)
    assert job.state == job.FINISHED, str(job.error)
    return job.segmentationNode


def written(panel, volume, model, labels=None):
    """A segmentation with the tags of a run, without the run. :param labels: (K, J, I) array of label values."""
    from prosma.steps import finish
    from ProSMASegmentationLib.Results.ResultWriter import ResultWriter

    package = panel.logic.library.package(model)
    if labels is None:
        shape = volume.GetImageData().GetDimensions()[::-1]
        labels = np.digitize(texture(shape, seed=3), (450, 600)).astype(np.uint8)
    return finish(ResultWriter(volume, package).write(np.minimum(labels, len(package.labels)), (0, 0, 0)))


def label_map(segmentation_node, volume):
    """(K, J, I) label values of all segments on the volume's grid, in the order of their ProSMA.label tags."""
    result = np.zeros(volume.GetImageData().GetDimensions()[::-1], np.uint8)
    for segment_id in segmentation_node.GetSegmentation().GetSegmentIDs():
        result[voxels(segmentation_node, segment_id, volume) > 0] = int(
            tag(segmentation_node, segment_id, "ProSMA.label")
        )
    return result


def voxels(segmentation_node, segment_id, volume):
    import slicer

    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation_node, segment_id, volume)


def surface(segmentation_node, segment_id):
    return segmentation_node.GetSegmentation().GetSegment(segment_id).GetRepresentation("Closed surface")


def points(poly_data):
    from vtk.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(poly_data.GetPoints().GetData())


def assert_surfaces_are_current(segmentation_node):
    """The surfaces shown are those that Slicer makes of the voxels as they are now."""
    ids = segment_ids(segmentation_node)
    shown = [surface(segmentation_node, each) for each in ids]
    segmentation_node.RemoveClosedSurfaceRepresentation()
    segmentation_node.CreateClosedSurfaceRepresentation()
    for segment_id, old in zip(ids, shown, strict=True):
        new = surface(segmentation_node, segment_id)
        assert new.GetNumberOfPoints() == old.GetNumberOfPoints() > 0
        assert np.array_equal(points(old), points(new))


def tag(segmentation_node, segment_id, name):
    import vtk

    value = vtk.reference("")
    return str(value) if segmentation_node.GetSegmentation().GetSegment(segment_id).GetTag(name, value) else None


def segment_ids(segmentation_node):
    return list(segmentation_node.GetSegmentation().GetSegmentIDs())


def names(segmentation_node):
    segmentation = segmentation_node.GetSegmentation()
    return [segmentation.GetSegment(each).GetName() for each in segmentation.GetSegmentIDs()]


def serialised():
    """The whole scene as text, and the voxels of each segmentation: equal before and after if nothing changed."""
    import slicer

    scene = slicer.mrmlScene
    scene.SetSaveToXMLString(1)
    scene.Commit()
    text = scene.GetSceneXMLString()
    scene.SetSaveToXMLString(0)
    times = {}
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        segmentation = node.GetSegmentation()
        for segment_id in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(segment_id)
            image = segment.GetRepresentation("Binary labelmap")
            times[node.GetID(), segment_id] = (segment.GetName(), image.GetMTime() if image else 0)
    return text, times


def open_section(panel, name):
    """Click a section of the panel open: "correct", "more", ..."""
    button = getattr(panel.ui, f"{name}CollapsibleButton")
    if button.collapsed:
        headless_slicer.click(button)
    headless_slicer.processEvents()


def open_correct(panel, tool="review"):
    """Click the section Correct open and, where there is something to correct, one of its tools."""
    open_section(panel, "correct")
    button = getattr(panel.ui, f"{tool}ToolButton")
    if panel.ui.correctTools.isVisible() and not button.checked:
        headless_slicer.click(button)
    headless_slicer.processEvents()


def settle_soon(panel):
    """Let Review wait only for a moment after an edit: a person takes longer, and each test would wait for it."""
    panel._review._followed._timer.setInterval(30)


def is_settled(section):
    """Whether a section that follows a segmentation has taken in the last of its changes."""
    return not section._followed._timer.isActive()
