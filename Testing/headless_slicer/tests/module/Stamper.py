"""Example of a hidden module that registers an effect of the Segment Editor, as Slicer's template does."""

import os

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule


class Stamper(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.hidden = True
        slicer.app.connect("startupCompleted()", self.registerEditorEffect)

    def registerEditorEffect(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        instance = effects.qSlicerSegmentEditorScriptedEffect(None)
        instance.setPythonSource(os.path.join(os.path.dirname(__file__), "StamperLib/SegmentEditorEffect.py"))
        instance.self().register()
