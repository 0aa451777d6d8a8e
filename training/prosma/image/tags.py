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
EXPECTED_DICE = "ProSMA.expectedDice"  # of the run's own result: JSON with mean, low, high
QUALITY = "ProSMA.quality"  # the same for a person: `quality_in_words`
RUN = "ProSMA.run"  # of which run's class probabilities the segment was made
INPUT = "ProSMA.input"  # digest of the image that a batch made the segment from

EMPTY = "empty"  # as fingerprint: of no voxels
EDITED = "edited"  # as fingerprint: never that of any voxels

GOOD, FAIR = 0.85, 0.7  # expected Dice from which on a segment is called so

# Tags of a segment: what became of it
STATE = "ProSMA.state"  # which of the masks that ProSMA wrote since then; absent for the run's own
SENSITIVITY = "ProSMA.sensitivity"  # shift of the log odds; absent for the model's own border
LOCKED = "ProSMA.locked"  # by a person
STROKES = "ProSMA.strokes"  # its first voxels were made by strokes

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


def quality_word(expected: dict | None) -> str:
    """A plain word for an expected Dice (`mean`, `low`, `high`); empty for None."""
    if not expected:
        return ""
    mean = float(expected["mean"])
    return "good" if mean >= GOOD else "fair" if mean >= FAIR else "poor"


def quality_in_words(expected: dict | None) -> str:
    """The word with the numbers behind it; empty for None."""
    if not expected:
        return ""
    mean, low, high = (float(expected[name]) for name in ("mean", "low", "high"))
    return f"{quality_word(expected)}, {mean:.2f} ({low:.2f} to {high:.2f})"


def quality_tags(expected: dict | None) -> dict[str, str]:
    """The tags of a segment of which this is expected; empty for None."""
    return {EXPECTED_DICE: json.dumps(expected), QUALITY: quality_in_words(expected)} if expected else {}
