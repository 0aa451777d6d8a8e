"""Pictures of the scene: Slicer's real displayable managers, drawn offscreen, and a composed screenshot.

Where there is no display VTK draws through EGL. `available()` says whether that works here; it asks a child process,
because a missing driver can end the process that tries.
"""

import functools
import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from .pythonqt import QtCore, QtGui, QtWidgets

SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
)
THREE_D_MANAGERS = (  # without vtkMRMLViewDisplayableManager (box, labels), which needs the application's view widget
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
)
THREE_D = "3D"
VIEW_FROM = (-0.6, 1.0, 0.45)  # direction in which the camera lies: front, a little left and above
BAR = 20  # height of the coloured bar over each view, pixels
PROBE = """
import vtkmodules.vtkRenderingOpenGL2
from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow
window = vtkRenderWindow()
window.SetOffScreenRendering(1)
window.SetSize(16, 16)
window.AddRenderer(vtkRenderer())
window.Render()
print("drawn", window.SupportsOpenGL())
"""
_views: dict = {}

if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")  # else VTK tries X first and complains


class Availability(NamedTuple):
    """Whether pictures can be made; true or false itself. `reason` is a sentence for a person, empty if they can."""

    ok: bool
    reason: str

    def __bool__(self):
        return self.ok


@functools.cache
def available():
    """Whether views can be drawn and texts be written on this machine. Asked once per process."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0 or "drawn 1" not in done.stdout:
        return Availability(
            False,
            "No pictures: VTK cannot draw here, usually because EGL is missing "
            "(on Debian and Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libgl1).",
        )
    if not QtGui.QFontMetrics(QtWidgets.QApplication.font()).inFont("A"):
        return Availability(
            False, "No pictures: Qt finds no fonts (on Debian and Ubuntu: apt-get install fonts-dejavu-core)."
        )
    return Availability(True, "")


class _View:
    """A render window without a screen, filled by displayable managers that follow `node`."""

    def __init__(self, node, managers, size):
        self.node = node
        self.renderer, self.window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkGenericRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.prepare()  # what lies under the managers' actors has to be there before them
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        for name in managers:
            manager = getattr(slicer, name)()
            manager.SetMRMLApplicationLogic(slicer.app.applicationLogic())
            self.group.AddDisplayableManager(manager)
        self.group.SetMRMLDisplayableNode(node)

    def prepare(self):
        """Adds actors below those of the managers."""

    def update(self):
        """Brings the view up to date before it is drawn."""

    def draw(self):
        """Pixels, shape (height, width, 3), uint8, first row on top."""
        self.update()
        self.window.Render()
        image = vtk.vtkWindowToImageFilter()
        image.SetInput(self.window)
        image.SetInputBufferTypeToRGB()
        image.ReadFrontBufferOff()
        image.Update()
        width, height, _ = image.GetOutput().GetDimensions()
        pixels = vtk_to_numpy(image.GetOutput().GetPointData().GetScalars()).reshape(height, width, 3)
        return np.ascontiguousarray(pixels[::-1])

    def close(self):
        self.group.SetMRMLDisplayableNode(None)
        self.window.Finalize()


class _SliceView(_View):
    """A slice view: the volumes that the slice logic blends, under segmentations and markups."""

    def __init__(self, name, size):
        self.widget, self.shown = slicer.app.layoutManager().sliceWidget(name), []
        super().__init__(self.widget.mrmlSliceNode(), SLICE_MANAGERS, size)

    def prepare(self):
        self.mapper, self.actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.actor.SetMapper(self.mapper)
        self.renderer.AddViewProp(self.actor)
        self.renderer.SetBackground(0, 0, 0)

    def fit(self):
        """Gives the slice node this window's size and fits the volume into it."""
        self.widget.sliceLogic().ResizeSliceNode(*self.window.GetSize())
        self.widget.fitSliceToBackground()

    def update(self):
        if self.node.GetDimensions()[:2] != self.window.GetSize():
            self.widget.sliceLogic().ResizeSliceNode(*self.window.GetSize())
        self.showActorsOfEffects()
        image = self.widget.sliceLogic().GetImageDataConnection()
        self.mapper.SetInputConnection(image)
        self.actor.SetVisibility(image is not None)

    def showActorsOfEffects(self):
        for actor in self.shown:
            self.renderer.RemoveViewProp(actor)
        self.shown = list(self.widget.actors)
        for actor in self.shown:
            self.renderer.AddViewProp(actor)


class _ThreeDView(_View):
    """The 3D view, seen from the front and a little from above and the left side."""

    def __init__(self, size):
        super().__init__(slicer.app.layoutManager().threeDWidget(0).mrmlViewNode(), THREE_D_MANAGERS, size)

    def prepare(self):
        self.window.SetMultiSamples(4)
        self.renderer.GradientBackgroundOn()
        self.renderer.SetBackground(self.node.GetBackgroundColor())
        self.renderer.SetBackground2(self.node.GetBackgroundColor2())

    def update(self):
        bounds = self.renderer.ComputeVisiblePropBounds()
        if not vtk.vtkMath.AreBoundsInitialized(bounds):
            return
        center = np.add(bounds[::2], bounds[1::2]) / 2
        camera = self.renderer.GetActiveCamera()
        camera.SetFocalPoint(*center)
        camera.SetPosition(*np.add(center, VIEW_FROM))
        camera.SetViewUp(0, 0, 1)
        self.renderer.ResetCamera(bounds)
        camera.Zoom(1.2)


