import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Panel.PanelText import ERROR, NORMAL, showText
from ProSMASegmentationLib.Results.SegmentEditors import SegmentEditors
from ProSMASegmentationLib.Results.SegmentStatus import isLocked, setLocked

SHARED_NODE = "SegmentEditor"  # singleton tag of the node that the application's Segment Editor uses
STROKES = "ProSMA Strokes"


class EditorSection:
    """The Segment Editor in the panel's section Correct, with a button for strokes and the lock of the chosen segment.

    While the panel is shown and has a segmentation, the editor works on the node of the application's own Segment Editor.
    At other times it holds a node of nobody: editors that share a node also activate their effects together, hidden or
    not, and the undo step would land in the wrong one. For the same reason the application's editor waits meanwhile.
    Its keys work, and an effect is active, only while it is in sight: a key or a drag must not paint by surprise.

    :param ui: the panel's widgets (segmentEditor, strokesButton, lockCheckBox, correctLabel).
    """

    def __init__(self, ui):
        self._ui = ui
        self._editor = ui.segmentEditor
        self._idleNode = slicer.vtkMRMLSegmentEditorNode()
        self._bound = False
        self._isShown = False
        self._updating = False
        self._nodeTag = None
        self._editor.setMRMLSegmentEditorNode(self._idleNode)
        self._editor.setMRMLScene(slicer.mrmlScene)
        self._factory = slicer.qSlicerSegmentEditorEffectFactory.instance()
        self._factory.connect("effectRegistered(QString)", self._onEffectRegistered)
        ui.strokesButton.connect("toggled(bool)", self._onStrokes)
        ui.lockCheckBox.connect("toggled(bool)", self._onLock)
        self._update()

    # ---- life

    def show(self, segmentationNode, volumeNode):
        """Correct this segmentation of this volume, or nothing for None."""
        if segmentationNode is None or segmentationNode.GetScene() is None:
            self.release()
            return
        if not self._bound:
            self._bind()
        if self._editor.mrmlSegmentEditorNode().GetSegmentationNode() is not segmentationNode:
            self._editor.setSegmentationNode(segmentationNode)
        if volumeNode is not None and self._editor.sourceVolumeNode() is not volumeNode:
            self._editor.setSourceVolumeNode(volumeNode)
        self._update()

    def chooseStrokes(self, chosen=True, segmentId=None):
        """Choose the effect ProSMA Strokes, or none; with it another segment, if its id is given."""
        if segmentId is not None:
            self._editor.setCurrentSegmentID(segmentId)
        self._editor.setActiveEffectByName(STROKES if chosen else "")
        self._update()

    def setShown(self, shown):
        """Whether the editor is in sight."""
        self._isShown = shown
        if not self._bound:
            return
        if shown:
            self._editor.installKeyboardShortcuts()
        else:
            self._editor.setActiveEffect(None)
            self._editor.uninstallKeyboardShortcuts()
        self._update()

    def release(self):
        """The panel is left or has nothing to correct: give the shared node back."""
        if not self._bound:
            return
        shared = self._editor.mrmlSegmentEditorNode()
        shared.RemoveObserver(self._nodeTag)
        self._bound = False
        self._editor.setActiveEffect(None)
        self._editor.uninstallKeyboardShortcuts()
        self._editor.removeViewObservations()
        self._editor.setMRMLSegmentEditorNode(self._idleNode)
        for editor in self._otherEditors():
            if editor.mrmlSegmentEditorNode() is self._idleNode:
                editor.setMRMLSegmentEditorNode(shared)
        self._update()

    def cleanup(self):
        self.release()
        self._factory.disconnect("effectRegistered(QString)", self._onEffectRegistered)

    def _bind(self):
        shared = _sharedNode()
        for editor in self._otherEditors():
            if editor.mrmlSegmentEditorNode() is shared:
                editor.setActiveEffect(None)
                editor.setMRMLSegmentEditorNode(self._idleNode)
        self._editor.setMRMLSegmentEditorNode(shared)
        if self._isShown:
            self._editor.installKeyboardShortcuts()
        self._nodeTag = shared.AddObserver("ModifiedEvent", self._onEditorChanged)
        self._bound = True

    def _otherEditors(self):
        """The application's editors, and those of other modules."""
        return [editor for editor in SegmentEditors.all() if editor != self._editor]

    def _onEffectRegistered(self, _name):
        self._editor.updateEffectList()

    # ---- what the person sees and does

    def _onEditorChanged(self, _caller, _event):
        self._update()

    def _segment(self):
        """The segment that is selected in the editor, or None."""
        node = self._editor.mrmlSegmentEditorNode().GetSegmentationNode() if self._bound else None
        segmentId = self._editor.currentSegmentID() if node is not None else ""
        return node.GetSegmentation().GetSegment(segmentId) if segmentId else None

    def _update(self):
        segment = self._segment()
        effect = self._editor.mrmlSegmentEditorNode().GetActiveEffectName() if self._bound else ""
        self._updating = True
        self._ui.strokesButton.enabled = self._bound
        self._ui.strokesButton.checked = effect == STROKES
        self._ui.lockCheckBox.enabled = segment is not None
        self._ui.lockCheckBox.checked = segment is not None and isLocked(segment)
        self._updating = False
        self._editor.enabled = self._bound
        self._editor.setVisible(self._bound)
        if not self._bound:
            showText(
                self._ui.correctLabel, _("Segment a volume, or choose a segmentation, to correct it here."), NORMAL
            )
        elif self._editor.sourceVolumeNode() is None:
            showText(self._ui.correctLabel, _("The segmentation's volume is missing. Choose a volume above."), ERROR)
        else:
            showText(self._ui.correctLabel, "")

    def _onStrokes(self, checked):
        if not self._updating:
            self.chooseStrokes(checked)

    def _onLock(self, checked):
        segment = self._segment()
        if self._updating or segment is None:
            return
        setLocked(segment, checked)
        self._update()


def _sharedNode():
    """The application's node for the Segment Editor; made if the scene has none yet."""
    node = slicer.mrmlScene.GetSingletonNode(SHARED_NODE, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(SHARED_NODE)
        node = slicer.mrmlScene.AddNode(node)
    return node
