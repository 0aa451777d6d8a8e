"""Attention at the coarsest stage (training/prosma/network/bottleneck.py): formula, slopes, any size, the fast network."""

import copy

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from scipy.special import erf, softmax
from torch.autograd import gradcheck
from torch.func import functional_call

from prosma.fast.network import FastNetwork, accelerate
from prosma.fast.training_network import use_fast_training
from prosma.network.bottleneck import AttentionBlock
from prosma.network.unet import ProSMAUNet

SIZES = {2: [(64, 64), (20, 30), (7, 9), (8, 8), (96, 41)], 3: [(32, 32, 32), (12, 20, 9), (8, 8, 8), (5, 40, 17)]}


def random_weights(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return module.eval()


def network(dims, **arguments):
    torch.manual_seed(0)
    made = ProSMAUNet(dims, 1, 3, (4, 8, 8), bottleneck="attention", **arguments)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.eval()


def normalised(x, norm):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + norm.eps) * norm.weight.numpy() + norm.bias.numpy()


def linear(x, layer):
    return x @ layer.weight.numpy().T + layer.bias.numpy()


@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 2), (1, 1, 7)])
@torch.no_grad()
def test_the_block_is_its_formula(shape):
    """In numpy, with the matrix of all pairs written out."""
    channels, heads = 6, 3
    block = random_weights(AttentionBlock(len(shape), channels, heads).double())
    x = np.random.default_rng(0).normal(size=(channels, *shape))
    kernels, bias = block.position.weight.numpy()[:, 0], block.position.bias.numpy()
    moved = [correlate(plane, kernel, mode="constant") + b for plane, kernel, b in zip(x, kernels, bias, strict=True)]
    rows = (x + np.stack(moved)).reshape(channels, -1).T
    parts = linear(normalised(rows, block.attention_norm), block.query_key_value)
    query, key, value = np.split(parts, 3, axis=1)
    answers = []
    for head in np.split(np.arange(channels), heads):
        scores = query[:, head] @ key[:, head].T / np.sqrt(channels / heads)
        answers.append(softmax(scores, axis=1) @ value[:, head])
    rows = rows + linear(np.concatenate(answers, axis=1), block.attention_out)
    hidden = linear(normalised(rows, block.perceptron_norm), block.perceptron[0])
    rows = rows + linear(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, block.perceptron[2])
    found = block(torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_allclose(found, rows.T.reshape(channels, *shape), atol=1e-10)


@torch.no_grad()
def test_it_sees_far_voxels_and_knows_where_they_are():
    block = random_weights(AttentionBlock(3, 8, 2).double())
    x = torch.randn(1, 8, 9, 9, 9, dtype=torch.float64)
    other = x.clone()
    other[..., 8, 8, 8] += 5
    near = block(x) - block(other)
    assert near[..., 0, 0, 0].abs().max() > 1e-6, "a convolution of 3 does not reach so far"
    turned = block(x.flip(2)).flip(2)
    assert (turned - block(x)).abs().max() > 1e-2, "without positions the two would be the same"


def test_slopes_are_those_of_differences():
    block = random_weights(AttentionBlock(2, 4, 2).double()).train()
    x = torch.randn(1, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(block, (x,))
    weight, fixed = block.query_key_value.weight, x.detach()
    assert gradcheck(lambda w: functional_call(block, {"query_key_value.weight": w}, (fixed,)).sum(), (weight,))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("grid", ["skip", "decoder"])
def test_the_fast_network_gives_the_same_at_every_size(dims, grid):
    plain = network(dims, field_grid=grid, bottleneck_heads=2)
    fast = accelerate(plain, precision="float32")
    assert isinstance(fast, FastNetwork)
    without = copy.deepcopy(plain)
    without.bottleneck = torch.nn.Sequential()
    for size in SIZES[dims]:
        x = torch.randn(1, 1, *size)
        with torch.inference_mode():
            found, expected, other = fast(x), plain(x), without(x)
            exact = copy.deepcopy(plain).double()(x.double())
        assert found.shape == (1, 3, *size)
        scale = exact.abs().max()
        assert (found - exact).abs().max() <= 4 * (expected - exact).abs().max() + 1e-5 * scale
        assert (other - expected).abs().max() > 1e-2 * scale, "the bottleneck does something"


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 here")
@pytest.mark.parametrize("dims", [2, 3])
def test_in_half_precision_it_stays_close(dims):
    plain = network(dims, field_grid="decoder")
    fast = accelerate(plain, precision="half")
    x = torch.randn(1, 1, *SIZES[dims][0])
    with torch.inference_mode():
        found, expected = fast(x), plain(x)
    assert found.dtype == torch.float32
    assert (found - expected).abs().mean() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("dims", [2, 3])
def test_fast_training_has_the_slopes_of_plain_training(dims):
    plain = network(dims, field_grid="decoder").train()
    fast = copy.deepcopy(plain)
    use_fast_training(fast)
    x = torch.randn(2, 1, *SIZES[dims][1])
    for each in (plain, fast):
        (each(x) ** 2).mean().backward()
    for (name, one), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-4 * one.grad.abs().max() + 1e-7), name
    assert all(parameter.grad.abs().max() > 0 for parameter in fast.bottleneck.parameters())


def test_all_other_weights_start_as_without_it():
    """And no network has it unless it is asked for."""
    made = []
    for arguments in ({}, {"bottleneck": "attention", "bottleneck_blocks": 3}):
        torch.manual_seed(1)
        made.append(ProSMAUNet(3, 1, 2, (4, 8), **arguments).state_dict())
    default, attention = made
    assert all(torch.equal(tensor, attention[name]) for name, tensor in default.items())
    more = {name.split(".")[1] for name in attention.keys() - default.keys() if name.startswith("bottleneck.")}
    assert more == {"0", "1", "2"} and not any(name.startswith("bottleneck") for name in default)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"bottleneck": "mamba"}, "bottleneck should be one of"),
        ({"bottleneck": "attention", "bottleneck_heads": 3}, "divide"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, why):
    with pytest.raises(ValueError, match=why):
        ProSMAUNet(2, 1, 2, (4, 8), **arguments)