def _view(name, size):
    key = (name, tuple(size))
    if key not in _views:
        _views[key] = _ThreeDView(size) if name == THREE_D else _SliceView(name, size)
    return _views[key]


def array(name="Red", size=(512, 512)):
    """Draws one view.

    Args:
        name: 'Red', 'Green', 'Yellow' or '3D'.
        size: width and height in pixels.

    Returns:
        Pixels, shape (height, width, 3), uint8, first row on top.

    Raises:
        RuntimeError: this machine cannot draw; the message is `available().reason`.
    """
    if not available():
        raise RuntimeError(available().reason)
    return _view(name, size).draw()


def show(position=None, size=(512, 512)):
    """Fits the slice views to their volume and moves them to a point.

    Args:
        position: RAS point in mm; the centre of the segmentations by default.
        size: width and height of the views in pixels, as for `array`.
    """
    position = position if position is not None else _centerOfSegmentations()
    for name in slicer.app.layoutManager().sliceViewNames():
        view = _view(name, size)
        view.fit()
        if position is not None:
            view.node.JumpSliceByOffsetting(*position)


def _centerOfSegmentations():
    box, bounds = vtk.vtkBoundingBox(), [0.0] * 6
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        node.GetRASBounds(bounds)
        if vtk.vtkMath.AreBoundsInitialized(bounds):
            box.AddBounds(bounds)
    if not box.IsValid():
        return None
    center = [0.0] * 3
    box.GetCenter(center)
    return center


def image(name="Red", size=(512, 512)):
    """One view as a QImage, with Slicer's coloured bar above; arguments as for `array`, the bar is part of the size."""
    width, height = size
    pixels = array(name, (width, height - BAR))
    picture = QtGui.QImage(width, height, QtGui.QImage.Format_RGB32)
    picture.fill(QtGui.QColor("#000000"))
    painter = QtGui.QPainter(picture)
    drawn = QtGui.QImage(pixels.data, width, height - BAR, 3 * width, QtGui.QImage.Format_RGB888)
    painter.drawImage(0, BAR, drawn)
    _drawBar(painter, name, width)
    painter.end()
    return picture


def _drawBar(painter, name, width):
    if name == THREE_D:
        color, letter, text = QtGui.QColor("#7480c7"), "1", ""
    else:
        node = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()
        color, letter = QtGui.QColor.fromRgbF(*node.GetLayoutColor()), name[0]
        text = f"{node.GetOrientation()}   {node.GetSliceOffset():.1f} mm"
    painter.fillRect(0, 0, width, BAR, color)
    painter.setPen(QtGui.QColor("#1d1d1d"))
    painter.drawText(QtCore.QRect(6, 0, width, BAR), int(QtCore.Qt.AlignVCenter), letter)
    painter.drawText(QtCore.QRect(0, 0, width - 8, BAR), int(QtCore.Qt.AlignVCenter | QtCore.Qt.AlignRight), text)


def screenshot(path, panel=None, size=(1440, 900), position=None, title="3D Slicer (headless)"):
    """Writes one picture as Slicer's window shows it: the panel, three slice views and the 3D view.

    Args:
        path: PNG file to write.
        panel: the widget on the left, for instance `moduleWidget.parent`; None for views alone.
        size: width and height in pixels.
        position: RAS point that the slices show; the centre of the segmentations by default.
        title: text of the bar on top.

    Returns:
        Availability: false, with the reason, if this machine cannot draw; then no file is written.

    Raises:
        OSError: the file could not be written.
    """
    if not available():
        return available()
    width, height = size
    picture = QtGui.QImage(width, height, QtGui.QImage.Format_RGB32)
    picture.fill(QtGui.QColor("#efefef"))
    painter = QtGui.QPainter(picture)
    painter.fillRect(0, 0, width, BAR + 6, QtGui.QColor("#3a3f44"))
    painter.setPen(QtGui.QColor("#ffffff"))
    painter.drawText(QtCore.QRect(0, 0, width, BAR + 6), int(QtCore.Qt.AlignCenter), title)
    area = QtCore.QRect(0, BAR + 6, width, height - BAR - 6)
    if panel is not None:
        area.setLeft(_drawPanel(painter, panel, area))
    _drawViews(painter, area, position)
    painter.end()
    if not picture.save(str(path)):
        raise OSError(f"the picture {path} could not be written")
    return Availability(True, "")


def _drawPanel(painter, panel, area):
    """Draws the panel at the left of `area` and returns where the views begin."""
    before = panel.size
    panel.resize(QtCore.QSize(before.width(), area.height()))
    QtWidgets.QApplication.processEvents()
    painter.drawPixmap(area.topLeft(), panel.grab())
    panel.resize(before)
    return area.left() + before.width()


def _drawViews(painter, area, position):
    gap = 2
    size = ((area.width() - gap) // 2, (area.height() - gap) // 2)
    show(position, (size[0], size[1] - BAR))
    for index, name in enumerate(("Red", THREE_D, "Green", "Yellow")):
        column, row = index % 2, index // 2
        corner = QtCore.QPoint(area.left() + column * (size[0] + gap), area.top() + row * (size[1] + gap))
        painter.drawImage(corner, image(name, size))


def close():
    """Ends the views. They come back when the next picture is made."""
    for each in _views.values():
        each.close()
    _views.clear()
