"""Stand-ins for Slicer's MRML widgets, on the real scene. They appear in the namespace `slicer`."""

import sys
import weakref

import shiboken6
import slicer
import vtk

from .ctk import declare
from .pythonqt import QtCore, QtGui, QtWidgets
from .uiloader import customWidget

Property, Signal, Qt = QtCore.Property, QtCore.Signal, QtCore.Qt


def _alive(widget):
    return widget is not None and shiboken6.isValid(widget)


def observe(subject, event, widget, method):
    """Calls `widget.method()` at a VTK event for as long as the widget lives; the subject keeps no hold on it."""
    reference = weakref.ref(widget)

    def call(*_):
        owner = reference()
        if _alive(owner):
            getattr(owner, method)()

    return subject.AddObserver(event, call)


def _column(owner, *widgets):
    layout = QtWidgets.QVBoxLayout(owner)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)


@customWidget
class qMRMLWidget(QtWidgets.QWidget):
    """A widget that knows a scene."""

    mrmlSceneChanged = Signal(object)
    vtkSignals = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}  # noqa: RUF012 (read only)
    _scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@customWidget
class qSlicerWidget(qMRMLWidget):
    """The widget that Slicer's .ui files have at the top."""


class qSlicerScriptedLoadableModuleWidget(qSlicerWidget):
    """The panel's place in the application; `self()` is the Python widget object."""

    isEntered, setEntered = declare(bool, "isEntered", False)
    _python = None

    def self(self):
        return self._python

    def reload(self):
        """Makes the panel anew from the class that `sys.modules` now holds; called by reloadScriptedModule."""
        name = type(self._python).__name__
        self._python = getattr(sys.modules[self._python.moduleName], name)(self)
        setattr(slicer.modules, name, self._python)
        self._python.setup()


class _NodeList:
    """The nodes of the scene that a selector offers."""

    def __init__(self):
        self.types, self.attributes, self.withChildTypes, self.withHidden = [], [], True, False

    def nodes(self, scene):
        found = [node for type_ in self.types for node in slicer.util.getNodesByClass(type_, scene)]
        return [node for index, node in enumerate(found) if self._offers(node) and node not in found[:index]]

    def _offers(self, node):
        if node.GetHideFromEditors() and not self.withHidden:
            return False
        if not self.withChildTypes and node.GetClassName() not in self.types:
            return False
        wanted = [(name, value) for type_, name, value in self.attributes if node.IsA(type_)]
        return all(_hasAttribute(node, name, value) for name, value in wanted)


def _hasAttribute(node, name, value):
    return node.GetAttribute(name) is not None if value is None else node.GetAttribute(name) == str(value)


def _shortName(type_):
    return type_.removeprefix("vtkMRML").removesuffix("Node")


