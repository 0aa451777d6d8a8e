"""Stand-ins for the MRML widgets on the real scene, and the pictures of the views."""

import os
import subprocess
import sys

import numpy as np
import pytest

import headless_slicer


def test_node_selector_follows_the_scene(slicer, volume):
    box = slicer.qMRMLNodeComboBox()
    changes = []
    box.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: changes.append(node and node.GetName()))
    box.connect("currentNodeChanged(bool)", changes.append)
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.addEnabled = False
    box.setMRMLScene(slicer.mrmlScene)
    assert box.currentNode() is volume, "without None the first node is chosen"
    other = slicer.util.addVolumeFromArray(np.zeros((2, 2, 2)), name="Other")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    assert box.nodeCount() == 3
    box.showChildNodeTypes = False
    assert box.nodeCount() == 2
    box.setCurrentNodeID(other.GetID())
    slicer.mrmlScene.RemoveNode(other)
    assert box.currentNode() is volume
    assert changes == ["Ramp", True, "Other", True, "Ramp", True]


def test_node_selector_makes_filters_and_forgets(slicer):
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes, box.noneEnabled, box.baseName = ["vtkMRMLSegmentationNode"], True, "Result"
    box.addAttribute("vtkMRMLSegmentationNode", "Mine", "1")
    box.setMRMLScene(slicer.mrmlScene)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Foreign")
    assert box.nodeCount() == 0 and box.currentNode() is None
    node = box.addNode()
    assert (node.GetName(), node.GetAttribute("Mine"), box.currentNodeID) == ("Result", "1", node.GetID())
    del box
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    headless_slicer.processEvents()


def test_checkable_selector(slicer, volume):
    box = slicer.qMRMLCheckableNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.setMRMLScene(slicer.mrmlScene)
    changes = []
    box.connect("checkedNodesChanged()", lambda: changes.append(len(box.checkedNodes())))
    box.setCheckState(volume, 2)
    assert box.checkedNodes() == (volume,) and changes == [1]


def test_segments_table_shows_and_hides(slicer, volume, segmentation):
    table = slicer.qMRMLSegmentsTableView()
    table.setSegmentationNode(segmentation)
    table.setSelectedSegmentIDs(["green"])
    assert table.segmentCount() == 2 and table.selectedSegmentIDs() == ("green",)
    table._table.item(0, table.VISIBLE).setCheckState(headless_slicer.qt.Qt.Unchecked)
    assert not segmentation.GetDisplayNode().GetSegmentVisibility("red")
    segmentation.GetSegmentation().RemoveSegment("red")
    assert table.segmentCount() == 1


def test_show_3d_button(slicer, volume, segmentation):
    button = slicer.qMRMLSegmentationShow3DButton()
    button.show()
    assert not button.enabled
    button.setSegmentationNode(segmentation)
    headless_slicer.click(button)
    assert segmentation.GetClosedSurfaceInternalRepresentation("red").GetNumberOfPoints() > 100
    headless_slicer.click(button)
    assert segmentation.GetClosedSurfaceInternalRepresentation("red") is None


def test_segment_editor_undoes(slicer, volume, segmentation):
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLScene(slicer.mrmlScene)
    editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setSegmentationNode(segmentation)
    before = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "red", volume)
    editor.saveStateForUndo()
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.zeros_like(before), segmentation, "red", volume)
    assert not slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "red", volume).any()
    editor.undo()
    np.testing.assert_array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "red", volume), before)


def test_ctk_widgets(slicer):
    import ctk

    slider, got = ctk.ctkSliderWidget(), []
    slider.connect("valueChanged(double)", got.append)
    slider.maximum, slider.value = 10, 4
    slider.slider().setValue(500)
    assert got == [4.0, 5.0] and slider.value == 5.0
    path, paths = ctk.ctkPathLineEdit(), []
    path.connect("currentPathChanged(QString)", paths.append)
    headless_slicer.answer("chosen")
    path.browse()
    assert paths == ["chosen"] == [path.currentPath]
    button = ctk.ctkCollapsibleButton()
    button.text = "Advanced"
    layout = headless_slicer.qt.QVBoxLayout(button)
    label = headless_slicer.qt.QLabel("inside")
    layout.addWidget(label)
    button.show()
    headless_slicer.click(button)
    assert button.collapsed and not label.isVisible()
    headless_slicer.click(button)
    assert not button.collapsed and label.isVisible()


@pytest.fixture
def views(slicer):
    from headless_slicer import views

    if not views.available():
        pytest.skip(views.available().reason)
    yield views
    views.close()


