"""Stand-in for qMRMLSegmentEditorWidget: the segment list, effects, masking and undo on the real vtkSlicerSegmentEditorLogic.

The names of its parts are those of Slicer's .ui file. Modelled on qMRMLSegmentEditorWidget.cxx.
"""

import slicer
import vtk

from . import ctk
from .ctk import declare
from .editor_views import ViewsAndKeys
from .effects import qSlicerSegmentEditorEffectFactory
from .masking import MaskingSection, named
from .pythonqt import QtCore, QtGui, QtWidgets
from .qmrml import (
    observe,
    qMRMLNodeComboBox,
    qMRMLSegmentationShow3DButton,
    qMRMLSegmentsTableView,
    qMRMLWidget,
)
from .uiloader import customWidget

Signal, Qt = QtCore.Signal, QtCore.Qt
NULL_EFFECT = "NULL"


@customWidget
class qMRMLSegmentEditorWidget(ViewsAndKeys, qMRMLWidget):
    """The Segment Editor. Its state is in a vtkMRMLSegmentEditorNode, which several editors may share."""

    segmentationNodeChanged = Signal(object)
    sourceVolumeNodeChanged = Signal(object)
    currentSegmentIDChanged = Signal(str)
    vtkSignals = {  # noqa: RUF012 (read only)
        **qMRMLWidget.vtkSignals,
        "segmentationNodeChanged(vtkMRMLSegmentationNode*)": "segmentationNodeChanged",
        "sourceVolumeNodeChanged(vtkMRMLVolumeNode*)": "sourceVolumeNodeChanged",
    }

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node = self._segmentation = self._volume = self._activeEffect = self._lastEffect = None
        self._nodeTags, self._segmentationTag, self._viewTags, self._sceneTags = [], None, [], []
        self._effects, self._shortcuts, self._effectOrder = [], [], ()
        self._updating = False
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        observe(self._logic, self._logic.SegmentationHistoryChangedEvent, self, "_updateUndoButtons")
        self._makeParts()
        self.updateEffectList()

    maximumNumberOfUndoStates, setMaximumNumberOfUndoStates = declare(
        int, "maximumNumberOfUndoStates", 10, changed="_limit"
    )
    unorderedEffectsVisible, setUnorderedEffectsVisible = declare(
        bool, "unorderedEffectsVisible", True, changed="updateEffectList"
    )
    switchToSegmentationsButtonVisible, setSwitchToSegmentationsButtonVisible = declare(
        bool, "switchToSegmentationsButtonVisible", True
    )
    segmentationNodeSelectorVisible, setSegmentationNodeSelectorVisible = declare(
        bool, "segmentationNodeSelectorVisible", True, changed="_showParts"
    )
    sourceVolumeNodeSelectorVisible, setSourceVolumeNodeSelectorVisible = declare(
        bool, "sourceVolumeNodeSelectorVisible", True, changed="_showParts"
    )
    maskingSectionVisible, setMaskingSectionVisible = declare(bool, "maskingSectionVisible", True, changed="_showParts")
    addRemoveSegmentButtonsVisible, setAddRemoveSegmentButtonsVisible = declare(
        bool, "addRemoveSegmentButtonsVisible", True
    )
    show3DButtonVisible, setShow3DButtonVisible = declare(bool, "show3DButtonVisible", True, changed="_showParts")
    specifyGeometryButtonVisible, setSpecifyGeometryButtonVisible = declare(bool, "specifyGeometryButtonVisible", True)
    autoShowSourceVolumeNode, setAutoShowSourceVolumeNode = declare(bool, "autoShowSourceVolumeNode", True)
    effectColumnCount, setEffectColumnCount = declare(int, "effectColumnCount", 2, changed="updateEffectList")
    readOnly, setReadOnly = declare(bool, "readOnly", False, changed="updateWidgetFromMRML")

    # ---- parts

    def _makeParts(self):
        self._segmentationBox = named(qMRMLNodeComboBox(), "SegmentationNodeComboBox")
        self._segmentationBox.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._volumeBox = named(qMRMLNodeComboBox(), "SourceVolumeNodeComboBox")
        self._volumeBox.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self._volumeBox.noneEnabled, self._volumeBox.addEnabled = True, False
        self._add = named(QtWidgets.QPushButton("Add"), "AddSegmentButton")
        self._remove = named(QtWidgets.QPushButton("Remove"), "RemoveSegmentButton")
        self._show3D = named(qMRMLSegmentationShow3DButton(), "Show3DButton")
        self._table = named(qMRMLSegmentsTableView(), "SegmentsTableView")
        self._table.setMaximumHeight(110)
        self._effectButtons = named(QtWidgets.QFrame(), "EffectsGroupBox")
        QtWidgets.QGridLayout(self._effectButtons)
        self._undo = named(QtWidgets.QToolButton(), "UndoButton")
        self._redo = named(QtWidgets.QToolButton(), "RedoButton")
        self._undo.text, self._redo.text = "Undo", "Redo"
        self._options = named(QtWidgets.QGroupBox(), "OptionsGroupBox")
        self._help = named(QtWidgets.QLabel(), "EffectHelpBrowser")
        self._help.setWordWrap(True)
        self._optionFrames = named(QtWidgets.QFrame(), "EffectsOptionsFrame")
        QtWidgets.QVBoxLayout(self._optionFrames).setContentsMargins(0, 0, 0, 0)
        options = QtWidgets.QVBoxLayout(self._options)
        options.addWidget(self._help)
        options.addWidget(self._optionFrames)
        self._masking = named(MaskingSection(), "MaskingGroupBox")
        buttons, history = QtWidgets.QWidget(), QtWidgets.QWidget()
        ctk.inRow(buttons, self._add, self._remove, self._show3D)
        ctk.inRow(history, self._undo, self._redo)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self._segmentationBox, self._volumeBox, buttons, self._table, self._effectButtons, history):
            column.addWidget(part)
        column.addWidget(self._options)
        column.addWidget(self._masking)
        self._options.hide()
        self._masking.hide()
        self._segmentationBox.connect("currentNodeChanged(vtkMRMLNode*)", self._segmentationChosen)
        self._volumeBox.connect("currentNodeChanged(vtkMRMLNode*)", self._volumeChosen)
        self._table.connect("selectionChanged(QItemSelection,QItemSelection)", self._segmentChosen)
        self._add.connect("clicked()", self._addSegment)
        self._remove.connect("clicked()", self._removeSegment)
        self._undo.connect("clicked()", self.undo)
        self._redo.connect("clicked()", self.redo)

    def _showParts(self):
        self._segmentationBox.setVisible(self.segmentationNodeSelectorVisible)
        self._volumeBox.setVisible(self.sourceVolumeNodeSelectorVisible)
        self._show3D.setVisible(self.show3DButtonVisible)
        self._masking.setVisible(self.maskingSectionVisible and self._activeEffect is not None)

    def _limit(self):
        self._logic.SetMaximumNumberOfUndoStates(self.maximumNumberOfUndoStates)

    # ---- scene and node

    def setMRMLScene(self, scene):
        if scene is self._scene:
            return
        for box in (self._segmentationBox, self._volumeBox):
            box.blockSignals(True)
            box.setMRMLScene(scene)
            box.blockSignals(False)
        super().setMRMLScene(scene)
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._logic.SetMRMLScene(scene)
        self._logic.SetVerbose(True)
        self.updateWidgetFromMRML()
        if scene:
            observe(scene, scene.EndCloseEvent, self, "_sceneClosed")
            observe(scene, scene.EndBatchProcessEvent, self, "_batchProcessed")

    def _sceneClosed(self):
        self._initializeNode()
        self.updateWidgetFromMRML()

    def _batchProcessed(self):
        if self._node:
            self.setSegmentationNode(self._segmentationBox.currentNode())
            self.setSourceVolumeNode(self._volumeBox.currentNode())
        self.updateWidgetFromMRML()

    def mrmlSegmentEditorNode(self):
        return self._node

    def setMRMLSegmentEditorNode(self, node):
        if node is self._node:
            return
        for tag in self._nodeTags:
            self._node.RemoveObserver(tag)
        self._node, self._nodeTags = node, []
        self._logic.SetSegmentEditorNode(node)
        if node is None:
            return
        self._nodeTags = [
            observe(node, vtk.vtkCommand.ModifiedEvent, self, "updateWidgetFromMRML"),
            observe(node, node.EffectParameterModified, self, "_parametersChanged"),
        ]
        self._initializeNode()
        self.updateWidgetFromMRML()

    def _initializeNode(self):
        if self._node is None:
            return
        was = self._node.StartModify()
        for effect in self._effects:
            effect.setParameterSetNode(self._node)
            effect.setMRMLDefaults()
        self._node.EndModify(was)

    def _parametersChanged(self):
        for effect in self._effects:
            effect.updateGUIFromMRML()

    # ---- what the node says

    def updateWidgetFromMRML(self):
        if not self._scene or self._scene.IsClosing() or self._scene.IsBatchProcessing() or self._updating:
            return
        chosen = self._node is not None and self._segmentation is not None
        if self._node is None:
            self._enable(False)
            return
        self._updating = True  # stands for blocked events of the node; another round comes if it changed meanwhile
        before = self._node.GetMTime()
        try:
            self._followSegmentation()
            self._followVolume()
            chosen = self._segmentation is not None
            self._enable(chosen)
            self._segmentationBox.setEnabled(True)
            self._add.setEnabled(self._logic.CanAddSegments())
            selected = self._node.GetSelectedSegmentID() or ""
            known = chosen and self._segmentation.GetSegmentation().GetSegmentIndex(selected) >= 0
            self._remove.setEnabled(bool(known) and not self.readOnly)
            self._table.setSelectedSegmentIDs([selected] if known else [])
            self._followEffect()
            self._updateUndoButtons()
            self._masking.show(self._node)
        finally:
            self._updating = False
        if self._node and self._node.GetMTime() != before:
            self.updateWidgetFromMRML()

    def _enable(self, enabled):
        for part in (self._segmentationBox, self._volumeBox, self._effectButtons, self._optionFrames, self._masking):
            part.setEnabled(enabled)

    def _followSegmentation(self):
        node = self._node.GetSegmentationNode()
        self._segmentationBox.blockSignals(True)
        self._segmentationBox.setCurrentNode(node)
        self._segmentationBox.blockSignals(False)
        if node is self._segmentation:
            return
        if self._segmentation is not None:
            self._segmentation.RemoveObserver(self._segmentationTag)
        self._segmentation = node
        self._table.blockSignals(True)
        self._table.setSegmentationNode(node)
        self._table.blockSignals(False)
        self._show3D.setSegmentationNode(node)
        if node is not None:
            self._segmentationTag = observe(node, vtk.vtkCommand.AnyEvent, self, "_segmentationChanged")
            self._node.SetAndObserveSourceVolumeNode(
                node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
            )
            node.CreateDefaultDisplayNodes()
            segmentIDs = node.GetSegmentation().GetSegmentIDs()
            if segmentIDs:
                self._node.SetSelectedSegmentID(segmentIDs[0])
        self.segmentationNodeChanged.emit(node)

    def _segmentationChanged(self):
        self.updateWidgetFromMRML()

    def _followVolume(self):
        volume = self._logic.GetSourceVolumeNode()
        if self._segmentation is None or volume is self._volume:
            return
        self._volume = volume
        self._volumeBox.blockSignals(True)
        self._volumeBox.setCurrentNode(volume)
        self._volumeBox.blockSignals(False)
        if volume is not None and self.autoShowSourceVolumeNode:
            self._showVolume(volume)
        self.sourceVolumeNodeChanged.emit(volume)
        for effect in self._effects:
            effect.sourceVolumeNodeChanged()

    def _showVolume(self, volume):
        layout = slicer.app.layoutManager()
        for name in layout.sliceViewNames():
            composite = layout.sliceWidget(name).mrmlSliceCompositeNode()
            if volume.GetID() not in (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()):
                composite.SetBackgroundVolumeID(volume.GetID())

    def _followEffect(self):
        enabled = self._node.GetSourceVolumeNode() is not None and not self.readOnly
        self._effectButtons.setEnabled(enabled)
        self._options.setEnabled(enabled)
        node, segmentID = self._node.GetSegmentationNode(), self._node.GetSelectedSegmentID()
        some = node is not None and node.GetSegmentation().GetNumberOfSegments() > 0
        for effect in self._effects:
            usable = not effect.requireSegments or (some and (bool(segmentID) or not effect.perSegment))
            self._button(effect.name).setEnabled(bool(usable))
        wanted = self.effectByName(self._node.GetActiveEffectName() or "")
        if wanted is not self._activeEffect:
            self._switchEffect(wanted)

    def _switchEffect(self, effect):
        if self._activeEffect:
            self._activeEffect.deactivate()
        if effect and not self._makeBinaryLabelmap():
            effect = None
        if effect:
            self.setupViewObservations()
            effect.activate()
            self._options.show()
            self._options.title = effect.title or effect.name
            self._help.text = effect.helpText()
        else:
            self._options.hide()
            self.removeViewObservations()
        for button in self._buttons():
            button.setChecked(button.name == (effect.name if effect else NULL_EFFECT))
        self._lastEffect, self._activeEffect = self._activeEffect, effect
        self._showParts()

    def _makeBinaryLabelmap(self):
        if self._logic.CanTriviallyConvertSourceRepresentationToBinaryLabelMap():
            return self._logic.TrivialSetSourceRepresentationToBinaryLabelmap()
        if self._segmentation is None:
            return False
        answer = QtWidgets.QMessageBox.question(
            None,
            "Change source representation to binary labelmap?",
            "Editing requires binary labelmap source representation.\n\nChange source representation to binary labelmap?",
            QtWidgets.QMessageBox.Yes | QtWidgets.QMessageBox.No,
        )
        return answer == QtWidgets.QMessageBox.Yes and self._logic.SetSourceRepresentationToBinaryLabelMap()

    # ---- what a person does

    def _segmentationChosen(self, node):
        if self._node and not self._scene.IsBatchProcessing():
            self.setSegmentationNode(node)

    def _volumeChosen(self, node):
        if self._node and not self._scene.IsBatchProcessing():
            self.setSourceVolumeNode(node)

    def _segmentChosen(self):
        if self._node is None:
            return
        chosen = (*self._table.selectedSegmentIDs(), "")[0]
        if chosen == (self._node.GetSelectedSegmentID() or "") or self._updating:
            return
        self._node.SetSelectedSegmentID(chosen or None)
        if not chosen and self._activeEffect and self._activeEffect.perSegment:
            self.setActiveEffect(None)
        self.updateWidgetFromMRML()
        self.currentSegmentIDChanged.emit(chosen)

    def _addSegment(self):
        self._logic.AddEmptySegment()

    def _removeSegment(self):
        self._node.SetSelectedSegmentID(self._logic.RemoveSelectedSegment() or None)

    # ---- effects

    def updateEffectList(self):
        self._effectButtonOf = getattr(self, "_effectButtonOf", {})
        if NULL_EFFECT not in self._effectButtonOf:
            self._addButton(NULL_EFFECT, "None", QtGui.QIcon())
        for effect in qSlicerSegmentEditorEffectFactory.instance().copyEffects(self._effects):
            effect.setEditor(self, self._logic)
            self._addButton(effect.name, effect.title or effect.name, effect.icon())
            effect.setupOptionsFrame()
            if self._node:
                effect.setParameterSetNode(self._node)
                effect.setMRMLDefaults()
            effect.optionsFrame().setVisible(False)
            self._optionFrames.layout().addWidget(effect.optionsFrame())
        self._orderButtons()
        self.updateWidgetFromMRML()

    def _addButton(self, name, text, icon):
        button = named(QtWidgets.QToolButton(), name)
        button.text, button.icon, button.checkable = text, icon, True
        button.setToolButtonStyle(Qt.ToolButtonTextBesideIcon)
        button.setSizePolicy(QtWidgets.QSizePolicy.Minimum, QtWidgets.QSizePolicy.Preferred)
        button.connect("clicked()", lambda: self.setActiveEffectByName("" if name == NULL_EFFECT else name))
        self._effectButtonOf[name] = button

    def _shownEffects(self):
        ordered = [each for each in map(self.effectByName, self._effectOrder) if each]
        rest = [each for each in self._effects if each not in ordered] if self.unorderedEffectsVisible else []
        return ordered + rest

    def _orderButtons(self):
        layout = self._effectButtons.layout()
        for button in self._buttons():
            button.hide()
            layout.removeWidget(button)
        for index, name in enumerate([NULL_EFFECT, *(each.name for each in self._shownEffects())]):
            button = self._effectButtonOf[name]
            layout.addWidget(button, index // self.effectColumnCount, index % self.effectColumnCount)
            button.show()

    def _buttons(self):
        return list(self._effectButtonOf.values())

    def _button(self, name):
        return self._effectButtonOf[name]

    def availableEffectNames(self):
        return tuple(each.name for each in self._effects)

    def effectByName(self, name):
        return next((each for each in self._effects if each.name == name), None)

    def setEffectNameOrder(self, names):
        self._effectOrder = tuple(names)
        self.updateEffectList()

    def effectNameOrder(self):
        return self._effectOrder

    def activeEffect(self):
        return self._activeEffect

    def setActiveEffect(self, effect):
        if self._node is not None:
            self._node.SetActiveEffectName(effect.name if effect else "")

    def setActiveEffectByName(self, name):
        self.setActiveEffect(self.effectByName(name))

    # ---- nodes and segments from Python

    def segmentationNode(self):
        return self._segmentationBox.currentNode()

    def segmentationNodeID(self):
        return self._segmentationBox.currentNodeID

    def setSegmentationNode(self, node):
        if self._logic.GetSegmentationNode() is node:
            return
        self._logic.SetSegmentationNode(node)
        self.setActiveEffect(None)

    def sourceVolumeNode(self):
        return self._logic.GetSourceVolumeNode()

    def setSourceVolumeNode(self, node):
        self._logic.SetSourceVolumeNode(node)

    def currentSegmentID(self):
        return self._logic.GetCurrentSegmentID()

    def setCurrentSegmentID(self, segmentID):
        if self._node is not None:
            self._node.SetSelectedSegmentID(segmentID)

    # ---- undo

    def saveStateForUndo(self):
        self._logic.SaveStateForUndo()

    def undo(self):
        self._logic.Undo()

    def redo(self):
        self._logic.Redo()

    def _updateUndoButtons(self):
        self._undo.setEnabled(not self.readOnly and self._logic.CanUndo())
        self._redo.setEnabled(not self.readOnly and self._logic.CanRedo())


def install():
    """Puts the widget into the namespace `slicer`."""
    slicer.qMRMLSegmentEditorWidget = qMRMLSegmentEditorWidget
