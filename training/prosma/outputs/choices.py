"""What a person can choose about results; light, for the command line imports it to tell of it."""

from __future__ import annotations

from ..image.constants import LABEL_SUFFIXES

BINARY, LABELMAP = "binary", "labelmap"
SEG_TYPES = (BINARY, LABELMAP)  # of DICOM segmentations: a frame for each segment and slice, or one for each slice

RTSTRUCT, SEG = ".rtstruct.dcm", ".dcm"
PREVIEW = ".preview.png"
VOLUMES = {  # endings of files with what the network said, and the output of a run that they hold
    ".probabilities.nrrd": "probabilities",
    ".uncertainty.nrrd": "uncertainty",
    ".gate-map.nrrd": "gate_map",
}
STL, OBJ = ".stl", ".obj"
BESIDE = (PREVIEW, *VOLUMES, STL, OBJ)  # files that a result can have beside it, but not be
RESULT_SUFFIXES = (*LABEL_SUFFIXES, RTSTRUCT, SEG)
ALSO = (*BESIDE, *RESULT_SUFFIXES)  # all that can lie beside a result