def count(pixels, color):
    """How many pixels have nearly this colour."""
    channels = pixels.astype(int)
    return int((np.abs(channels - np.array(color)).max(axis=2) < 60).sum())


def test_slice_view_shows_volume_and_segments(slicer, volume, addBalls, views):
    slicer.util.setSliceViewerLayers(background=volume)
    views.show()
    plain = views.array("Red")
    assert plain.shape == (512, 512, 3)
    assert count(plain, (255, 0, 0)) == 0 and len(np.unique(plain)) > 50, "a grey ramp"
    node = addBalls()
    views.show()
    shown = views.array("Red")
    difference = np.abs(shown.astype(int) - plain).max(axis=2) > 30
    # fit to the width of 100 mm, one mm is 5.12 pixels; the balls have radii of 17.3 and 12.2 mm
    expected = np.pi * (300 + 150) * 5.12**2
    assert abs(difference.sum() / expected - 1) < 0.1
    reddish = (shown[..., 0].astype(int) - shown[..., 1]) > 40
    assert reddish.sum() > 10_000
    node.GetDisplayNode().SetVisibility(False)
    np.testing.assert_array_equal(views.array("Red"), plain)


def test_three_d_view_shows_surfaces(segmentation, views):
    empty = views.array("3D", (300, 300))
    segmentation.CreateClosedSurfaceRepresentation()
    shown = views.array("3D", (300, 300)).astype(int)
    red = (shown[..., 0] > 2 * shown[..., 1]) & (shown[..., 0] > 2 * shown[..., 2])
    green = (shown[..., 1] > 2 * shown[..., 0]) & (shown[..., 1] > 2 * shown[..., 2])
    assert red.sum() > 5000 and green.sum() > 2000
    assert (empty[..., 2] > empty[..., 0]).all(), "nothing but the background"


def test_screenshot_holds_panel_slices_and_3d(slicer, panel, volume, segmentation, views, tmp_path):
    segmentation.CreateClosedSurfaceRepresentation()
    slicer.util.setSliceViewerLayers(background=volume)
    size = panel.parent.size
    assert views.screenshot(tmp_path / "shot.png", panel=panel.parent, size=(1200, 800))
    assert panel.parent.size == size
    from PIL import Image

    pixels = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)
    assert pixels.shape == (800, 1200, 3)
    left, right = pixels[26:, :460], pixels[26:, 460:]
    assert (np.ptp(left, axis=2) < 30).mean() > 0.95 and (left.mean(axis=2) < 100).sum() > 500, "grey panel, dark text"
    height, width = right.shape[0] // 2, right.shape[1] // 2
    corners = (right[:height, :width], right[:height, width:], right[height:, :width], right[height:, width:])
    for name, view in zip(("Red", "3D", "Green", "Yellow"), corners, strict=True):
        assert ((view[..., 0] - view[..., 1] > 60) & (view[..., 0] - view[..., 2] > 60)).sum() > 3000, name
    with pytest.raises(OSError, match="absent"):
        views.screenshot(tmp_path / "absent" / "shot.png")


@pytest.mark.parametrize("missing", ["EGL", pytest.param("fonts", marks=pytest.mark.slow)])
@pytest.mark.skipif(sys.platform != "linux", reason="EGL and fontconfig are hidden the way Linux finds them")
def test_machine_without_egl_or_fonts_gets_a_notice(tmp_path, missing, request):
    if missing == "fonts":
        request.getfixturevalue("views")  # skips where EGL is missing besides
    fonts = tmp_path / "fonts.conf"
    fonts.write_text(f"<fontconfig><dir>{tmp_path}</dir><cachedir>{tmp_path}</cachedir></fontconfig>")
    hidden = {
        "EGL": {"__EGL_VENDOR_LIBRARY_FILENAMES": str(tmp_path / "none"), "DISPLAY": ""},
        "fonts": {"FONTCONFIG_FILE": str(fonts)},
    }[missing]
    script = f"""
import os, headless_slicer
first = headless_slicer.start()
from headless_slicer import views
print(views.screenshot({str(tmp_path / "shot.png")!r}))
headless_slicer.close()
assert not os.path.exists(first.slicerHome)
second = headless_slicer.start()
import slicer
assert slicer.app is second is not first
assert slicer.util.addVolumeFromArray(__import__("numpy").zeros((2, 2, 2))).GetID()
headless_slicer.close()
print("closed twice")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=headless_slicer.__path__[0] + "/..",
        env={**os.environ, **hidden},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ok=False" in done.stdout and missing in done.stdout
    assert "closed twice" in done.stdout
    assert not (tmp_path / "shot.png").exists()
