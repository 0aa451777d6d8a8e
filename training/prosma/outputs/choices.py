"""What a person can choose about results; light, for the command line imports it to tell of it."""

from __future__ import annotations

BINARY, LABELMAP = "binary", "labelmap"
SEG_TYPES = (BINARY, LABELMAP)  # of DICOM segmentations: a frame for each segment and slice, or one for each slice
