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
        self.smooth = float(smooth)
        self.dice = DiceLoss(include_background=False, smooth_nr=smooth, smooth_dr=smooth)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, classes, S), labels (B, 1, S) of whole numbers."""
        known = labels != IGNORED
        truth = one_hot(labels.where(known, 0), logits.shape[1], dtype=torch.float32)
        dice = self.dice(logits.float().softmax(1) * known, truth * known)
        errors = nn.functional.cross_entropy(logits, labels[:, 0], ignore_index=IGNORED, reduction="none")
        return dice + (errors.flatten(1).sum(1) / known.flatten(1).sum(1).clamp_min(1)).mean()


class DiceCrossEntropyFunction(torch.autograd.Function):
    """`DiceCrossEntropy` with a backward pass of its own: one softmax for both halves, and no labels as one-hot maps.

    With p = softmax(z), I, P and T the sums over known voxels of p at the label, of p and of 1 at the label, for each
    patch and class, D = P + T + smooth, and n patches times labels, Dice depends on p through

        dL/dp_c = (2 I_c + smooth) / D_c^2 / n - [c is the label] 2 / D_c / n        for each label c, 0 for the background.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, smooth: float) -> Tensor:
        """Logits (B, classes, S), labels (B, 1, S) of whole numbers -> the loss."""
        batch, classes = logits.shape[:2]
        places = labels.flatten(2)
        known = places != IGNORED
        all_known = bool(known.all())
        places = places if all_known else places.where(known, 0)
        log_p = logits.contiguous().flatten(2).log_softmax(1)  # a class after the other in memory: quicker
        at_label = log_p.gather(1, places)
        counts = known.sum(2).clamp_min(1)
        entropy = -(at_label * known).sum(2) / counts
        p = log_p.exp_()
        if not all_known:
            p *= known
        bins = (places[:, 0] + classes * torch.arange(batch)[:, None]).flatten()
        overlap = torch.bincount(bins, (at_label.exp() * known).double().flatten(), batch * classes)
        present = torch.bincount(bins, known.double().flatten(), batch * classes)
        above = (2 * overlap.view(batch, classes) + smooth)[:, 1:]
        below = (present.view(batch, classes) + p.sum(2) + smooth)[:, 1:]
        n = above.numel()
        background = above.new_zeros(batch, 1)
        everywhere = torch.cat([background, above / below**2 / n], 1).to(p.dtype)
        at_labels = torch.cat([background, -2 / below / n], 1).to(p.dtype)
        ctx.save_for_backward(p, places, known, everywhere, at_labels, (1 / (batch * counts)).to(p.dtype))
        ctx.shape = logits.shape
        return ((1 - above / below).mean() + entropy.mean()).to(p.dtype)

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, None, None]:
        """dL/dz = p (dL/dp - sum of p dL/dp) + (p - [c is the label]) / known voxels / patches."""
        p, places, known, everywhere, at_labels, weight = ctx.saved_tensors
        here = at_labels.gather(1, places[:, 0])[:, None] * p.gather(1, places)
        mean = torch.bmm(everywhere[:, None], p) + here - weight[:, None]
        result = (everywhere[:, :, None] - mean).mul_(p)
        result.scatter_add_(1, places, (here - weight[:, None]) * known)
        return result.mul_(slope).view(ctx.shape), None, None


class FastDiceCrossEntropy(DiceCrossEntropy):
    """The same in less time on a CPU; on other devices, and where half precision comes in, `DiceCrossEntropy` itself."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        if logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.float64):
            return DiceCrossEntropyFunction.apply(logits, labels, self.smooth)
        return super().forward(logits, labels)


class DeepSupervisionLoss(nn.Module):
    """Dice + cross entropy at each resolution, weighted 1, 1/2, 1/4, ... and normalised to sum 1."""

    def __init__(self, smooth: float = 1e-5, fast: bool = False) -> None:
        super().__init__()
        self.loss = FastDiceCrossEntropy(smooth) if fast else DiceCrossEntropy(smooth)

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
