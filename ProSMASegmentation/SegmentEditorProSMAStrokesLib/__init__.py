"""The Segment Editor effect "ProSMA Strokes". The way of a stroke:

| station | file | what happens |
| --- | --- | --- |
| mouse | `SegmentEditorEffect` | the way in mm, and what the stroke says: belongs, or does not |
| | `StrokesOptions` | the options, and the keys on the buttons |
| | `BrushOutline`, `RegionOutline` | the brush under the mouse; the box or lasso that is being drawn |
| voxels | `EditedGrid` | the grid that is edited, with image and segments on it |
| | `StrokeVoxels` | which voxels the brush has covered, or a box or lasso encloses |
| session | `StrokesSession` | which segment, all that was said, what the answers change; Apply, Take back and Cancel |
| | `EditMask` | where masking, overwriting and protected segments allow changes |
| | `ModelOdds` | what the model that made the segment is sure of |
| answer | `StrokesModel` | which model answers, or why none does |
| | `NetworkStrokes` | has the engine answer with that model |
| | `RefineStroke` | where there is none: `prosma.correct.refine` moves the border around the stroke |
| preview | `StrokesPreview` | what would be added and removed, in all views |
"""

import ProSMASegmentationLib  # noqa: F401 (first: it finds the engine, whose light files are used here)
from SegmentEditorProSMAStrokesLib.SegmentEditorEffect import SegmentEditorEffect

__all__ = ["SegmentEditorEffect"]
