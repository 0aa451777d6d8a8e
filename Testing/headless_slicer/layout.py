"""The layout manager: real slice and 3D view nodes with their logics. `views` draws them."""

import slicer
import vtk

SLICES = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
COLORS = {"Red": (0.953, 0.290, 0.200), "Green": (0.431, 0.690, 0.294), "Yellow": (0.929, 0.835, 0.298)}


class ViewWidget:
    """A view as the Segment Editor's effects see it: a VTK interactor that sends events, and actors that they add.

    The interactor is real but has no window, so its events come from whoever invokes them (`headless_slicer.strokes`).
    """

    def __init__(self):
        self._interactor, self.actors = vtk.vtkGenericRenderWindowInteractor(), []
        self.cursor = None

    def className(self):
        return f"qMRML{type(self).__name__}"

    def interactor(self):
        return self._interactor

    def setDefaultViewCursor(self, cursor):
        self.cursor = cursor

    def forceRender(self):
        """`views` draws when a picture is asked for."""

    scheduleRender = forceRender


class SliceWidget(ViewWidget):
    """One slice view: its node and its logic."""

    def __init__(self, name, scene, logic):
        super().__init__()
        self.name, self._logic = name, slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(logic)
        self._logic.SetMRMLScene(scene)
        node = self._logic.AddSliceNode(name)
        node.SetOrientation(SLICES[name])
        node.SetLayoutColor(*COLORS[name])
        self._logic.GetSliceCompositeNode().SetLinkedControl(1)

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()

    def sliceController(self):
        return self

    def sliceView(self):
        return self

    def setSliceOffsetValue(self, offset):
        self._logic.SetSliceOffset(offset)

    def fitSliceToBackground(self):
        self._logic.FitSliceToBackground()
        self.mrmlSliceNode().UpdateMatrices()


class ThreeDWidget(ViewWidget):
    """The 3D view: its node and its logic."""

    def __init__(self, scene, logic):
        super().__init__()
        self._logic = slicer.vtkMRMLViewLogic()
        self._logic.SetMRMLApplicationLogic(logic)
        self._logic.SetMRMLScene(scene)
        self._node = self._logic.AddViewNode("1")

    def threeDView(self):
        return self

    def mrmlViewNode(self):
        return self._node

    def viewLogic(self):
        return self._logic

    def resetFocalPoint(self):
        """`views` frames the surfaces each time it draws."""

    resetCamera = resetFocalPoint


class LayoutManager:
    """`slicer.app.layoutManager()`."""

    def __init__(self, scene, logic):
        self._slices = {name: SliceWidget(name, scene, logic) for name in SLICES}
        self._threeD = ThreeDWidget(scene, logic)
        self._logics = vtk.vtkCollection()
        for each in self._slices.values():
            self._logics.AddItem(each.sliceLogic())
            logic.GetSliceLogics().AddItem(each.sliceLogic())
        logic.GetViewLogics().AddItem(self._threeD.viewLogic())
        self.layout = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView

    def sliceViewNames(self):
        return tuple(self._slices)

    def sliceWidget(self, name):
        return self._slices.get(name)

    def mrmlSliceLogics(self):
        return self._logics

    threeDViewCount, tableViewCount, plotViewCount = 1, 0, 0

    def threeDWidget(self, index):
        return self._threeD

    def setLayout(self, layout):
        self.layout = layout

    def resetSliceViews(self):
        for each in self._slices.values():
            each.fitSliceToBackground()

    def resetThreeDViews(self):
        self._threeD.resetFocalPoint()

    def close(self):
        for each in [*self._slices.values()]:
            each.sliceLogic().SetMRMLScene(None)
        self._threeD.viewLogic().SetMRMLScene(None)
