"""Training's fast ways on a CPU (training/prosma/fast/training_*.py): the same numbers and slopes as the plain network's.

Slopes are checked in float64, against differences and against the plain network, where rounding hides nothing; in float32,
the type that is trained in, against those.
"""

import copy

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from prosma.fast import training_network
from prosma.fast.training_convolutions import (
    ConvolutionFunction,
    DepthwiseSumFunction,
    FoldedDecoderFunction,
    PointwiseFunction,
    TwoConvolutionsFunction,
    folded_edge,
    folded_kernel,
)
from prosma.fast.training_gates import ForkFunction, RepeatedProductFunction
from prosma.fast.training_network import TrainedUNet, use_fast_training
from prosma.fast.training_norm import NormFunction
from prosma.network.unet import ProSMAUNet

NETWORKS = {
    "decoder grid": ((2, 1, 16, 24, 16), {"field_grid": "decoder"}),
    "decoder grid, odd sizes": ((1, 1, 13, 17, 10), {"field_grid": "decoder"}),
    "one sample": ((1, 1, 16, 16, 16), {"field_grid": "decoder"}),
    "2D": ((2, 1, 24, 36), {"field_grid": "decoder"}),
    "skip grid": ((2, 1, 16, 16, 16), {"field_grid": "skip"}),
    "no channel gate": ((2, 1, 24, 16), {"field_grid": "decoder", "channel_gate": False}),
    "no spatial gate": ((2, 1, 24, 16), {"field_grid": "decoder", "gate": "none"}),
    "sigmoid": ((2, 1, 24, 16), {"field_grid": "decoder", "gate": "sigmoid"}),
    "soft": ((2, 1, 24, 16), {"field_grid": "decoder", "gate": "soft"}),
    "attention": ((2, 1, 12, 16, 12), {"skip": "attention"}),
    "plain": ((2, 1, 24, 16), {"skip": "plain"}),
    "thick slices": (
        (2, 1, 8, 24, 16),
        {"field_grid": "decoder", "strides": [1, (1, 2, 2), 2], "kernel_sizes": [(1, 3, 3), (1, 3, 3), 3]},
    ),
    "attention at the bottleneck": ((2, 1, 12, 16, 12), {"field_grid": "decoder", "bottleneck": "attention"}),
    "attention at the bottleneck, 2D": ((2, 1, 25, 36), {"bottleneck": "attention", "bottleneck_heads": 2}),
    "wide kernels": ((1, 1, 24, 20), {"field_grid": "decoder", "kernel_sizes": [5, 3, 3], "dilations": (1, 2)}),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def numbers(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def network(shape, **arguments):
    made = ProSMAUNet(len(shape) - 2, 1, 3, (4, 6, 8), deep_supervision=True, **arguments).train()
    with torch.no_grad():
        for weights in made.parameters():  # no symmetries, no zeros
            weights.add_(0.1 * torch.randn_like(weights))
    return made


def slopes_of(network, x):
    outputs = network(x)
    random = torch.Generator().manual_seed(1)
    sum((y * torch.randn(y.shape, generator=random).to(y.dtype)).sum() for y in outputs).backward()
    return outputs, {name: weights.grad for name, weights in network.named_parameters()}


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 3, 4, 2)])
@pytest.mark.parametrize("activation", [0.01, "box", "none"])
def test_slopes_of_the_norm(shape, activation):
    assert gradcheck(
        lambda x, weight, bias: NormFunction.apply(x, weight, bias, 1e-5, activation),
        (numbers(*shape), numbers(3), numbers(3)),
    )


