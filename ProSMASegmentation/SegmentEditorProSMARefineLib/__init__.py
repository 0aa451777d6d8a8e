"""The Segment Editor effect "ProSMA Refine"."""

from SegmentEditorProSMARefineLib.SegmentEditorEffect import SegmentEditorEffect

__all__ = ["SegmentEditorEffect"]
