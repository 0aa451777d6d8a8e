"""The module `qt` of Slicer's Python: one flat namespace of Qt's classes."""

from . import dialogs, pythonqt
from .uiloader import QUiLoader

for _module in pythonqt.QT_MODULES:
    for _name in dir(_module):
        if not _name.startswith("_"):
            globals().setdefault(_name, getattr(_module, _name))

__all__ = ["QUiLoader", "dialogs"]
