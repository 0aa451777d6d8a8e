"""Segments: written, recognised, measured; kept probabilities.

| file | what it holds |
| --- | --- |
| `ResultWriter` | from the engine's label map to segments, never over a person's work |
| `FingerprintSteps` | whether a segment was edited, slab by slab; the rule is `prosma.image.edited_segments` |
| `SegmentLabelmap` | the label image behind a segment |
| `SegmentStatus` | tags, locks and states of segments |
| `Terminology` | standard terms of the labels |
| `KeptProbabilities` | the class probabilities of results, on disk; `KeptResult` is one of them |
| `MillilitreTable` | volumes of segments, following edits |
| `ShownSurfaces` | surfaces while voxels change |
| `SegmentationFollower` | tells once that a segmentation has changed |
| `SegmentEditors` | the Segment Editor widgets of the application |
"""
