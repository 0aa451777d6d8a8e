"""The Segment Editor's hold on the views and on the keyboard."""

import slicer
import vtk

from .pythonqt import QtGui
from .qmrml import _alive

INTERACTIONS = (
    *("LeftButtonPressEvent", "LeftButtonReleaseEvent", "LeftButtonDoubleClickEvent"),
    *("RightButtonPressEvent", "RightButtonReleaseEvent", "MiddleButtonPressEvent", "MiddleButtonReleaseEvent"),
    *("MouseMoveEvent", "MouseWheelForwardEvent", "MouseWheelBackwardEvent", "MouseWheelLeftEvent"),
    *("MouseWheelRightEvent", "KeyPressEvent", "KeyReleaseEvent", "EnterEvent", "LeaveEvent"),
)


class ViewsAndKeys:
    """Part of qMRMLSegmentEditorWidget: hands what happens in the views to the active effect, and keys to the editor."""

    def setupViewObservations(self):
        self.removeViewObservations()
        layout = slicer.app.layoutManager()
        widgets = [layout.sliceWidget(name) for name in layout.sliceViewNames()]
        widgets += [layout.threeDWidget(index) for index in range(layout.threeDViewCount)]
        for widget in widgets:
            node = (
                widget.mrmlSliceNode() if widget in widgets[: len(layout.sliceViewNames())] else widget.mrmlViewNode()
            )
            if self._logic.IsSegmentationDisplayableInView(node):
                for name in INTERACTIONS:
                    self._observeView(widget.interactor(), getattr(vtk.vtkCommand, name), widget)
                self._observeView(node, vtk.vtkCommand.ModifiedEvent, widget)

    def _observeView(self, subject, event, viewWidget):
        tag = None

        def call(caller, _name):
            if not _alive(self) or self._scene.IsClosing() or self._node is None or self._activeEffect is None:
                return
            if not caller.IsA("vtkRenderWindowInteractor"):
                self._activeEffect.processViewNodeEvents(caller, event, viewWidget)
            elif self._activeEffect.processInteractionEvents(caller, event, viewWidget):
                command = caller.GetCommand(tag)
                command.SetAbortFlag(1)

        tag = subject.AddObserver(event, call, 1.0)
        self._viewTags.append((subject, tag))

    def removeViewObservations(self):
        for subject, tag in self._viewTags:
            subject.RemoveObserver(tag)
        self._viewTags = []

    def viewsObserved(self):
        """For tests: whether the views' events come here."""
        return bool(self._viewTags)

    def installKeyboardShortcuts(self, parent=None):
        self.uninstallKeyboardShortcuts()
        parent = parent or slicer.util.mainWindow()
        for number in range(1, 11):
            self._addShortcut(str(number % 10), parent, lambda number=number: self._toggleEffect(number))
        self._addShortcut("Escape", parent, lambda: self.setActiveEffect(None))
        self._addShortcut("Space", parent, lambda: self.setActiveEffect(self._lastEffect))
        self._addShortcut("Z", parent, self.undo)
        self._addShortcut("Y", parent, self.redo)
        self._addShortcut("Q", parent, lambda: self._selectBeside(-1))
        self._addShortcut("W", parent, lambda: self._selectBeside(1))

    def _addShortcut(self, key, parent, function):
        shortcut = QtGui.QShortcut(QtGui.QKeySequence(key), parent)
        shortcut.connect("activated()", function)
        self._shortcuts.append(shortcut)

    def uninstallKeyboardShortcuts(self):
        for shortcut in self._shortcuts:
            if _alive(shortcut):
                shortcut.delete()
        self._shortcuts = []

    def keyboardShortcuts(self):
        """For tests: the installed keys, as texts."""
        return tuple(shortcut.key.toString() for shortcut in self._shortcuts)

    def _toggleEffect(self, number):
        effect = (*self._shownEffects(), *(None,) * number)[number - 1]
        self.setActiveEffect(None if effect is self._activeEffect else effect)

    def _selectBeside(self, offset):
        self._logic.SelectSegmentAtOffset(offset, True)