@customWidget
class qMRMLNodeComboBox(qMRMLWidget):
    """Selects one node; can make and remove nodes."""

    currentNodeChanged = Signal(object)
    currentNodeChangedBool = Signal(bool)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAdded = Signal(object)
    vtkSignals = {  # noqa: RUF012 (read only)
        **qMRMLWidget.vtkSignals,
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "currentNodeChangedBool",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
    }
    EVENTS = ("NodeAddedEvent", "NodeRemovedEvent", "EndCloseEvent", "EndImportEvent", "EndRestoreEvent")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._list, self._current, self._tags, self._filling = _NodeList(), None, [], False
        self._box = QtWidgets.QComboBox()
        _column(self, self._box)
        self._box.currentIndexChanged.connect(self._indexChanged)
        self._box.activated.connect(self._activated)

    noneEnabled, setNoneEnabled = declare(bool, "noneEnabled", False, changed="_fill")
    noneDisplay, setNoneDisplay = declare(str, "noneDisplay", "None", changed="_fill")
    addEnabled, setAddEnabled = declare(bool, "addEnabled", True, changed="_fill")
    removeEnabled, setRemoveEnabled = declare(bool, "removeEnabled", True, changed="_fill")
    renameEnabled, setRenameEnabled = declare(bool, "renameEnabled", False)
    editEnabled, setEditEnabled = declare(bool, "editEnabled", False)
    interactionNodeEnabled, setInteractionNodeEnabled = declare(bool, "interactionNodeEnabled", False)
    selectNodeUponCreation, setSelectNodeUponCreation = declare(bool, "selectNodeUponCreation", True)
    baseName, setBaseName = declare(str, "baseName", "")

    def setNodeTypes(self, types):
        self._list.types = list(types)
        self._fill()

    def setShowChildNodeTypes(self, shown):
        self._list.withChildTypes = shown
        self._fill()

    def setShowHidden(self, shown):
        self._list.withHidden = shown
        self._fill()

    def addAttribute(self, type_, name, value=None):
        self._list.attributes.append((type_, name, value))
        self._fill()

    nodeTypes = Property("QStringList", lambda self: tuple(self._list.types), setNodeTypes)
    showChildNodeTypes = Property(bool, lambda self: self._list.withChildTypes, setShowChildNodeTypes)
    showHidden = Property(bool, lambda self: self._list.withHidden, setShowHidden)

    def setMRMLScene(self, scene):
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = [observe(scene, getattr(scene, each), self, "_fill") for each in self.EVENTS] if scene else []
        super().setMRMLScene(scene)
        self._fill()

    def _fill(self):
        if not self._scene or self._scene.IsBatchProcessing():
            return
        nodes = self._list.nodes(self._scene)
        self._filling = True
        self._box.clear()
        if self.noneEnabled:
            self._box.addItem(self.noneDisplay, "")
        for node in nodes:
            self._box.addItem(node.GetName(), node.GetID())
        self._addCommands()
        self._filling = False
        keep = self._current if self._current in nodes else None
        first = nodes[0] if nodes and not self.noneEnabled else None  # as in Slicer, where None cannot be chosen
        self._select(keep or first)

    def _addCommands(self):
        types = self._list.types if self.addEnabled else []
        commands = [(f"Create new {_shortName(each)}", "add:" + each) for each in types]
        if self.removeEnabled and self._current is not None:
            commands.append(("Delete current node", "delete"))
        if commands:
            self._box.insertSeparator(self._box.count)
        for text, data in commands:
            self._box.addItem(text, data)

    def _select(self, node):
        index = self._box.findData(node.GetID()) if node else (0 if self.noneEnabled else -1)
        node = node if index >= 0 else None
        self._filling = True
        self._box.setCurrentIndex(index)
        self._filling = False
        if node is self._current:
            return
        self._current = node
        self.currentNodeChanged.emit(node)
        self.currentNodeChangedBool.emit(node is not None)
        self.currentNodeIDChanged.emit(node.GetID() if node else "")

    def _indexChanged(self, index):
        data = self._box.itemData(index) or ""
        if not self._filling and not data.startswith(("add:", "delete")):
            self._select(self._scene.GetNodeByID(data) if data else None)

    def _activated(self, index):
        data = self._box.itemData(index) or ""
        if data.startswith("add:"):
            self.addNode(data[4:])
        elif data == "delete":
            self.removeCurrentNode()
        else:
            self.nodeActivated.emit(self._current)

    def addNode(self, type_=None):
        type_ = type_ or self._list.types[0]
        name = self._scene.GenerateUniqueName(self.baseName or _shortName(type_))
        node = self._scene.AddNewNodeByClass(type_, name)
        for attributeType, attribute, value in self._list.attributes:
            if node.IsA(attributeType):
                node.SetAttribute(attribute, value)
        self._fill()
        self._select(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self):
        if self._current:
            self._scene.RemoveNode(self._current)

    def currentNode(self):
        return self._current

    def setCurrentNode(self, node):
        self._select(self._scene.GetNodeByID(node) if isinstance(node, str) and self._scene else node)

    def setCurrentNodeID(self, nodeID):
        self._select(self._scene.GetNodeByID(nodeID) if nodeID and self._scene else None)

    def setCurrentNodeIndex(self, index):
        nodes = self._list.nodes(self._scene)
        self._select(nodes[index] if 0 <= index < len(nodes) else None)

    def nodeCount(self):
        return len(self._list.nodes(self._scene)) if self._scene else 0

    def nodeFromIndex(self, index):
        return self._list.nodes(self._scene)[index]

    currentNodeID = Property(str, lambda self: self._current.GetID() if self._current else "", setCurrentNodeID)


