import os

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest


class SegmentEditorProSMAStrokes(ScriptedLoadableModule):
    """A hidden module: it registers the effect "ProSMA Strokes" with every Segment Editor."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "SegmentEditorProSMAStrokes"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "SegmentEditor"]
        self.parent.contributors = ["The ProSMA contributors"]
        self.parent.hidden = True
        self.parent.helpText = _("This hidden module registers the effect 'ProSMA Strokes' with the Segment Editor.")
        self.parent.acknowledgementText = _("Part of the extension ProSMA.")
        slicer.app.connect("startupCompleted()", registerEffect)


def registerEffect():
    """Add the effect to the Segment Editor's effects."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    # As a package in sys.modules, where Slicer looks first: loaded from its file alone it could not import its siblings.
    import SegmentEditorProSMAStrokesLib

    folder = os.path.dirname(SegmentEditorProSMAStrokesLib.__file__)
    effect = effects.qSlicerSegmentEditorScriptedEffect(None)
    effect.setPythonSource(os.path.join(folder, "SegmentEditorEffect.py").replace("\\", "/"))
    effect.self().register()


class SegmentEditorProSMAStrokesTest(ScriptedLoadableModuleTest):
    """Runs in Slicer by the module Self Tests, or by Reload and Test in developer mode."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_aStrokeAddsWhatTheSegmentLacks()

    def test_aStrokeAddsWhatTheSegmentLacks(self):
        self.delayDisplay("Refining a segment that lacks the top of a bright ball")
        import numpy

        from ProSMASegmentationLib.Base.EventLoopTask import waitFor

        k, j, i = numpy.indices((26, 28, 30))
        ball = (i - 15) ** 2 + (j - 14) ** 2 + (k - 13) ** 2 <= 64
        image = (100 + 200 * ball + numpy.random.default_rng(0).normal(0, 8, ball.shape)).astype(numpy.int16)
        volumeNode = slicer.util.addVolumeFromArray(image, name="Ball")
        segmentationNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        segmentationNode.CreateDefaultDisplayNodes()
        segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        segmentId = segmentationNode.GetSegmentation().AddEmptySegment("Ball")
        before = ball & (k <= 16)
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            before.astype(numpy.uint8), segmentationNode, segmentId, volumeNode
        )

        editor = slicer.qMRMLSegmentEditorWidget()
        editor.setMRMLScene(slicer.mrmlScene)
        editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
        editor.setSegmentationNode(segmentationNode)
        editor.setSourceVolumeNode(volumeNode)
        editor.setCurrentSegmentID(segmentId)
        editor.setActiveEffectByName("ProSMA Strokes")
        self.assertIsNotNone(editor.activeEffect())
        effect = editor.activeEffect().self()
        effect.stroke([(15, 14, 18), (17, 14, 18)], belongs=True)
        waitFor(lambda: not effect.isBusy)
        effect.onApply()
        after = slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, segmentId, volumeNode) > 0
        editor.setActiveEffect(None)
        self.assertTrue(after[18, 14, 15:18].all())
        self.assertGreater(numpy.count_nonzero(after & ball), numpy.count_nonzero(before) + 50)
        self.assertLess(numpy.count_nonzero(after & ~ball), numpy.count_nonzero(ball) // 10)
        self.delayDisplay("Test passed")
