"""QUiLoader that knows the stand-ins for CTK and Slicer widgets, and makes the connections that carry VTK objects."""

import functools
import operator
from xml.etree import ElementTree

from .pythonqt import QObject, QtCore, QtUiTools, QtWidgets

customWidgets: dict[str, type] = {}


def customWidget(cls):
    """Class decorator: .ui files may name this class."""
    customWidgets[cls.__name__] = cls
    return cls


def _carriesVtkObject(connection):
    return "vtk" in connection.findtext("signal", "")


def _takeVtkConnections(root):
    """Removes the connections that PySide cannot make and returns (sender, signal, receiver, slot) of each."""
    connections = root.find("connections")
    if connections is None:
        return []
    taken = [each for each in connections if _carriesVtkObject(each)]
    for each in taken:
        connections.remove(each)
    return [tuple(each.findtext(key) for key in ("sender", "signal", "receiver", "slot")) for each in taken]


def _takeEnumerations(root):
    """Removes enumeration values of stand-ins, which PySide cannot read, and returns (widget, property, values)."""
    taken = []
    for widget in root.iter("widget"):
        for entry in widget.findall("property") if widget.get("class") in customWidgets else []:
            text = entry.findtext("set") or entry.findtext("enum") or ""
            if text.startswith(("ctk", "qMRML", "qSlicer")):
                widget.remove(entry)
                taken.append(
                    (widget.get("name"), entry.get("name"), [each.split("::")[-1] for each in text.split("|")])
                )
    return taken


def _setEnumeration(widget, name, values):
    numbers = [getattr(type(widget), each) for each in values]
    setattr(widget, name, functools.reduce(operator.or_, numbers))


def _named(widget, name):
    if widget.name == name:
        return widget
    for child in widget.findChildren(QObject):
        if child.name == name:
            return child
    raise RuntimeError(f"a connection of the .ui file names '{name}', which the file does not hold")


def _refuseUnknownProperties(widget):
    """A property that a stand-in does not declare becomes a dynamic one, where the real widget would use it."""
    for child in [widget, *widget.findChildren(QtWidgets.QWidget)]:
        if type(child).__name__ not in customWidgets:
            continue
        names = [bytes(each.data()).decode() for each in child.dynamicPropertyNames()]
        unknown = [each for each in names if not each.startswith(("_q_", "Slicer"))]
        if unknown:
            raise RuntimeError(f"the stand-in for {type(child).__name__} '{child.name}' does not know {unknown}")


class QUiLoader(QtUiTools.QUiLoader):
    """Loads a .ui file.

    Raises:
        RuntimeError: the file uses a widget class or a property that no stand-in here knows.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        for cls in customWidgets.values():
            self.registerCustomWidget(cls)

    def load(self, device, parent=None):
        root = ElementTree.fromstring(bytes(device.readAll().data()))
        device.close()
        classes = {each.text for each in root.findall("./customwidgets/customwidget/class")}
        if classes - set(customWidgets):
            raise RuntimeError(f"no stand-in for {sorted(classes - set(customWidgets))}")
        connections, enumerations = _takeVtkConnections(root), _takeEnumerations(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        widget = super().load(buffer, parent)
        for owner, name, values in enumerations:
            _setEnumeration(_named(widget, owner), name, values)
        for sender, signal, receiver, slot in connections:
            function = getattr(_named(widget, receiver), slot.partition("(")[0])
            _named(widget, sender).connect(signal, function)
        _refuseUnknownProperties(widget)
        return widget
