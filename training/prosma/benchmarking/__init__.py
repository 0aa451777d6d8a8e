"""How fast a whole volume is and what it needs, beside what other tools take on the same computer: `prosma benchmark`.

| file | what it holds |
| --- | --- |
| `subjects` | what is measured: our own path and other tools with networks of equal widths |
| `forward` | a forward pass, in 2D and 3D |
| `click` | a click as the panel makes it |
| `rounds` | rounds of measurements, and growth with the volume |
| `training` | training steps beside others', in turn |
| `training_epoch` | an epoch with its data |
| `training_subjects` | our training step and others' |
| `process` | one measurement in a process of its own |
| `machine` | the computer that was measured |
| `report` | tables for people |
"""

SHAPE, CLASSES = (256, 256, 160), 5  # of the volume that is measured by default, classes with background
