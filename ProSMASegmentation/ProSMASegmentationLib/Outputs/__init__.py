"""What is made from a result.

| file | what it holds |
| --- | --- |
| `OutputsLogic` | the scripting interface of this room |
| `OutputVolume` | probabilities, uncertainty and gate map as volumes |
| `SegmentMeasures` | volume, surface and agreement as a table |
| `Dice` | the Dice coefficient of two segments |
| `Comparison` | two models on a saved case |
"""
