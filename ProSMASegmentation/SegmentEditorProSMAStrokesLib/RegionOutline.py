import vtk

from SegmentEditorProSMAStrokesLib.BrushOutline import BELONGS


class RegionOutline:
    """The box or lasso that is being drawn in one slice view.

    :param effect: what C++ gives to the effect. :param viewWidget: the slice view.
    """

    def __init__(self, effect, viewWidget):
        self._effect, self._view = effect, viewWidget
        self._line = vtk.vtkPolyData()
        mapper = vtk.vtkPolyDataMapper2D()
        mapper.SetInputData(self._line)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(mapper)
        self._actor.GetProperty().SetColor(BELONGS)
        self._actor.GetProperty().SetLineWidth(2)
        self._actor.VisibilityOff()
        effect.addActor2D(viewWidget, self._actor)

    def show(self, corners):
        """Show the closed line through points x, y of the view."""
        points, lines = vtk.vtkPoints(), vtk.vtkCellArray()
        lines.InsertNextCell(len(corners) + 1)
        for corner in corners:
            points.InsertNextPoint(corner[0], corner[1], 0)
        for number in [*range(len(corners)), 0]:
            lines.InsertCellPoint(number)
        self._line.SetPoints(points)
        self._line.SetLines(lines)
        self._line.Modified()
        self._actor.VisibilityOn()
        self._effect.scheduleRender(self._view)

    def hide(self):
        self._actor.VisibilityOff()
        self._effect.scheduleRender(self._view)

    def remove(self):
        self._effect.removeActor2D(self._view, self._actor)
