"""Names under which ProSMA keeps facts: tags of segments, attributes and references of nodes in Slicer.

Command line and Slicer write the same ones, so that each recognises the results of the other.
"""

from __future__ import annotations

import json

# Tags of a segment: what it was made by and from
MODEL = "ProSMA.model"
VERSION = "ProSMA.version"
SHA256 = "ProSMA.sha256"
OPTIONS = "ProSMA.options"
LABEL = "ProSMA.label"
FINGERPRINT = "ProSMA.fingerprint"  # of the voxels that were written, see edited_segments.py
RUN = "ProSMA.run"  # of which run's class probabilities the segment was made
INPUT = "ProSMA.input"  # digest of the image that a batch made the segment from

EMPTY = "empty"  # as fingerprint: of no voxels
EDITED = "edited"  # as fingerprint: never that of any voxels

# Tags of a segment: what became of it
STATE = "ProSMA.state"  # which of the masks that ProSMA wrote since then; absent for the run's own
SENSITIVITY = "ProSMA.sensitivity"  # shift of the log odds; absent for the model's own border
LOCKED = "ProSMA.locked"  # by a person

# Attributes of nodes in Slicer's scene, and a reference
NODE_MODEL = "ProSMA.model"  # of a sequence of segmentations
NODE_OUTPUT = "ProSMA.output"  # of volumes that are results, not images
NODE_REVIEW = "ProSMA.review"  # of a segmentation: its list of places to look at
NODE_SOURCE = "ProSMA.source"  # from a sequence of segmentations to the sequence that was segmented


def provenance(package, options: dict | None = None) -> dict[str, str]:
    """The tags that say where a segment comes from; `options` are what the run was made with."""
    return {
        MODEL: package.id,
        VERSION: package.version,
        SHA256: package.sha256,
        OPTIONS: json.dumps(options or {}, sort_keys=True),
    }
