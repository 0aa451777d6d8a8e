"""The loss in numbers that can be checked by hand (training/prosma/learning/fit/loss.py)."""

import math

import pytest
import torch

from prosma.learning.data.dataset import IGNORED
from prosma.learning.fit import loss as losses
from prosma.learning.fit.loss import DeepSupervisionLoss, DiceCrossEntropyFunction, FastDiceCrossEntropy, nearest


@pytest.fixture(params=["plain", "fast"])
def DiceCrossEntropy(request):
    return losses.DiceCrossEntropy if request.param == "plain" else FastDiceCrossEntropy


def logits_of(*probabilities):
    """(1, classes, 1, n): logits whose softmax these probabilities are, a row for each class."""
    return torch.tensor(probabilities).log()[None, :, None, :]


def labels_of(*values):
    return torch.tensor(values).reshape(1, 1, 1, -1)


def test_two_classes_in_numbers(DiceCrossEntropy):
    logits, labels = logits_of([0.25, 0.9], [0.75, 0.1]), labels_of(1, 0)
    # Dice of the label: 1 - 2 * 0.75 / (0.75 + 0.1 + 1); cross entropy: the mean of -ln 0.75 and -ln 0.9
    dice, entropy = 1 - 1.5 / 1.85, -(math.log(0.75) + math.log(0.9)) / 2
    assert DiceCrossEntropy()(logits, labels).item() == pytest.approx(dice + entropy, abs=1e-5)
    assert (dice, entropy) == pytest.approx((0.18919, 0.19652), abs=1e-5)


def test_background_has_no_dice_and_labels_count_alike(DiceCrossEntropy):
    logits = logits_of([0.5, 0.2, 0.1], [0.25, 0.7, 0.1], [0.25, 0.1, 0.8])
    labels = labels_of(0, 1, 2)
    # label 1: 1 - 2 * 0.7 / (1.05 + 1), label 2: 1 - 2 * 0.8 / (1.15 + 1)
    dice = ((1 - 1.4 / 2.05) + (1 - 1.6 / 2.15)) / 2
    entropy = -(math.log(0.5) + math.log(0.7) + math.log(0.8)) / 3
    assert DiceCrossEntropy()(logits, labels).item() == pytest.approx(dice + entropy, abs=1e-5)


def test_smoothing_is_added_to_both_sides_of_the_ratio(DiceCrossEntropy):
    logits, labels = logits_of([0.25, 0.9], [0.75, 0.1]), labels_of(1, 0)
    dice, entropy = 1 - (1.5 + 2) / (1.85 + 2), -(math.log(0.75) + math.log(0.9)) / 2
    assert DiceCrossEntropy(2.0)(logits, labels).item() == pytest.approx(dice + entropy, abs=1e-6)
    # an empty patch with P = 0.85 voxels marked: 1 - smooth / (P + smooth)
    empty = DiceCrossEntropy(2.0)(logits, labels_of(0, 0)).item()
    assert empty == pytest.approx(1 - 2 / 2.85 - (math.log(0.25) + math.log(0.9)) / 2, abs=1e-6)
    for loss in (
        DiceCrossEntropy(),
        DeepSupervisionLoss(),
        DeepSupervisionLoss(fast=True),
    ):  # a hundred-thousandth unless told otherwise
        unsmoothed = loss(logits, labels_of(0, 0)).item()
        assert unsmoothed == pytest.approx(1 - 1e-5 / 0.85001 - (math.log(0.25) + math.log(0.9)) / 2, abs=2e-6)


def test_ignored_voxels_have_no_part_in_either_half(DiceCrossEntropy):
    logits = logits_of([0.25, 0.9, 0.001, 0.5], [0.75, 0.1, 0.999, 0.5])
    known = DiceCrossEntropy()(logits[..., :2], labels_of(1, 0))
    assert DiceCrossEntropy()(logits, labels_of(1, 0, IGNORED, IGNORED)).item() == pytest.approx(known.item(), abs=1e-6)


def test_a_patch_of_ignored_voxels_teaches_nothing_but_its_empty_dice(DiceCrossEntropy):
    logits = logits_of([0.25, 0.9], [0.75, 0.1]).requires_grad_()
    loss = DiceCrossEntropy()(logits, labels_of(IGNORED, IGNORED))
    assert loss.item() == pytest.approx(0, abs=1e-6)  # smooth / smooth: nothing there, nothing marked
    loss.backward()
    assert (logits.grad == 0).all()


