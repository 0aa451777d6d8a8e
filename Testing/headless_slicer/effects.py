"""Stand-ins for the Segment Editor's effects: what C++ gives to scripted effects, and the factory that knows them.

What an effect does to a segmentation is real: `vtkSlicerSegmentEditorLogic` masks, overwrites and writes. Modelled on
qSlicerSegmentEditorAbstractEffect, qSlicerSegmentEditorScriptedEffect and qSlicerSegmentEditorEffectFactory.
"""

import importlib.util
import os
import sys
import types

import slicer

from . import ctk
from .ctk import declare
from .pythonqt import QtCore, QtGui, QtWidgets

MODES = ("ModificationModeSet", "ModificationModeAdd", "ModificationModeRemove", "ModificationModeRemoveAll")


class qSlicerSegmentEditorAbstractEffect(QtCore.QObject):
    """An effect as the editor widget sees it. Its options are kept as attributes of the editor's parameter node."""

    ModificationModeSet, ModificationModeAdd, ModificationModeRemove, ModificationModeRemoveAll = range(len(MODES))
    NotConfirmed, ConfirmedWithoutDialog, ConfirmedWithDialog = range(3)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node = self._logic = self._editor = None
        self._active, self._confirmed = False, None
        self._options = QtWidgets.QFrame()
        layout = QtWidgets.QFormLayout(self._options)
        layout.setContentsMargins(4, 4, 4, 4)

    name, setName = declare(str, "name", "")
    title, setTitle = declare(str, "title", "")
    perSegment, setPerSegment = declare(bool, "perSegment", True)
    requireSegments, setRequireSegments = declare(bool, "requireSegments", True)
    showEffectCursorInSliceView, setShowEffectCursorInSliceView = declare(bool, "showEffectCursorInSliceView", True)
    showEffectCursorInThreeDView, setShowEffectCursorInThreeDView = declare(bool, "showEffectCursorInThreeDView", False)

    # ---- what effects reimplement

    def icon(self):
        return QtGui.QIcon()

    def helpText(self):
        return ""

    def activate(self):
        self._options.setVisible(True)
        self._active = True
        self.updateGUIFromMRML()

    def deactivate(self):
        self._options.setVisible(False)
        self._active = False

    def active(self):
        return self._active

    def setupOptionsFrame(self):
        """An effect adds its options here."""

    def createCursor(self, viewWidget):
        return QtGui.QCursor()

    def processInteractionEvents(self, interactor, event, viewWidget):
        return False

    def processViewNodeEvents(self, viewNode, event, viewWidget):
        """A view moved."""

    def nothing(self):
        """An effect need not care."""

    setMRMLDefaults = updateGUIFromMRML = updateMRMLFromGUI = cleanup = nothing
    referenceGeometryChanged = sourceVolumeNodeChanged = layoutChanged = nothing

    def interactionNodeModified(self, node):
        if node is not None and node.GetCurrentInteractionMode() != node.ViewTransform:
            self.selectEffect("")

    # ---- the editor

    def setEditor(self, editor, logic):
        """Stands for setCallbackSlots, setSegmentEditorLogic and setVolumes."""
        self._editor, self._logic = editor, logic

    def parameterSetNode(self):
        return self._node

    def setParameterSetNode(self, node):
        self._node = node

    def scene(self):
        return self._node.GetScene() if self._node else None

    def selectEffect(self, name):
        self._editor.setActiveEffectByName(name)

    def saveStateForUndo(self):
        self._editor.saveStateForUndo()

    # ---- options

    def optionsFrame(self):
        return self._options

    def optionsLayout(self):
        return self._options.layout()

    def addOptionsWidget(self, widget):
        self.optionsLayout().addRow(widget)

    def addLabeledOptionsWidget(self, text, widget):
        label = QtWidgets.QLabel(text)
        self.optionsLayout().addRow(label, widget)
        return label

    # ---- parameters

    def _ownName(self, name):
        return f"{self.name}.{name}"

    def parameterDefined(self, name):
        return self.commonParameterDefined(self._ownName(name))

    def commonParameterDefined(self, name):
        return bool(self._node and self._node.GetAttribute(name))

    def parameter(self, name):
        value = self._node.GetAttribute(self._ownName(name)) if self._node else ""
        value = self._node.GetAttribute(name) if value is None else value
        if value is None:
            raise RuntimeError(f"the effect '{self.name}' has no parameter '{name}'")  # Slicer logs an error
        return value

    def integerParameter(self, name):
        return int(self.parameter(name)) if self._node else 0

    def doubleParameter(self, name):
        return float(self.parameter(name)) if self._node else 0.0

    def setParameter(self, name, value):
        self.setCommonParameter(self._ownName(name), value)

    def setParameterDefault(self, name, value):
        if not self.parameterDefined(name):
            self.setParameter(name, value)

    def setCommonParameter(self, name, value):
        value = f"{value:.6g}" if isinstance(value, float) else str(value)
        if self._node is None or (self._node.GetAttribute(name) or "") == value:
            return
        disabled = self._node.GetDisableModifiedEvent()
        self._node.SetDisableModifiedEvent(1)
        self._node.SetAttribute(name, value)
        self._node.SetDisableModifiedEvent(disabled)
        self._node.InvokeCustomModifiedEvent(self._node.EffectParameterModified)

    def setCommonParameterDefault(self, name, value):
        if not self.commonParameterDefined(name):
            self.setCommonParameter(name, value)

    def nodeReference(self, name):
        own = self._node.GetNodeReference(self._ownName(name)) if self._node else None
        return own or (self._node.GetNodeReference(name) if self._node else None)

    def setNodeReference(self, name, node):
        self.setCommonNodeReference(self._ownName(name), node)

    def setCommonNodeReference(self, name, node):
        if node is not self._node.GetNodeReference(name):
            self._node.SetNodeReferenceID(name, node.GetID() if node else None)
            self._node.InvokeCustomModifiedEvent(self._node.EffectParameterModified)

    # ---- voxels: all real

    def defaultModifierLabelmap(self):
        return self._logic.GetModifierLabelmap() if self._logic.ResetModifierLabelmapToDefault() else None

    def modifierLabelmap(self):
        return self._logic.GetModifierLabelmap()

    def maskLabelmap(self):
        return self._logic.GetMaskLabelmap() if self._logic.UpdateMaskLabelmap() else None

    def selectedSegmentLabelmap(self):
        return self._logic.GetSelectedSegmentLabelmap() if self._logic.UpdateSelectedSegmentLabelmap() else None

    def referenceGeometryImage(self):
        return self._logic.GetReferenceGeometryImage() if self._logic.UpdateReferenceGeometryImage() else None

    def sourceVolumeImageData(self):
        return self._logic.GetAlignedSourceVolume() if self._logic.UpdateAlignedSourceVolume() else None

    def modifySelectedSegmentByLabelmap(self, labelmap, mode, *more):
        """As in C++: then an extent (six integers), or bypassMasking, or both."""
        extent = more[0] if more and not isinstance(more[0], bool) else (0, -1, 0, -1, 0, -1)
        bypass = bool(more) and more[-1] is True
        segment = self._node.GetSelectedSegmentID() or ""
        self._modify(self._node.GetSegmentationNode(), segment, labelmap, mode, extent, bypass)

    def modifySegmentByLabelmap(self, node, segmentID, labelmap, mode, bypassMasking=False):
        self._modify(node, segmentID, labelmap, mode, (0, -1, 0, -1, 0, -1), bypassMasking)

    def _modify(self, node, segmentID, labelmap, mode, extent, bypassMasking):
        mode = getattr(slicer.vtkSlicerSegmentEditorLogic, MODES[mode])
        self._logic.ModifySegmentByLabelmap(node, segmentID, labelmap, mode, extent, self.perSegment, bypassMasking)

    def confirmCurrentSegmentVisible(self):
        node = self._node.GetSegmentationNode() if self._node else None
        segmentID = self._node.GetSelectedSegmentID() if self._node else None
        if node is None or not segmentID or self._confirmed is node.GetSegmentation().GetSegment(segmentID):
            return self.ConfirmedWithoutDialog
        display = node.GetDisplayNode()
        if display and display.GetVisibility() and display.GetSegmentVisibility(segmentID):
            return self.ConfirmedWithoutDialog
        box = ctk.ctkMessageBox(slicer.util.mainWindow())
        box.windowTitle = "Operate on invisible segment?"
        box.text = "The currently selected segment is hidden. Would you like to make it visible?"
        for button in (box.Yes, box.No, box.Cancel):
            box.addButton(button)
        answer = box.exec_()
        if answer == box.Cancel:
            return self.NotConfirmed
        if answer == box.Yes and display:
            display.SetVisibility(True)
            display.SetSegmentVisibility(segmentID, True)
        elif answer != box.Yes:
            self._confirmed = node.GetSegmentation().GetSegment(segmentID)
        return self.ConfirmedWithDialog

    # ---- views

    @staticmethod
    def viewNode(viewWidget):
        return viewWidget.mrmlSliceNode() if viewWidget.className() == "qMRMLSliceWidget" else viewWidget.mrmlViewNode()

    @staticmethod
    def sliceSpacing(sliceWidget):
        logic = sliceWidget.sliceLogic()
        return slicer.vtkSlicerSegmentEditorLogic.GetSliceSpacing(logic.GetSliceNode(), logic)

    @staticmethod
    def addActor2D(viewWidget, actor):
        viewWidget.actors.append(actor)

    @staticmethod
    def removeActor2D(viewWidget, actor):
        if actor in viewWidget.actors:
            viewWidget.actors.remove(actor)

    @staticmethod
    def forceRender(viewWidget):
        """`views` draws when a picture is asked for."""

    scheduleRender = forceRender

    def segmentationDisplayableInView(self, viewNode):
        return self._logic.IsSegmentationDisplayableInView(viewNode)


