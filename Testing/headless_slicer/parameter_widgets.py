"""Binds widgets of a panel to parameters, for the types of widgets that Slicer's parameterNodeWrapper binds."""

import enum
import pathlib

import slicer

from . import ctk
from .parameters import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange
from .pythonqt import QtWidgets

INTEGER_RANGE = (-(2**31), 2**31 - 1)


class Connector:
    """Reads and writes one widget property and listens to one signal."""

    def __init__(self, widget, signal, read, write):
        self.widget, self.signal, self.read, self.write = widget, signal, read, write
        self._receiver = None

    def onChanged(self, callback):
        self._receiver = lambda *_: callback()
        getattr(self.widget, self.signal).connect(self._receiver)

    def disconnect(self):
        getattr(self.widget, self.signal).disconnect(self._receiver)


def _property(widget, signal, name):
    return Connector(widget, signal, lambda: getattr(widget, name), lambda value: setattr(widget, name, value))


def _limit(widget, info, free):
    """Sets the widget's range from the annotations. `free` is the range without any, or None where there must be one."""
    both, low, high = info.annotation(WithinRange), info.annotation(Minimum), info.annotation(Maximum)
    if free is None and not (both or (low and high)):
        raise RuntimeError(f"the slider for '{info.basename}' needs a bounded parameter (WithinRange)")
    widget.setMinimum((both or low).minimum if both or low else free[0])
    widget.setMaximum((both or high).maximum if both or high else free[1])


def _number(widget, info, free):
    for annotation, setter in ((Decimals, "setDecimals"), (SingleStep, "setSingleStep")):
        if info.annotation(annotation):
            getattr(widget, setter)(info.annotation(annotation).value)
    _limit(widget, info, free)
    return _property(widget, "valueChanged", "value")


def _choice(widget, labels, values):
    widget.clear()
    widget.addItems(labels)

    def write(value):
        if value not in values:
            raise ValueError(f"{value!r} is none of {values}")
        widget.currentIndex = values.index(value)

    return Connector(widget, "currentIndexChanged", lambda: values[widget.currentIndex], write)


def _comboBox(widget, info):
    if isinstance(info.type, type) and issubclass(info.type, enum.Enum):
        label = getattr(info.type, "label", lambda each: each.name)
        return _choice(widget, [label(each) for each in info.type], list(info.type))
    choice = info.annotation(Choice)
    if not choice:
        raise RuntimeError(f"a combo box for '{info.basename}' needs the Choice annotation or an Enum")
    return _choice(widget, [str(each) for each in choice.choices], choice.choices)


def _checkable(widget):
    widget.checkable = True
    return _property(widget, "toggled", "checked")


def _nodeComboBox(widget, info):
    widget.nodeTypes = _nodeTypeNames(info)
    return Connector(widget, "currentNodeChanged", widget.currentNode, widget.setCurrentNode)


def _nodeTypeNames(info):
    members = getattr(info.storage, "members", [info.storage])
    return [each.type.__name__ for each in members if issubclass(each.type, slicer.vtkMRMLNode)]


def _textEdit(widget):
    return Connector(widget, "textChanged", widget.toPlainText, widget.setPlainText)


def _path(widget, info, name, signal):
    return Connector(widget, signal, lambda: info.type(getattr(widget, name)), lambda v: setattr(widget, name, str(v)))


def connectorFor(widget, info):
    """The connector between a widget and a parameter. As in Slicer, the widget's class must fit exactly.

    Raises:
        RuntimeError: Slicer binds no such widget to this type.
    """
    isPath = isinstance(info.type, type) and issubclass(info.type, pathlib.PurePath)
    makers = {
        (QtWidgets.QCheckBox, bool): lambda: _property(widget, "stateChanged", "checked"),
        (QtWidgets.QPushButton, bool): lambda: _checkable(widget),
        (QtWidgets.QSpinBox, int): lambda: _number(widget, info, INTEGER_RANGE),
        (QtWidgets.QSlider, int): lambda: _number(widget, info, None),
        (QtWidgets.QDoubleSpinBox, float): lambda: _number(widget, info, (float("-inf"), float("inf"))),
        (ctk.ctkSliderWidget, float): lambda: _number(widget, info, None),
        (QtWidgets.QLineEdit, str): lambda: _property(widget, "textChanged", "text"),
        (QtWidgets.QTextEdit, str): lambda: _textEdit(widget),
        (ctk.ctkPathLineEdit, isPath and info.type): lambda: _path(widget, info, "currentPath", "currentPathChanged"),
        (ctk.ctkDirectoryButton, isPath and info.type): lambda: _path(widget, info, "directory", "directoryChanged"),
    }
    if type(widget) is QtWidgets.QComboBox:
        return _comboBox(widget, info)
    if type(widget) is slicer.qMRMLNodeComboBox:
        return _nodeComboBox(widget, info)
    maker = makers.get((type(widget), info.type))
    if maker is None:
        raise RuntimeError(f"Slicer cannot bind parameter '{info.basename}' ({info.type}) to a {type(widget).__name__}")
    return maker()
