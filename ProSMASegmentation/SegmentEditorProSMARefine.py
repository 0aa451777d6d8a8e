import os

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule


class SegmentEditorProSMARefine(ScriptedLoadableModule):
    """A hidden module: it registers the effect "ProSMA Refine" with every Segment Editor."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "SegmentEditorProSMARefine"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations"]
        self.parent.contributors = ["The ProSMA contributors"]
        self.parent.hidden = True
        self.parent.helpText = _("This hidden module registers the effect 'ProSMA Refine' with the Segment Editor.")
        self.parent.acknowledgementText = _("Part of the extension ProSMA.")
        slicer.app.connect("startupCompleted()", registerEffect)


def registerEffect():
    """Add the effect to the Segment Editor's effects."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    # As a package in sys.modules, where Slicer looks first: loaded from its file alone it could not import its siblings.
    import SegmentEditorProSMARefineLib

    folder = os.path.dirname(SegmentEditorProSMARefineLib.__file__)
    effect = effects.qSlicerSegmentEditorScriptedEffect(None)
    effect.setPythonSource(os.path.join(folder, "SegmentEditorEffect.py").replace("\\", "/"))
    effect.self().register()