@pytest.mark.parametrize("sizes", [(5, 4), (4, 3, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_slopes_of_a_convolution(sizes, stride):
    axes = len(sizes)
    arguments = numbers(2, 2, *sizes), numbers(3, 2, *[3] * axes), numbers(3)
    assert gradcheck(lambda *them: ConvolutionFunction.apply(*them, [stride] * axes, [1] * axes), arguments)


@pytest.mark.parametrize("sizes", [(5, 4), (4, 3, 5)])
def test_slopes_of_a_concatenations_convolution(sizes):
    axes = len(sizes)
    kernel = [3] * axes
    x, y = numbers(2, 2, *sizes), numbers(2, 3, *sizes)
    arguments = x, numbers(4, 2, *kernel), y, numbers(4, 3, *kernel), numbers(4)
    assert gradcheck(lambda *them: TwoConvolutionsFunction.apply(*them, [1] * axes), arguments)


@pytest.mark.parametrize(("sizes", "step", "kernel"), [((3, 2), (2, 2), (3, 5)), ((2, 3, 2), (1, 2, 2), (1, 3, 3))])
def test_slopes_of_the_folded_upsampling_and_its_result_but_for_a_constant(sizes, step, kernel):
    axes, padding = len(sizes), [size // 2 for size in kernel]
    fine = [size * factor for size, factor in zip(sizes, step, strict=True)]
    coarse, skip, weight = numbers(2, 3, *sizes), numbers(2, 2, *fine), numbers(2, 4, *kernel)
    upsampling, up_bias, bias = numbers(3, 2, *step), numbers(2), numbers(2)

    def folded(coarse, skip, upsampling, up_bias, weight, bias):
        up, rest = weight.chunk(2, dim=1)
        kernels = folded_kernel(upsampling, up), folded_edge(up_bias, up, padding)
        return FoldedDecoderFunction.apply(coarse, *kernels, skip, rest, bias, step, padding)

    arguments = coarse, skip, upsampling, up_bias, weight, bias
    assert gradcheck(folded, arguments)
    transposed = (F.conv_transpose2d, F.conv_transpose3d)[axes - 2](coarse, upsampling, up_bias, step)
    expected = (F.conv2d, F.conv3d)[axes - 2](torch.cat([transposed, skip], 1), weight, bias, padding=padding)
    difference = (folded(*arguments) - expected).flatten(2)
    assert torch.allclose(difference, difference[:1, :, :1], atol=1e-12)


@pytest.mark.parametrize("sizes", [(3, 4), (2, 3, 2)])
def test_slopes_of_a_convolution_of_one_voxel(sizes):
    weight = numbers(2, 3, *[1] * len(sizes))
    assert gradcheck(PointwiseFunction.apply, (numbers(2, 3, *sizes), weight, numbers(2)))
    assert gradcheck(lambda x, weight: PointwiseFunction.apply(x, weight, None), (numbers(2, 3, *sizes), weight))


@pytest.mark.parametrize(("sizes", "kernel"), [((7, 5), (3, 3)), ((4, 6, 5), (3, 3, 3)), ((2, 4, 5), (1, 3, 3))])
def test_slopes_of_the_sum_of_dilated_convolutions_and_its_result(sizes, kernel):
    dilations = [1, 2, 3]
    q, kernels = numbers(2, 2, *sizes), [numbers(2, 1, *kernel) for _ in dilations]
    assert gradcheck(lambda q, *kernels: DepthwiseSumFunction.apply(q, dilations, *kernels), (q, *kernels))
    convolve = (F.conv2d, F.conv3d)[len(sizes) - 2]
    expected = sum(
        convolve(q, weight, None, 1, [d * (size // 2) for size in kernel], d, 2)
        for d, weight in zip(dilations, kernels, strict=True)
    )
    assert torch.allclose(DepthwiseSumFunction.apply(q, dilations, *kernels), expected)


@pytest.mark.parametrize(("fine", "coarse"), [((4, 6), (2, 3)), ((4, 4, 3), (2, 2, 3)), ((2, 6, 4), (2, 3, 2))])
def test_slopes_of_the_gates_grid(fine, coarse):
    x, a = numbers(2, 3, *fine), numbers(2, 3, *coarse)
    assert gradcheck(lambda x: ForkFunction.apply(x, coarse), x)
    assert gradcheck(RepeatedProductFunction.apply, (x, a))
    pool = (F.avg_pool2d, F.avg_pool3d)[len(fine) - 2]
    steps = [size // other for size, other in zip(fine, coarse, strict=True)]
    assert torch.allclose(ForkFunction.apply(x, coarse)[2], pool(x, steps))
    assert torch.allclose(RepeatedProductFunction.apply(x, a), x * F.interpolate(a, size=fine, mode="nearest"))


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_the_plain_ones_results_and_slopes(name, folded, monkeypatch):
    """In float64, where only a mistake makes a difference."""
    shape, arguments = NETWORKS[name]
    plain = network(shape, **arguments).double()
    fast = copy.deepcopy(plain)
    use_fast_training(fast)
    assert type(fast) is TrainedUNet
    monkeypatch.setattr(training_network, "trains_fast", lambda x: True)
    monkeypatch.setattr(training_network, "MANY", 0 if folded else 10**9)
    x = torch.randn(shape, dtype=torch.float64)
    outputs, slopes = slopes_of(fast, x)
    expected_outputs, expected = slopes_of(plain, x)
    for one, other in zip(outputs, expected_outputs, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    for weights, slope in slopes.items():
        assert torch.allclose(slope, expected[weights], rtol=1e-7, atol=1e-9), weights


@pytest.mark.parametrize("name", ["decoder grid", "decoder grid, odd sizes", "2D", "attention", "thick slices"])
def test_in_float32_slopes_are_as_near_to_the_true_ones_as_pytorchs(name, monkeypatch):
    """The median of five: a voxel on the other side of a LeakyReLU's kink makes a step, in PyTorch's own float32 as well."""
    shape, arguments = NETWORKS[name]
    monkeypatch.setattr(training_network, "MANY", 0)
    off = []
    for number in range(5):
        torch.manual_seed(number)
        fast = network(shape, **arguments)
        exact = copy.deepcopy(fast).double()
        use_fast_training(fast)
        x = torch.randn(shape)
        outputs, slopes = slopes_of(fast, x)
        true_outputs, true = slopes_of(exact, x.double())
        for one, other in zip(outputs, true_outputs, strict=True):
            assert (one - other).norm() < 1e-4 * other.norm()
        away = torch.stack([(slopes[weights].double() - true[weights]).norm() for weights in true]).norm()
        off.append(float(away / torch.stack([slope.norm() for slope in true.values()]).norm()))
    assert sorted(off)[2] < 1e-5


def test_long_tensors_are_normed_in_pieces():
    x = (3 * torch.randn(2, 4, 40, 64, 40) + 2).requires_grad_()
    weight, bias = torch.randn(2, 4)
    slope = torch.randn(x.shape)
    y = NormFunction.apply(x, weight, bias, 1e-5, 0.01)
    y.backward(slope)
    exact = x.detach().double().requires_grad_()
    expected = F.leaky_relu(F.instance_norm(exact, weight=weight.double(), bias=bias.double()), 0.01)
    expected.backward(slope.double())
    assert torch.allclose(y.double(), expected, atol=1e-5)
    off = (x.grad - exact.grad).abs()
    assert (off > 1e-5).float().mean() < 1e-5  # but for voxels at the kink


@pytest.mark.parametrize("why", ["no gradients", "float64", "autocast", "no oneDNN"])
def test_where_there_is_no_fast_way_the_plain_one_is_taken_to_the_bit(why):
    shape, arguments = NETWORKS["decoder grid"]
    plain = network(shape, **arguments)
    x = torch.randn(shape)
    if why == "float64":
        plain, x = plain.double(), x.double()
    fast = copy.deepcopy(plain)
    use_fast_training(fast)
    with (
        torch.set_grad_enabled(why != "no gradients"),
        torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"),
        torch.backends.mkldnn.flags(enabled=why != "no oneDNN"),
    ):
        for one, other in zip(fast(x), plain(x), strict=True):
            assert torch.equal(one, other)


def test_names_and_weights_stay_and_wrong_images_are_refused():
    plain = network((1, 1, 16, 16))
    fast = copy.deepcopy(plain)
    use_fast_training(fast)
    assert list(fast.state_dict()) == list(plain.state_dict())
    with pytest.raises(ValueError, match="The network takes"):
        fast(torch.zeros(1, 2, 16, 16))
