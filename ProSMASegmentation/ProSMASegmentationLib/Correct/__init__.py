"""Changing a result. Strokes are an effect of the Segment Editor, see SegmentEditorProSMAStrokesLib.

| file | what it holds |
| --- | --- |
| `SensitivityMove` | one movement of a segment's sensitivity |
| `Review` | the places that are most likely wrong, with marks for those looked at |
| `LargestPart` | only the largest connected part of each segment stays |
| `Components` | connected components of a mask, slab by slab |
"""