class qSlicerSegmentEditorScriptedEffect(qSlicerSegmentEditorAbstractEffect):
    """An effect written in Python: each call goes to the Python object first, if it has such a method."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._python = None

    def setPythonSource(self, path):
        """Makes the Python object: class `<file>` (ending in Effect) of the module named as the file's folder."""
        folder = os.path.basename(os.path.dirname(path))
        className = os.path.splitext(os.path.basename(path))[0]
        className += "" if className.endswith("Effect") else "Effect"
        if not hasattr(sys.modules.get(folder), className):
            spec = importlib.util.spec_from_file_location(folder, path)
            sys.modules[folder] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[folder])
        self._python = getattr(sys.modules[folder], className)(self)
        setattr(slicer, folder, self._python)
        return True

    def self(self):
        return self._python

    def _call(self, name, *arguments):
        """What the Python method returns; None if there is none or if it raised, which Slicer prints."""
        method = getattr(self._python, name, None)
        if method is None:
            return None
        try:
            return method(*arguments)
        except Exception:
            sys.excepthook(*sys.exc_info())
            return None

    def clone(self):
        return self._call("clone")

    def icon(self):
        return self._call("icon") or super().icon()

    def helpText(self):
        return self._call("helpText") or super().helpText()

    def activate(self):
        super().activate()
        self._call("activate")

    def deactivate(self):
        super().deactivate()
        self._call("deactivate")

    def createCursor(self, viewWidget):
        return self._call("createCursor", viewWidget) or super().createCursor(viewWidget)

    def processInteractionEvents(self, interactor, event, viewWidget):
        return self._call("processInteractionEvents", interactor, event, viewWidget) is True

    def interactionNodeModified(self, node):
        if hasattr(self._python, "interactionNodeModified"):
            self._call("interactionNodeModified", node)
        else:
            super().interactionNodeModified(node)


