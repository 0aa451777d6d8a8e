"""How the log odds of the true Dice go with what a run tells (`inference.quality.features`), over bundled models.

Packages with few validation cases lean on this. Printed by `Testing/benchmarks/quality.py prior`: within each model, so that
how good a model is does not count; each model counts the same.
"""

from __future__ import annotations

SCALE = (  # of the features: their deviations within a model
    1.1488,
    1.1455,
    1.2747,
    0.54164,
    0.40376,
    0.45128,
    0.6147,
    1.0072,
    0.54677,
    0.13734,
    0.82246,
)
SLOPES = (  # of the log odds of the Dice, for one scale
    0.46763,
    0.65558,
    -0.44977,
    -0.68257,
    0.14124,
    0.42573,
    -0.26774,
    0.46947,
    -0.18518,
    -0.19212,
    -0.10252,
)
