"""The Segment Editor effect "ProSMA Refine". The way of a Refine stroke:

| station | file | what happens |
| --- | --- | --- |
| mouse | `SegmentEditorEffect` | the brush's way in mm, and what the stroke says: belongs, or does not |
| | `BrushOutline` | the brush under the mouse |
| session | `RefineSession` | which segment, all strokes so far, where masking allows changes; Apply and Cancel |
| voxels | `StrokeVoxels` | which voxels the brush has covered |
| border | `RefineStroke` | image, probabilities and earlier strokes around it, given to `prosma.correct.refine` |
| preview | `RefinePreview` | what would be added and removed, in all views |
"""

import ProSMASegmentationLib  # noqa: F401 (first: it finds the engine, whose light files are used here)
from SegmentEditorProSMARefineLib.SegmentEditorEffect import SegmentEditorEffect

__all__ = ["SegmentEditorEffect"]
