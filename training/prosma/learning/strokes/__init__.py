"""What a promptable network learns from: objects in any images, and a simulated person who strokes them.

| file | what it holds |
| --- | --- |
| `sets` | data sets in memory, without what is left out |
| `scenes` | an object in an image, drawn at random and changed at random |
| `objects` | pseudo-objects: supervoxels and regions of like values |
| `person` | what a person says about a mask: strokes, points, boxes, lassos |
| `sessions` | person and network in turns on one scene |
"""