@customWidget
class qMRMLCheckableNodeComboBox(qMRMLWidget):
    """Selects several nodes: a list of check boxes."""

    checkedNodesChanged = Signal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self._list, self._tags = _NodeList(), []
        self._items = QtWidgets.QListWidget()
        self._items.setMaximumHeight(72)
        _column(self, self._items)
        self._items.itemChanged.connect(lambda *_: self.checkedNodesChanged.emit())

    def setNodeTypes(self, types):
        self._list.types = list(types)
        self._fill()

    nodeTypes = Property("QStringList", lambda self: tuple(self._list.types), setNodeTypes)
    noneEnabled, setNoneEnabled = declare(bool, "noneEnabled", False)
    addEnabled, setAddEnabled = declare(bool, "addEnabled", False)
    removeEnabled, setRemoveEnabled = declare(bool, "removeEnabled", False)

    def setMRMLScene(self, scene):
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        events = qMRMLNodeComboBox.EVENTS
        self._tags = [observe(scene, getattr(scene, each), self, "_fill") for each in events] if scene else []
        super().setMRMLScene(scene)
        self._fill()

    def _fill(self):
        checked = [node.GetID() for node in self.checkedNodes()]
        self._items.blockSignals(True)
        self._items.clear()
        for node in self._list.nodes(self._scene) if self._scene else []:
            item = QtWidgets.QListWidgetItem(node.GetName(), self._items)
            item.setData(Qt.UserRole, node.GetID())
            item.setCheckState(Qt.Checked if node.GetID() in checked else Qt.Unchecked)
        self._items.blockSignals(False)

    def _rows(self):
        return [self._items.item(row) for row in range(self._items.count)]

    def checkedNodes(self):
        ids = [item.data(Qt.UserRole) for item in self._rows() if item.checkState() == Qt.Checked]
        return tuple(node for node in map(self._scene.GetNodeByID, ids) if node) if self._scene else ()

    def setCheckState(self, node, state):
        for item in self._rows():
            if item.data(Qt.UserRole) == node.GetID():
                item.setCheckState(Qt.CheckState(state))


class _OfSegmentation:
    """A widget that updates itself at each event of a segmentation node."""

    _node, _tag = None, None

    def segmentationNode(self):
        return self._node

    def setSegmentationNode(self, node):
        if self._node and self._tag is not None:
            self._node.RemoveObserver(self._tag)
        self._node = node
        self._tag = observe(node, vtk.vtkCommand.AnyEvent, self, "_update") if node else None
        self._update()


