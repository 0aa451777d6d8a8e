import logging
import sys

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Logic.ParameterNode import ParameterNode, mendParameters
from ProSMASegmentationLib.Logic.SegmentationLogic import SegmentationLogic
from ProSMASegmentationLib.Panel.Panel import Panel
from ProSMASegmentationLib.Results.Terminology import Terminology
from ProSMASegmentationLib.Volumes.SampleVolumes import SampleVolumes


class ProSMASegmentation(ScriptedLoadableModule):
    """Registers the module with Slicer."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("ProSMA Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Terminologies", "Volumes", "Markups", "Sequences"]
        self.parent.contributors = ["The ProSMA contributors"]
        self.parent.helpText = _(
            "Segments a volume with one click, by a ProSMA-UNet that runs on this computer. Choose a volume and a model, "
            "and click Segment. The result is a segmentation with names, colours and standard terminology, which can be "
            "corrected in the Segment Editor; a later run never changes segments that were edited.<br>"
            'See the <a href="https://github.com/ProSMA/SlicerProSMA">documentation</a>.'
        )
        self.parent.acknowledgementText = _(
            "ProSMA-UNet passes on through its skip connections only those features that the decoder calls for, by a "
            "proximal, sparse gate. Each model's card names the data that it was trained on and how to cite them."
        )
        slicer.app.connect("startupCompleted()", registerAtStartup)


def registerAtStartup():
    """Add the bundled volumes to the Sample Data module, and the labels' terms to those that Slicer can choose from."""
    try:
        SampleVolumes.register()
        Terminology.register()
    except Exception:
        logging.exception("ProSMA: the sample volumes or the terms could not be registered")


class ProSMASegmentationWidget(ScriptedLoadableModuleWidget):
    """Loads the panel from its .ui file; ProSMASegmentationLib.Panel.Panel does the rest."""

    def __init__(self, parent=None):
        self.logic = None
        self.panel = None
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/ProSMASegmentation.ui"))
        self.layout.addWidget(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        self.logic = ProSMASegmentationLogic()
        self.panel = Panel(self.ui, self.logic)
        if self.parent.isEntered:  # after a reload
            self.panel.enter()

    def enter(self):
        self.panel.enter()

    def exit(self):
        self.panel.exit()

    def cleanup(self):
        if self.panel is not None:
            self.panel.cleanup()

    def onReload(self):
        """Read the library's files again too, not only this one."""
        kept = "ProSMASegmentationLib.Base.ProSMAError"  # open Segment Editors go on catching this class
        for name in [name for name in sys.modules if name.split(".")[0] == "ProSMASegmentationLib" and name != kept]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class ProSMASegmentationLogic(SegmentationLogic, ScriptedLoadableModuleLogic):
    """Scripting interface of the module, usable without its panel.

    >>> segmentationNode = ProSMASegmentationLogic().segment(volumeNode, model="hippocampus-mr")
    """

    def __init__(self, engine=None, library=None):
        ScriptedLoadableModuleLogic.__init__(self)
        SegmentationLogic.__init__(self, engine, library)
        self.parameterProblems = []

    def getParameterNode(self):
        """The choices of the scene. ``parameterProblems`` says which of them were no usable values and were replaced."""
        node = super().getParameterNode()
        self.parameterProblems = mendParameters(node)
        return ParameterNode(node)


class ProSMASegmentationTest(ScriptedLoadableModuleTest):
    """Runs in Slicer by Reload and Test."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        for test in (self.test_sampleIsSegmented, self.test_emptyVolumeIsRefused):
            self.setUp()
            test()

    def test_sampleIsSegmented(self):
        self.delayDisplay("Segmenting the sample volume")
        logic = ProSMASegmentationLogic()
        volumeNode = SampleVolumes.load("hippocampus-mr")
        try:
            segmentationNode = logic.segment(volumeNode, model="hippocampus-mr")
        except ProSMAError as error:
            if error.code != "no_torch":
                raise
            self.delayDisplay(f"Nothing was segmented. {error}")
            return
        segmentation = segmentationNode.GetSegmentation()
        self.assertEqual(segmentation.GetNumberOfSegments(), 2)
        for segmentId in segmentation.GetSegmentIDs():
            array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, segmentId, volumeNode)
            self.assertGreater(array.sum(), 500)
        self.delayDisplay("Test passed")

    def test_emptyVolumeIsRefused(self):
        self.delayDisplay("Segmenting an empty volume, which is refused")
        volumeNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        with self.assertRaises(ProSMAError):
            ProSMASegmentationLogic().segment(volumeNode)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)
        self.delayDisplay("Test passed")
