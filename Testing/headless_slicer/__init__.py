"""Runs an unchanged Slicer scripted module without the Slicer application. See README.md in this folder.

Example::

    import headless_slicer
    headless_slicer.start()
    widget = headless_slicer.loadModule("path/to/MyModule.py")
    headless_slicer.click(widget.ui.applyButton)
    headless_slicer.processEvents(until=lambda: widget.done, timeout=10)
    headless_slicer.close()
"""

import atexit
import importlib.util
import os
import sys
import time
import traceback
import types
import unittest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from . import ctk, dialogs, pythonqt, qt

__all__ = [
    "SlotError",
    "answer",
    "click",
    "close",
    "closeScene",
    "ctk",
    "dialogs",
    "errors",
    "grab",
    "loadModule",
    "messages",
    "newScene",
    "processEvents",
    "pythonqt",
    "qt",
    "runTest",
    "start",
    "unloadModule",
]

errors: list[BaseException] = []  # exceptions that slots and observers raised, where Slicer would print them
messages = dialogs.shown  # every dialog that a person would have seen
answer = dialogs.answer
_state = types.SimpleNamespace(app=None, qtApplication=None, excepthook=None)


class SlotError(RuntimeError):
    """A slot, a timer or an observer raised an exception while events were processed."""


def start():
    """Makes `slicer.app`, the scene and the modules `qt`, `ctk`, `slicer.*`, `SampleData`. A second call does nothing.

    Returns:
        The imitation of `slicer.app`.
    """
    if _state.app is not None:
        return _state.app
    import slicer
    import slicer.util

    from . import application, effects, parameters, qmrml, real, scripted, segmenteditor, services

    sys.modules["qt"], sys.modules["ctk"] = qt, ctk
    _state.qtApplication = application.qtApplication()
    folder = application.temporaryFolder()
    application.ownSettings(folder)
    qmrml.install()
    segmenteditor.install()
    effects.install()
    slicer.qSlicerScriptedLoadableModule = application.qSlicerScriptedLoadableModule
    slicer.selfTests = {}
    for name, module in {
        "ScriptedLoadableModule": scripted,
        "parameterNodeWrapper": parameters,
        "i18n": services.i18nModule(),
        "packaging": services.packagingModule(),
    }.items():
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
    sys.modules["SampleData"] = services.sampleDataModule()
    if real.source() is not None:
        real.install(real.source())
    _state.app = slicer.app = application.Application(folder)
    slicer.app.build()
    _state.excepthook, sys.excepthook = sys.excepthook, _recordException
    atexit.register(close)  # Qt and VTK objects that outlive the interpreter can end it badly
    return slicer.app


def _recordException(kind, value, trace):
    """Qt and VTK hand exceptions of slots and observers to sys.excepthook."""
    if isinstance(value, Exception):
        errors.append(value)
    traceback.print_exception(kind, value, trace)


def _raiseErrors():
    if errors:
        first = errors[0]
        errors.clear()
        raise SlotError(f"{type(first).__name__}: {first}") from first


def loadModule(path, enter=True):
    """Loads a scripted module as Slicer does: imports the file, makes the module object and its panel.

    Args:
        path: the module's .py file; its folder comes to `sys.path`.
        enter: also select the module, so that its `enter()` is called and the panel shown.

    Returns:
        The module's widget object, `<name>Widget`, after its `setup()`; None for a module without a panel.
    """
    import slicer

    start()
    path = os.path.abspath(path)
    name = os.path.splitext(os.path.basename(path))[0]
    if os.path.dirname(path) not in sys.path:
        sys.path.insert(0, os.path.dirname(path))
    source = _importFile(name, path)
    module = slicer.qSlicerScriptedLoadableModule(name, path)
    slicer.app.moduleManager().register(module)
    setattr(slicer.modules, name + "Instance", getattr(source, name)(module))
    slicer.app.sendOnce("startupCompleted()")
    module.makeWidget = getattr(source, name + "Widget", None)
    if module.makeWidget is None:
        return None
    widget = module.widgetRepresentation().self()
    setattr(slicer.modules, name + "Widget", widget)
    widget.parent.resize(qt.QSize(460, 880))
    if enter:
        slicer.util.selectModule(name)
    processEvents()
    return widget


