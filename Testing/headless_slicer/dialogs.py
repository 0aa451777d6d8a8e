"""Dialogs that do not block: each one is recorded and answered by the test.

`shown` lists every dialog that would have waited for a person. Answers are given beforehand with `answer(...)`; without
one, a message box gets its accepting button (as in Slicer's testing mode) and everything else is cancelled.
"""

import dataclasses
from collections import deque

from .pythonqt import QtWidgets

QMessageBox = QtWidgets.QMessageBox
ACCEPTING = ("Ok", "Yes", "YesToAll", "Open", "Save", "Apply", "Retry", "Close")


@dataclasses.dataclass
class Dialog:
    """One dialog that a person would have seen. `result` is what the code that opened it got back."""

    kind: str  # class name of the dialog, or the name of the static call such as getOpenFileName
    title: str
    text: str = ""
    detail: str = ""
    buttons: tuple = ()
    result: object = None


shown: list[Dialog] = []
_answers: deque = deque()


def answer(*values):
    """Sets the answers to the next dialogs, in their order.

    A message box takes a standard button or the text of a button; a file dialog a path, an input dialog its value;
    a menu the text of an action; any dialog a function that gets the dialog while it is shown and returns its result.
    """
    _answers.extend(values)


def reset():
    """Forgets recorded dialogs and answers."""
    shown.clear()
    _answers.clear()


def pending():
    """How many answers nobody asked for."""
    return len(_answers)


def _plain(text):
    return text.replace("&", "")


def _execMessageBox(box):
    record = Dialog(
        type(box).__name__,
        box.windowTitle.strip(),
        box.text,
        "\n".join(each for each in (box.informativeText, box.detailedText) if each),
        tuple(_plain(button.text) for button in box.buttons()),
    )
    shown.append(record)
    box.show()
    wanted = _answers.popleft() if _answers else None
    record.result = wanted(box) if callable(wanted) else _pressButton(box, wanted)
    box.hide()
    return record.result


def _pressButton(box, wanted):
    button = _buttonOf(box, wanted)
    button.click()
    standard = box.standardButton(button)
    return int(standard) if standard else box.buttons().index(button)


def _buttonOf(box, wanted):
    if wanted is None:
        buttons = [box.button(getattr(QMessageBox, name)) for name in ACCEPTING] + [*box.buttons()]
        return next(each for each in buttons if each) if any(buttons) else box.addButton(QMessageBox.Ok)
    if isinstance(wanted, str):
        found = [each for each in box.buttons() if _plain(each.text) == wanted]
    else:
        found = [each for each in [box.button(QMessageBox.StandardButton(wanted))] if each]
    if not found:
        raise ValueError(f"'{box.text}' has no button {wanted!r}; it has {[_plain(b.text) for b in box.buttons()]}")
    return found[0]


def _execDialog(dialog):
    if isinstance(dialog, QMessageBox):
        return _execMessageBox(dialog)
    labels = dialog.findChildren(QtWidgets.QLabel)
    record = Dialog(type(dialog).__name__, dialog.windowTitle, "\n".join(each.text for each in labels))
    shown.append(record)
    dialog.show()
    QtWidgets.QApplication.processEvents()
    wanted = _answers.popleft() if _answers else QtWidgets.QDialog.Rejected
    record.result = wanted(dialog) if callable(wanted) else wanted
    dialog.hide()
    return record.result


def _execMenu(menu, *_position):
    record = Dialog("QMenu", menu.title, buttons=tuple(_plain(each.text) for each in menu.actions()))
    shown.append(record)
    menu.aboutToShow.emit()
    wanted = _answers.popleft() if _answers else None
    for action in menu.actions():
        if wanted is not None and _plain(action.text) == wanted:
            record.result = action
            action.trigger()
    return record.result


def _staticMessage(kind):
    def show(parent, title, text, buttons=QMessageBox.Ok, default=None, /):
        box = QMessageBox(parent)
        box.windowTitle, box.text = title, text
        box.setStandardButtons(buttons)
        return _execMessageBox(box)

    show.__name__ = kind
    return staticmethod(show)


def _staticValue(kind, cancelled):
    """A static call such as QFileDialog.getOpenFileName: PythonQt returns the value alone, without filter or ok flag."""

    def ask(parent=None, title="", label="", /, *_more):
        record = Dialog(kind, title, str(label))
        shown.append(record)
        record.result = _answers.popleft() if _answers else cancelled
        return record.result

    ask.__name__ = kind
    return staticmethod(ask)


def install():
    """Replaces the blocking calls of Qt's dialog classes."""
    for cls in (QtWidgets.QDialog, QMessageBox, QtWidgets.QFileDialog, QtWidgets.QInputDialog):
        cls.exec = cls.exec_ = _execDialog
    QtWidgets.QMenu.exec = QtWidgets.QMenu.exec_ = _execMenu
    for kind in ("question", "information", "warning", "critical"):
        setattr(QMessageBox, kind, _staticMessage(kind))
    for kind in ("getOpenFileName", "getSaveFileName", "getExistingDirectory"):
        setattr(QtWidgets.QFileDialog, kind, _staticValue(kind, ""))
    QtWidgets.QFileDialog.getOpenFileNames = _staticValue("getOpenFileNames", ())
    for kind, cancelled in (
        ("getText", ""),
        ("getItem", ""),
        ("getMultiLineText", ""),
        ("getInt", 0),
        ("getDouble", 0),
    ):
        setattr(QtWidgets.QInputDialog, kind, _staticValue(kind, cancelled))


install()
