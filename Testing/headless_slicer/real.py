"""Slicer's own Python files in place of the stand-ins, where SLICER_SOURCE names a checkout of Slicer. Nothing is fetched.

They are the base classes of scripted modules and effects, the parameter node wrapper, packaging, translation and Sample
Data. What is C++ in Slicer stays as it is here.
"""

import importlib
import os
import sys
import types
from pathlib import Path

import slicer

from . import ctk
from .pythonqt import QtWidgets

MODULES = ("i18n", "packaging", "ScriptedLoadableModule", "parameterNodeWrapper")
EFFECTS = "Modules/Loadable/Segmentations/EditorEffects/Python/SegmentEditorEffects"
# Widgets that the wrapper knows how to connect, and that no panel here has.
OTHER_WIDGETS = {
    ctk: (
        "ctkCheckablePushButton",
        "ctkColorPickerButton",
        "ctkDoubleRangeSlider",
        "ctkDoubleSlider",
        "ctkRangeWidget",
    ),
    slicer: ("qMRMLRangeWidget", "qMRMLScreenShotDialog", "qMRMLSliderWidget", "qMRMLSpinBox", "qMRMLUtils"),
}


def source():
    """The checkout's folder, or None."""
    folder = os.environ.get("SLICER_SOURCE")
    if not folder:
        return None
    if not (Path(folder) / "Base/Python/slicer/ScriptedLoadableModule.py").is_file():
        raise FileNotFoundError(f"SLICER_SOURCE={folder} is no checkout of Slicer: it has no folder Base/Python/slicer")
    return Path(folder).resolve()


def install(folder):
    """Import them under the names by which Slicer knows them."""
    for place, names in OTHER_WIDGETS.items():
        for name in names:
            if not hasattr(place, name):
                setattr(place, name, type(name, (QtWidgets.QWidget,), {}))
    path = str(folder / "Base/Python/slicer")
    if path not in slicer.__path__:
        slicer.__path__.append(path)
    for name in MODULES:
        sys.modules.pop(f"slicer.{name}", None)
    for name in MODULES:
        setattr(slicer, name, importlib.import_module(f"slicer.{name}"))
    from .services import pip_install

    slicer.packaging.pip_install = slicer.packaging.pip_uninstall = pip_install  # installs nothing
    sys.modules["SampleData"] = _load("SampleData", folder / "Modules/Scripted/SampleData/SampleData.py")
    name = "AbstractScriptedSegmentEditorEffect"
    effect = _load(f"SegmentEditorEffects.{name}", folder / EFFECTS / f"{name}.py")
    package = types.ModuleType("SegmentEditorEffects")  # the file of the real package loads all of Slicer's effects
    setattr(package, name, getattr(effect, name))
    package.__all__ = [name]
    sys.modules["SegmentEditorEffects"] = package


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
