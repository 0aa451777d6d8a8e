"""Where ProSMA's parts lie, both when installed as an extension and when run from a source tree."""

import shutil
import sys
from pathlib import Path

from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError


def moduleFolder():
    """The folder that holds ProSMASegmentation.py and its Resources."""
    return Path(__file__).resolve().parents[2]


def engineSource():
    """The folder to put on Python's path so that ``prosma`` can be imported."""
    for folder in (moduleFolder(), moduleFolder().parent / "training"):
        if (folder / "prosma" / "__init__.py").is_file():
            return folder
    raise ProSMAError(
        "no_engine",
        _("ProSMA's engine is not where it should be, beside the module."),
        _("Install the extension again, or keep the folder 'training' beside 'ProSMASegmentation'."),
    )


def findEngine():
    """Let Python find ``prosma`` in Slicer's process too, which takes the engine's light files from it."""
    source = str(engineSource())
    if source not in sys.path:
        sys.path.append(source)


def samplesFolder():
    """The folder of bundled sample volumes, or None if this copy of ProSMA has none."""
    for folder in (moduleFolder() / "Resources" / "Samples", moduleFolder().parent / "Resources" / "Samples"):
        if folder.is_dir():
            return folder
    return None


def pythonExecutable():
    """The interpreter for the engine: Slicer's own, with Slicer's packages."""
    return shutil.which("PythonSlicer") or sys.executable