def _forwarded(name):
    return lambda self, *arguments: self._call(name, *arguments)


for _name in (
    "setupOptionsFrame",
    "processViewNodeEvents",
    "setMRMLDefaults",
    "updateGUIFromMRML",
    "updateMRMLFromGUI",
    "referenceGeometryChanged",
    "sourceVolumeNodeChanged",
    "layoutChanged",
    "cleanup",
):
    setattr(qSlicerSegmentEditorScriptedEffect, _name, _forwarded(_name))


class qSlicerSegmentEditorEffectFactory(QtCore.QObject):
    """Knows the registered effects; each editor works with copies of its own."""

    effectRegistered = QtCore.Signal(str)
    _instance = None

    def __init__(self):
        super().__init__()
        self._registered = []

    @classmethod
    def instance(cls):
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    @classmethod
    def forget(cls):
        """Slicer ends: the effects go."""
        cls._instance = None

    def registerEffect(self, effect):
        if effect.name in [each.name for each in self._registered]:
            return False
        self._registered.append(effect)
        self.effectRegistered.emit(effect.name)
        return True

    def copyEffects(self, effects):
        """Adds copies of effects that the list lacks to it, and returns them."""
        names = [each.name for each in effects]
        copies = [copy for each in self._registered if each.name not in names and (copy := each.clone()) is not None]
        effects.extend(copies)
        return copies


class AbstractScriptedSegmentEditorEffect:
    """Base class of effects written in Python, without its helpers for coordinates."""

    def __init__(self, scriptedEffect):
        self.scriptedEffect = scriptedEffect

    def register(self):
        slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)

    def cleanup(self):
        """Called before the effect goes away."""


def install():
    """Puts the classes where scripted effects look for them."""
    plugin = types.ModuleType("qSlicerSegmentationsEditorEffectsPythonQt")
    for cls in (
        qSlicerSegmentEditorAbstractEffect,
        qSlicerSegmentEditorScriptedEffect,
        qSlicerSegmentEditorEffectFactory,
    ):
        setattr(slicer, cls.__name__, cls)
        setattr(plugin, cls.__name__, cls)
    package = types.ModuleType("SegmentEditorEffects")
    package.AbstractScriptedSegmentEditorEffect = AbstractScriptedSegmentEditorEffect
    package.__all__ = ["AbstractScriptedSegmentEditorEffect"]
    sys.modules[plugin.__name__], sys.modules[package.__name__] = plugin, package
