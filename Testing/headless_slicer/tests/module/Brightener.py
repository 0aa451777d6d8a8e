"""A small scripted module, written as Slicer's template writes them; the tests click through it."""

import enum
import os
import sys
from typing import Annotated, Optional

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper, parameterPack
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class Brightener(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Brightener")
        self.parent.categories = ["Examples"]
        self.parent.helpText = _("Adds a number to a volume.") + self.getDefaultModuleDocumentationLink()
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    import SampleData

    folder = os.path.join(slicer.app.temporaryPath, "samples")
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="Brightener",
        sampleName="Ramp",
        uris="file://" + os.path.join(folder, "ramp.nrrd"),
        fileNames="ramp.nrrd",
        nodeNames="Ramp",
    )


class Mode(enum.Enum):
    ADD = "add"
    SUBTRACT = "subtract"

    def label(self):
        return self.value.capitalize()


@parameterPack
class Limits:
    low: float = -1000.0
    high: float = 1000.0


@parameterNodeWrapper
class BrightenerParameterNode:
    inputVolume: vtkMRMLScalarVolumeNode
    outputVolume: vtkMRMLScalarVolumeNode
    amount: Annotated[float, WithinRange(-100, 200), Default(100)]
    invert: bool = False
    repeat: Annotated[int, WithinRange(1, 9)] = 1
    mode: Mode
    quality: Annotated[str, Choice(["draft", "fine"])] = "draft"
    comment: str
    limits: Limits
    names: list[str]
    note: Optional[str] = None  # noqa: UP045 (Slicer takes Optional, not the bar)


class BrightenerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self.process = None
        self.lines = []

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/Brightener.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = BrightenerLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.processButton.connect("clicked()", self.onProcessButton)
        self.initializeParameterNode()

    def cleanup(self):
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if first:
                self._parameterNode.inputVolume = first

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
            self._checkCanApply()

    def _checkCanApply(self, caller=None, event=None):
        ready = self._parameterNode and self._parameterNode.inputVolume and self._parameterNode.outputVolume
        self.ui.applyButton.enabled = bool(ready)
        self.ui.applyButton.toolTip = _("Compute") if ready else _("Select input and output")

    def onApplyButton(self):
        with slicer.util.tryWithErrorDisplay(_("Failed to compute results."), waitCursor=True):
            self.logic.process(self._parameterNode)

    def onProcessButton(self):
        self.process = qt.QProcess()
        self.process.connect("readyReadStandardOutput()", self.onOutput)
        self.process.connect("finished(int,QProcess::ExitStatus)", self.onFinished)
        self.process.start(sys.executable, ["-c", "for i in range(3): print('line', i, flush=True)"])

    def onOutput(self):
        self.lines += bytes(self.process.readAllStandardOutput().data()).decode().splitlines()

    def onFinished(self, exitCode, exitStatus):
        ok = exitCode == 0 and exitStatus == qt.QProcess.NormalExit
        self.ui.statusLabel.text = "finished" if ok else "failed"


class BrightenerLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return BrightenerParameterNode(super().getParameterNode())

    def process(self, parameters):
        if parameters.amount == 0:
            raise ValueError("There is nothing to add")
        sign = -1 if parameters.mode is Mode.SUBTRACT else 1
        array = slicer.util.arrayFromVolume(parameters.inputVolume) + sign * parameters.amount * parameters.repeat
        slicer.util.updateVolumeFromArray(parameters.outputVolume, -array if parameters.invert else array)


class BrightenerTest(ScriptedLoadableModuleTest):
    fails = False

    def runTest(self):
        slicer.mrmlScene.Clear()
        self.test_Brightener()

    def test_Brightener(self):
        import numpy as np

        self.delayDisplay("Starting the test")
        parameters = BrightenerLogic().getParameterNode()
        parameters.inputVolume = slicer.util.addVolumeFromArray(np.zeros((2, 3, 4)))
        parameters.outputVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        BrightenerLogic().process(parameters)
        expected = -1 if self.fails else 100
        self.assertEqual(slicer.util.arrayFromVolume(parameters.outputVolume).max(), expected)
