"""ProSMA: segmentation with proximal-sparse skip connections.

The public doors, each imported when it is first used, so that this file stays light (Slicer's process imports it)::

    from prosma import Segmenter, find_packages, read_image, write_labels

Everything else is private by convention. `docs/python.md` shows them at work.
"""

from __future__ import annotations

import importlib

__version__ = "1.0.0"

_DOORS = {
    "Image": "prosma.image.geometry",
    "ModelPackage": "prosma.package",
    "ProSMAUNet": "prosma.network.unet",
    "Prompts": "prosma.inference.prompts",
    "Segmenter": "prosma.inference.segmenter",
    "find_packages": "prosma.package",
    "model_folders": "prosma.package",
    "read_image": "prosma.image.reading",
    "resolve": "prosma.package",
    "write_dicom_seg": "prosma.outputs.dicom_seg",
    "write_labels": "prosma.image.writing",
    "write_rtstruct": "prosma.outputs.rtstruct",
}

__all__ = [
    "Image",
    "ModelPackage",
    "ProSMAUNet",
    "Prompts",
    "Segmenter",
    "__version__",
    "find_packages",
    "model_folders",
    "read_image",
    "resolve",
    "write_dicom_seg",
    "write_labels",
    "write_rtstruct",
]


def __getattr__(name: str):
    if name not in _DOORS:
        raise AttributeError(f"module 'prosma' has no attribute '{name}'")
    return getattr(importlib.import_module(_DOORS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
