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


def engineBundle():
    """The module ``prosma.package.model_package``, which lists packages. Like the others below it needs no torch."""
    _findEngine()
    from prosma.package import model_package

    return model_package


def engineVersion():
    """The version of ProSMA."""
    _findEngine()
    from prosma import __version__

    return __version__


def engineSensitivity():
    """The module ``prosma.correct.sensitivity``, which moves borders in class probabilities."""
    _findEngine()
    from prosma.correct import sensitivity

    return sensitivity


def engineReview():
    """The module ``prosma.correct.review``, which finds the places to look at first."""
    _findEngine()
    from prosma.correct import review

    return review


def engineGeometry():
    """The module ``prosma.image.geometry``, which knows how channels on several grids become one image."""
    _findEngine()
    from prosma.image import geometry

    return geometry


def engineReading():
    """The module ``prosma.image.reading``, which reads image files."""
    _findEngine()
    from prosma.image import reading

    return reading


def engineRecords():
    """The module ``prosma.batch.records``, which knows what was written into a folder from what."""
    _findEngine()
    from prosma.batch import records

    return records


def engineRefine():
    """The module ``prosma.correct.refine``, which moves borders by strokes."""
    _findEngine()
    from prosma.correct import refine

    return refine


def _findEngine():
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
