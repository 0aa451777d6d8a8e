"""The loss of training: Dice + cross entropy, at each resolution of deep supervision."""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from monai.networks.utils import one_hot
from torch import Tensor, nn

from ..data.dataset import IGNORED


class DiceCrossEntropy(nn.Module):
    """Dice of the labels + cross entropy, each the mean over patches, without voxels that are IGNORED.

    The mean over patches makes a batch on one device the same as its parts on several. Dice of an empty patch with P
    voxels marked is ``smooth`` / (P + ``smooth``): with a tiny one it is 0 whatever P is, and teaches nothing.
    """

    def __init__(self, smooth: float = 1e-5) -> None:
        super().__init__()
        self.dice = DiceLoss(include_background=False, smooth_nr=smooth, smooth_dr=smooth)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, classes, S), labels (B, 1, S) of whole numbers."""
        known = labels != IGNORED
        truth = one_hot(labels.where(known, 0), logits.shape[1], dtype=torch.float32)
        dice = self.dice(logits.float().softmax(1) * known, truth * known)
        errors = nn.functional.cross_entropy(logits, labels[:, 0], ignore_index=IGNORED, reduction="none")
        return dice + (errors.flatten(1).sum(1) / known.flatten(1).sum(1).clamp_min(1)).mean()


class DeepSupervisionLoss(nn.Module):
    """Dice + cross entropy at each resolution, weighted 1, 1/2, 1/4, ... and normalised to sum 1."""

    def __init__(self, smooth: float = 1e-5) -> None:
        super().__init__()
        self.loss = DiceCrossEntropy(smooth)

    def forward(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """Logits (B, classes, S), or a list of them from fine to coarse; labels (B, 1, S) of whole numbers."""
        outputs = outputs if isinstance(outputs, list) else [outputs]
        weights = [0.5**level for level in range(len(outputs))]
        total = sum(
            weight * self.loss(logits, nearest(labels, logits.shape[2:]))
            for weight, logits in zip(weights, outputs, strict=True)
        )
        return total / sum(weights)


def nearest(labels: Tensor, shape: torch.Size) -> Tensor:
    """Labels (B, 1, S) at another resolution."""
    if labels.shape[2:] == shape:
        return labels
    return nn.functional.interpolate(labels.float(), size=shape, mode="nearest-exact").long()
