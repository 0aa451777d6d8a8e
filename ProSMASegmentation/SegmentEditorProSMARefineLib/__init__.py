"""The Segment Editor effect "ProSMA Refine"."""

import ProSMASegmentationLib  # noqa: F401 (first: it finds the engine, whose light files are used here)
from SegmentEditorProSMARefineLib.SegmentEditorEffect import SegmentEditorEffect

__all__ = ["SegmentEditorEffect"]
