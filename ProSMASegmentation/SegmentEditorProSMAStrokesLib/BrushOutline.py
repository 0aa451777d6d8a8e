import vtk

BELONGS, EXCLUDED = (0.2, 0.85, 0.3), (0.95, 0.25, 0.2)
SIDES = 48


class BrushOutline:
    """The brush in one slice view: its circle under the mouse, and the stroke that is being drawn.

    :param effect: what C++ gives to the effect. :param viewWidget: the slice view.
    """

    def __init__(self, effect, viewWidget):
        self._effect, self._view = effect, viewWidget
        self._circle = vtk.vtkRegularPolygonSource()
        self._circle.SetNumberOfSides(SIDES)
        self._circle.GeneratePolygonOff()
        self._disc = vtk.vtkRegularPolygonSource()
        self._disc.SetNumberOfSides(SIDES)
        self._track = vtk.vtkPolyData()
        self._track.SetPoints(vtk.vtkPoints())
        glyphs = vtk.vtkGlyph3D()
        glyphs.SetInputData(self._track)
        glyphs.SetSourceConnection(self._disc.GetOutputPort())
        self._actors = [self._add(glyphs, 0.35), self._add(self._circle, 1.0)]

    def _add(self, source, opacity):
        mapper, actor = vtk.vtkPolyDataMapper2D(), vtk.vtkActor2D()
        mapper.SetInputConnection(source.GetOutputPort())
        actor.SetMapper(mapper)
        actor.GetProperty().SetOpacity(opacity)
        actor.VisibilityOff()
        self._effect.addActor2D(self._view, actor)
        return actor

    def show(self, position, radius, belongs, drawing):
        """Show the brush.

        :param position: x, y in the view. :param radius: in mm. :param belongs: the kind of stroke.
        :param drawing: whether the stroke goes on; then its way is kept.
        """
        pixels = radius / millimetresPerPixel(self._effect.viewNode(self._view))
        self._circle.SetRadius(pixels)
        self._circle.SetCenter(position[0], position[1], 0)
        self._disc.SetRadius(pixels)
        points = self._track.GetPoints()
        if not drawing:
            points.Reset()
        else:
            points.InsertNextPoint(position[0], position[1], 0)
        points.Modified()
        self._track.Modified()
        for actor in self._actors:
            actor.GetProperty().SetColor(BELONGS if belongs else EXCLUDED)
            actor.VisibilityOn()
        self._effect.scheduleRender(self._view)

    def hide(self):
        for actor in self._actors:
            actor.VisibilityOff()
        self._effect.scheduleRender(self._view)

    def remove(self):
        for actor in self._actors:
            self._effect.removeActor2D(self._view, actor)


def millimetresPerPixel(sliceNode):
    """Size of a slice view's pixel."""
    matrix = sliceNode.GetXYToRAS()
    return sum(matrix.GetElement(row, 0) ** 2 for row in range(3)) ** 0.5
