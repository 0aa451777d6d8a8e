"""Strokes in the slice views. No window sends mouse events here, so they are put into the views' VTK interactors.

What follows is as in Slicer: the Segment Editor observes the interactors and hands each event to the active effect.
"""

import slicer
import vtk

from . import _raiseErrors


def draw(points, view="Red", shift=False, release=True):
    """Presses the left button at the first RAS point, moves over the others and releases it.

    Args:
        points: RAS points in mm; the slice view is moved to the first one, as a person would.
        view: 'Red', 'Green' or 'Yellow'.
        shift: hold the shift key down.
        release: let the button go at the end.

    Raises:
        SlotError: what the stroke started raised an exception.
    """
    interactor = move(points[0], view, shift)
    interactor.InvokeEvent("LeftButtonPressEvent")
    for point in points:
        move(point, view, shift, scroll=False)
    if release:
        interactor.InvokeEvent("LeftButtonReleaseEvent")
    _raiseErrors()


def move(point, view="Red", shift=False, scroll=True):
    """Moves the mouse to a RAS point in a slice view, without a button. Returns the view's interactor."""
    widget = slicer.app.layoutManager().sliceWidget(view)
    node, interactor = widget.mrmlSliceNode(), widget.interactor()
    if scroll:
        node.JumpSliceByOffsetting(*point)
    toView = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(node.GetXYToRAS(), toView)
    x, y = toView.MultiplyPoint([*point, 1])[:2]
    interactor.SetEventInformation(round(x), round(y), 0, int(shift))
    interactor.InvokeEvent("MouseMoveEvent")
    return interactor


def key(name, view="Red", shift=False):
    """Presses a key while the mouse is over a view, such as 'plus'."""
    interactor = slicer.app.layoutManager().sliceWidget(view).interactor()
    interactor.SetKeyEventInformation(0, int(shift), "\0", 0, name)
    interactor.InvokeEvent("KeyPressEvent")
    _raiseErrors()


def wheel(forward=True, view="Red", shift=False):
    """Turns the mouse wheel by one step over a view."""
    interactor = slicer.app.layoutManager().sliceWidget(view).interactor()
    interactor.SetShiftKey(int(shift))
    interactor.InvokeEvent("MouseWheelForwardEvent" if forward else "MouseWheelBackwardEvent")
    _raiseErrors()
