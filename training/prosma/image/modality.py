"""What kind of image a DICOM header declares, against what a model was trained on. The same for every door.

A header that says nothing, or a kind by which nothing can be told (OT, SC), counts for nothing. Needs the standard library
alone.
"""

from __future__ import annotations

from collections.abc import Sequence

KINDS = ("CT", "MR", "PT", "NM", "US", "MG", "CR", "DX")  # DICOM PS3.3 section C.7.3.1.1.1, that no photograph is
NAMES = {"PET": "PT"}  # what packages call them otherwise
PHOTOGRAPHS = "colour image"


def declared_otherwise(model_modality: str, declared: Sequence[str]) -> str | None:
    """The first of the kinds declared by an image's headers that is none of the model's (`modality` of model.json).

    None where nothing speaks against the model, or nothing is known of what it takes.
    """
    wanted = {NAMES.get(part, part) for part in model_modality.split("/")}
    if not wanted <= {*KINDS, PHOTOGRAPHS}:
        return None
    return next((kind for kind in declared if kind in KINDS and kind not in wanted), None)