@customWidget
class qMRMLSegmentsTableView(_OfSegmentation, qMRMLWidget):
    """Name, colour and visibility of the segments of a segmentation node."""

    selectionChanged = Signal(object, object)
    vtkSignals = {  # noqa: RUF012 (read only)
        **qMRMLWidget.vtkSignals,
        "selectionChanged(QItemSelection,QItemSelection)": "selectionChanged",
    }
    VISIBLE, COLOUR, NAME = 0, 1, 2

    def __init__(self, parent=None):
        super().__init__(parent)
        self._table = QtWidgets.QTableWidget(0, 3)
        self._table.setHorizontalHeaderLabels(["👁", "", "Name"])
        self._table.horizontalHeaderItem(self.VISIBLE).setText("Shown")
        self._table.horizontalHeader().setStretchLastSection(True)
        self._table.setColumnWidth(self.VISIBLE, 56)
        self._table.setColumnWidth(self.COLOUR, 30)
        self._table.verticalHeader().hide()
        self._table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectRows)
        _column(self, self._table)
        self._table.itemSelectionChanged.connect(lambda: self.selectionChanged.emit(None, None))
        self._table.itemChanged.connect(self._edited)

    selectionMode, setSelectionMode = declare(int, "selectionMode", 3)
    headerVisible, setHeaderVisible = declare(bool, "headerVisible", True, changed="_showColumns")
    visibilityColumnVisible, setVisibilityColumnVisible = declare(
        bool, "visibilityColumnVisible", True, changed="_showColumns"
    )
    colorColumnVisible, setColorColumnVisible = declare(bool, "colorColumnVisible", True, changed="_showColumns")
    opacityColumnVisible, setOpacityColumnVisible = declare(bool, "opacityColumnVisible", True)
    statusColumnVisible, setStatusColumnVisible = declare(bool, "statusColumnVisible", False)
    layerColumnVisible, setLayerColumnVisible = declare(bool, "layerColumnVisible", False)
    readOnly, setReadOnly = declare(bool, "readOnly", False)

    def _showColumns(self):
        self._table.horizontalHeader().setVisible(self.headerVisible)
        self._table.setColumnHidden(self.VISIBLE, not self.visibilityColumnVisible)
        self._table.setColumnHidden(self.COLOUR, not self.colorColumnVisible)

    def _segments(self):
        segmentation = self._node.GetSegmentation() if self._node else None
        ids = list(segmentation.GetSegmentIDs()) if segmentation else []
        return [(each, segmentation.GetSegment(each)) for each in ids]

    def _update(self):
        segments = self._segments()
        selected = self.selectedSegmentIDs()
        display = self._node.GetDisplayNode() if self._node else None
        self._table.blockSignals(True)
        self._table.setRowCount(len(segments))
        for row, (segmentID, segment) in enumerate(segments):
            visible, colour, name = (QtWidgets.QTableWidgetItem() for _ in range(3))
            shown = display is None or display.GetSegmentVisibility(segmentID)
            visible.setCheckState(Qt.Checked if shown else Qt.Unchecked)
            colour.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            name.setText(segment.GetName())
            name.setData(Qt.UserRole, segmentID)
            for column, item in enumerate((visible, colour, name)):
                self._table.setItem(row, column, item)
                item.setSelected(segmentID in selected)
        self._table.blockSignals(False)

    def _edited(self, item):
        segmentID = self._table.item(item.row(), self.NAME).data(Qt.UserRole)
        if item.column() == self.NAME:
            self._node.GetSegmentation().GetSegment(segmentID).SetName(item.text())
        elif item.column() == self.VISIBLE and self._node.GetDisplayNode():
            self._node.GetDisplayNode().SetSegmentVisibility(segmentID, item.checkState() == Qt.Checked)

    def _names(self):
        return [item for row in range(self._table.rowCount) if (item := self._table.item(row, self.NAME))]

    def selectedSegmentIDs(self):
        return tuple(item.data(Qt.UserRole) for item in self._names() if item.isSelected())

    def setSelectedSegmentIDs(self, segmentIDs):
        for row, item in enumerate(self._names()):
            for column in range(self._table.columnCount):
                self._table.item(row, column).setSelected(item.data(Qt.UserRole) in segmentIDs)

    def segmentCount(self):
        return len(self._segments())


@customWidget
class qMRMLSegmentationShow3DButton(_OfSegmentation, QtWidgets.QPushButton):
    """Makes the closed surface of a segmentation and shows it, or removes it."""

    CLOSED_SURFACE = "Closed surface"

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setText("Show 3D")
        self.setCheckable(True)
        self.setEnabled(False)
        self.connect("toggled(bool)", self._show)

    def _update(self):
        segmentation = self._node.GetSegmentation() if self._node else None
        self.setEnabled(bool(segmentation and segmentation.GetNumberOfSegments()))
        self.blockSignals(True)
        self.setChecked(bool(segmentation and segmentation.ContainsRepresentation(self.CLOSED_SURFACE)))
        self.blockSignals(False)

    def _show(self, shown):
        if not self._node:
            return
        if shown:
            self._node.CreateClosedSurfaceRepresentation()
        else:
            self._node.RemoveClosedSurfaceRepresentation()

    def setMRMLScene(self, scene):
        """The scene is that of the node."""


def install():
    """Puts the widgets into the namespace `slicer`."""
    for name, value in list(globals().items()):
        if name.startswith(("qMRML", "qSlicer")):
            setattr(slicer, name, value)