def test_each_patch_counts_alike_however_much_of_it_is_known(DiceCrossEntropy):
    one, two = logits_of([0.25, 0.9], [0.75, 0.1]), logits_of([0.4, 0.3], [0.6, 0.7])
    first, second = labels_of(1, 0), labels_of(1, IGNORED)
    loss = DiceCrossEntropy()
    both = loss(torch.cat([one, two]), torch.cat([first, second])).item()
    assert both == pytest.approx((loss(one, first).item() + loss(two, second).item()) / 2, abs=1e-6)
    # the second: Dice 1 - 2 * 0.6 / 1.6, cross entropy -ln 0.6 over its one known voxel
    assert loss(two, second).item() == pytest.approx(1 - 1.2 / 1.6 - math.log(0.6), abs=1e-5)


def test_resolutions_weigh_one_a_half_a_quarter_of_their_sum(DiceCrossEntropy):
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (2, 1, 8, 8))
    outputs = [torch.randn(2, 3, size, size) for size in (8, 4, 2)]
    single = DiceCrossEntropy()
    losses = [
        single(logits, labels[:, :, first::step, first::step]).item()
        for logits, (first, step) in zip(outputs, ((0, 1), (1, 2), (2, 4)), strict=True)
    ]
    expected = (losses[0] + losses[1] / 2 + losses[2] / 4) / 1.75
    assert DeepSupervisionLoss()(outputs, labels).item() == pytest.approx(expected, abs=1e-6)
    assert DeepSupervisionLoss(fast=True)(outputs, labels).item() == pytest.approx(expected, abs=1e-6)
    assert DeepSupervisionLoss()(outputs[0], labels).item() == pytest.approx(losses[0], abs=1e-6)
    smooth = DeepSupervisionLoss(3.0)(outputs[0], labels).item()
    assert smooth == pytest.approx(DiceCrossEntropy(3.0)(outputs[0], labels).item(), abs=1e-6)


def test_labels_at_a_coarser_grid_are_those_in_the_middle_of_its_voxels():
    labels = torch.arange(8).reshape(1, 1, 8)
    assert nearest(labels, torch.Size([4])).tolist() == [[[1, 3, 5, 7]]]
    assert nearest(labels, torch.Size([8])) is labels
    assert nearest(labels, torch.Size([4])).dtype == torch.int64


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 2, 3, 4, 3)])
def test_the_fast_loss_has_the_right_slopes(shape, ignored):
    torch.manual_seed(3)
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]))
    if ignored:
        labels[:, :, 0] = IGNORED
    for smooth in (1e-5, 2.0):
        assert torch.autograd.gradcheck(
            lambda z, smooth=smooth: DiceCrossEntropyFunction.apply(z, labels, smooth), logits
        )


@pytest.mark.parametrize("last", [True, False])
def test_the_fast_loss_and_its_slopes_are_the_plain_ones(last):
    torch.manual_seed(4)
    layout = torch.channels_last_3d if last else torch.contiguous_format
    labels = torch.randint(0, 6, (3, 1, 16, 16, 16))
    labels[0, :, :5], labels[1], labels[2] = IGNORED, 0, IGNORED
    slopes, values = [], []
    for loss in (losses.DiceCrossEntropy(), FastDiceCrossEntropy()):
        logits = (5 * torch.randn(3, 6, 16, 16, 16, generator=torch.Generator().manual_seed(0))).to(
            memory_format=layout
        )
        value = 3 * loss(logits.requires_grad_(), labels)
        value.backward()
        values.append(value.item())
        slopes.append(logits.grad)
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert torch.allclose(*slopes, rtol=1e-3, atol=1e-8)


def test_the_fast_loss_leaves_half_precision_to_the_plain_one(monkeypatch):
    monkeypatch.setattr(DiceCrossEntropyFunction, "apply", None)
    logits, labels = torch.randn(1, 2, 4, 4, dtype=torch.bfloat16), torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    assert FastDiceCrossEntropy()(logits, labels) == losses.DiceCrossEntropy()(logits, labels)
