"""What one run gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..image.axes import zeros
from ..image.box import Box, slices
from .fit import Fit
from .quality import Expected
from .quality_meter import Sums


@dataclass
class Segmentation:
    """Labels and what goes with them, on the image's grid.

    `labels` is (I, J, K), uint8 (uint16 beyond 255 labels), on the image's whole grid. `probabilities` (classes with
    background, I, J, K), `uncertainty` (normalised entropy) and `gate_map` (share of skip features that the gates keep,
    averaged over levels), (I, J, K), are uint8 0 ... 255 on the part of the grid in `box`, or None where not asked for.
    `reach`, with the probabilities: for each label the smallest box of the whole grid where its probability is above 0 in
    8 bits, None where nowhere. `statistics` holds `removed_share` (0 ... 1) and `levels`, coarse to fine; `seconds` total,
    preparing, fit, network. `described` are the model's labels that this result may hold: where a finder named sides, those
    of the regions found. `fit`: whether the image looks like those that the model was trained on. `measures`: what the scores
    say of each label, by its value, and `expected_dice` what follows from them where the package has statistics for it.
    `presence`: how likely a picture shows a structure, 0 to 1; None where the package cannot tell. `device_notices` are those
    of the `notices` that say why the device is not the one wished for.
    """

    labels: np.ndarray
    box: Box
    device: str
    notices: list[str] = field(default_factory=list)
    device_notices: list[str] = field(default_factory=list)
    statistics: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)
    probabilities: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    gate_map: np.ndarray | None = None
    reach: list[Box | None] | None = None
    described: list[dict] = field(default_factory=list)
    fit: Fit = field(default_factory=lambda: Fit("unknown"))
    measures: dict[int, Sums] = field(default_factory=dict)
    expected_dice: dict[int, Expected] = field(default_factory=dict)
    presence: float | None = None


def on_whole_grid(labels: np.ndarray, shape: Sequence[int], box: Box) -> np.ndarray:
    """Labels of the part in `box` on a grid of `shape`, 0 elsewhere."""
    if tuple(labels.shape) == tuple(shape):
        return labels
    result = zeros(shape, labels.dtype)
    result[slices(box)] = labels
    return result
