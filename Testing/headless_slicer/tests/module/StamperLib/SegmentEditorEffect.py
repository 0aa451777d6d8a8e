import qt
import slicer
import vtk
from SegmentEditorEffects import *  # noqa: F403 (as effects do)
from vtk.util.numpy_support import vtk_to_numpy


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):  # noqa: F405
    """Stamps a cube of `Size` voxels where the left button is pressed; with the shift key it erases one."""

    def __init__(self, scriptedEffect):
        scriptedEffect.name = "Stamp"
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)  # noqa: F405
        self.seen = []

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(__file__)
        return clonedEffect

    def setupOptionsFrame(self):
        self.sizeBox = qt.QSpinBox()
        self.sizeBox.connect("valueChanged(int)", self.updateMRMLFromGUI)
        self.scriptedEffect.addLabeledOptionsWidget("Size:", self.sizeBox)

    def setMRMLDefaults(self):
        self.scriptedEffect.setParameterDefault("Size", 6)

    def updateGUIFromMRML(self):
        self.sizeBox.value = self.scriptedEffect.integerParameter("Size")

    def updateMRMLFromGUI(self):
        self.scriptedEffect.setParameter("Size", self.sizeBox.value)

    def activate(self):
        self.seen.append("activate")

    def deactivate(self):
        self.seen.append("deactivate")

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget):
        if eventId != vtk.vtkCommand.LeftButtonPressEvent:
            return False
        self.scriptedEffect.saveStateForUndo()
        labelmap = self.scriptedEffect.defaultModifierLabelmap()
        position = [*callerInteractor.GetEventPosition(), 0, 1]
        world = self.scriptedEffect.viewNode(viewWidget).GetXYToRAS().MultiplyPoint(position)
        toImage = vtk.vtkMatrix4x4()
        labelmap.GetWorldToImageMatrix(toImage)
        i, j, k = (round(number) for number in toImage.MultiplyPoint(world)[:3])
        half = self.scriptedEffect.integerParameter("Size") // 2
        voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
        voxels[k - half : k + half, j - half : j + half, i - half : i + half] = 1
        modes = slicer.qSlicerSegmentEditorAbstractEffect
        mode = modes.ModificationModeRemove if callerInteractor.GetShiftKey() else modes.ModificationModeAdd
        self.scriptedEffect.modifySelectedSegmentByLabelmap(labelmap, mode)
        return True
