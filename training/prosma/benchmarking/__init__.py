"""How fast a whole volume is and what it needs, beside what other tools take on the same computer: `prosma benchmark`."""

SHAPE, CLASSES = (256, 256, 160), 5  # of the volume that is measured by default, classes with background