def _importFile(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    source = importlib.util.module_from_spec(spec)
    sys.modules[name] = source
    spec.loader.exec_module(source)
    return source


def unloadModule(name):
    """Ends a module: its panel's `exit()` and `cleanup()` are called and the panel goes away."""
    import slicer

    slicer.app.unloadModule(name)
    sys.modules.pop(name, None)
    processEvents()


def processEvents(until=None, timeout=60.0):
    """Lets Qt work: once, or until `until()` is true.

    Args:
        until: function without arguments.
        timeout: seconds; generous, as it only matters when a test fails, and machines are busy.

    Raises:
        SlotError: a slot or an observer raised an exception.
        TimeoutError: `until()` did not become true in time.
    """
    end = time.monotonic() + timeout
    while True:
        _processOnce(wait=until is not None)
        _raiseErrors()
        if until is None or until():
            return
        if time.monotonic() > end:
            raise TimeoutError(f"the condition was not met within {timeout} s")


def _processOnce(wait):
    application = qt.QApplication
    application.processEvents()
    application.sendPostedEvents(None, int(qt.QEvent.DeferredDelete))
    if wait:
        qt.QTest.qWait(5)  # sleeps in Qt's event loop: no busy waiting


def click(button):
    """Clicks a button with the mouse, as a person would.

    Raises:
        RuntimeError: a person could not click it, because it is hidden or disabled.
        SlotError: what the click started raised an exception.
    """
    qt.QApplication.processEvents()  # what a slot has just added becomes visible
    if not button.isVisible() or not button.isEnabled():
        why = "hidden" if not button.isVisible() else "disabled"
        raise RuntimeError(f"the button '{button.text}' ({button.name}) cannot be clicked: it is {why}")
    qt.QTest.mouseClick(button, qt.Qt.LeftButton, qt.Qt.NoModifier, _clickPoint(button))
    processEvents()


def _clickPoint(button):
    if isinstance(button, qt.QCheckBox | qt.QRadioButton):
        return qt.QPoint(8, button.height // 2)  # the mark: beside the text a click does nothing
    if isinstance(button, ctk.ctkCollapsibleButton):
        return qt.QPoint(button.width // 2, button.BAR // 2)
    return button.rect.center()


def grab(widget):
    """A picture of a widget as a QImage. Give it a Slicer panel (`widget.parent`) or any Qt widget."""
    qt.QApplication.processEvents()
    return widget.grab().toImage()


def newScene():
    """Empties the scene, as File > Close Scene does, and forgets recorded dialogs, answers and errors."""
    closeScene()
    dialogs.reset()
    errors.clear()


def closeScene():
    """File > Close Scene."""
    import slicer

    slicer.mrmlScene.Clear(False)
    processEvents()


def runTest(testClass):
    """Runs a ScriptedLoadableModuleTest class as Slicer's test runner does: `runTest()` of one object.

    Raises:
        AssertionError: with the traceback, if the test failed or raised.
    """
    result = unittest.TestResult()
    testClass("runTest").run(result)
    problems = [text for _, text in [*result.failures, *result.errors]]
    if problems:
        raise AssertionError("\n".join(problems))
    _raiseErrors()


def close():
    """Ends the modules, the scene and the temporary files. `start()` can begin anew."""
    if _state.app is None:
        return
    views = sys.modules.get(__name__ + ".views")
    if views:
        views.close()
    try:
        _state.app.takeDown()
        qt.QApplication.processEvents()
    finally:
        sys.excepthook, _state.app = _state.excepthook, None
        dialogs.reset()
        errors.clear()
