"""Several networks as one. Imports torch: take it in only after `devices.import_torch`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .prediction import class_probabilities


class Ensemble(nn.Module):
    """Networks of one kind that answer together: the logits of their mean class probabilities (softmax).

    Probabilities and not logits are averaged (Lakshminarayanan et al., arXiv:1612.01474), as over flips: a network that is
    far too sure of itself counts no more than the others. They run one after the other, so that what several take at once
    above one is their weights and one more array of scores.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, S) -> (B, classes, S), float32: logarithms of probabilities, whose softmax they are again."""
        total = class_probabilities(self.networks[0], x)
        for network in list(self.networks)[1:]:
            total = total.add_(class_probabilities(network, x))
        return total.div_(len(self.networks)).clamp_min_(torch.finfo(torch.float32).tiny).log_()
