"""The gate in numbers that can be checked by hand (training/prosma/network/gate.py, gate_monitor.py).

The gates here have one skip channel each or channels that do not mix, a depthwise kernel of one voxel with weight 1, and a
decoder that adds nothing: the field is the normalised input itself.
"""

import inspect
import math

import numpy as np
import pytest
import torch

from prosma.network.gate import (
    ChannelGate,
    CompatibilityField,
    ProximalSkipGate,
    SpatialGate,
    along_channels,
    average_to,
    box_soft_threshold,
    instance_norm,
    inverse_softplus,
    per_axis,
    selection_parameters,
    soft_threshold,
)
from prosma.network.gate_monitor import GateMonitor

TO_ONE = 1 / math.sqrt(1 + 1e-5)  # what instance norm makes of values -1 and 1: its variance has 1e-5 added


pytestmark = pytest.mark.usefixtures("double_precision")


def simple_gate(dims=2, channels=1, **arguments):
    gate = ProximalSkipGate(dims, channels, 1, dilations=(1,), kernel_size=1, channel_gate=False, **arguments)
    field = gate.spatial.field
    field.project_skip.weight.data = torch.eye(channels).reshape(channels, channels, *[1] * dims)
    field.project_decoder.weight.data.zero_()
    field.scales[0].weight.data.fill_(1)
    return gate


def image(*values):
    """(1, 1, 1, n) of these values, and a decoder feature of the same shape."""
    x = torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)
    return x, torch.zeros_like(x)


def test_soft_thresholds_in_numbers():
    u, threshold = torch.tensor([-2.0, -0.5, 0.0, 0.25, 1.5, 3.0]), torch.tensor(0.5)
    assert soft_threshold(u, threshold).tolist() == [-1.5, 0, 0, 0, 1, 2.5]
    assert box_soft_threshold(u, threshold).tolist() == [0, 0, 0, 0, 1, 1]
    assert box_soft_threshold(torch.tensor([0.75, 1.25]), threshold).tolist() == [0.25, 0.75]


def test_inverse_softplus_in_numbers():
    # softplus(rho) = ln(1 + e^rho); for ln 2 that is rho = 0, for ln 3 rho = ln 2
    assert inverse_softplus(math.log(2)) == pytest.approx(0, abs=1e-15)
    assert inverse_softplus(math.log(3)) == pytest.approx(math.log(2))


def test_the_box_gate_in_numbers():
    # 1 and 3 have mean 2 and deviation 1, so z = -1 and 1; a = clip(1 + 0.5 z - 0.25, 0, 1) = 0.25 and 1
    gate = simple_gate()
    y = gate(*image(1, 3))
    low = 1 - 0.5 * TO_ONE - 0.25
    assert y.flatten().tolist() == pytest.approx([low * 1, 1 * 3])


def test_the_sigmoid_gate_in_numbers():
    # a = 1 / (1 + exp(-(2 + 4 * 0.5 z)))
    a, _ = simple_gate(gate="sigmoid").explain(*image(1, 3))
    expected = [1 / (1 + math.exp(-(2 + 2 * z))) for z in (-TO_ONE, TO_ONE)]
    assert a.flatten().tolist() == pytest.approx(expected)
    assert expected == pytest.approx([0.5, 0.982], abs=1e-3)


def test_the_signed_and_the_shrinking_gate_in_numbers():
    # z = -1 and 1, evidence -0.5 and 0.5: soft takes 0.25 off towards zero; shrink is 1 - 0.25 / 0.5
    half = 0.5 * TO_ONE
    a, _ = simple_gate(gate="soft").explain(*image(1, 3))
    assert a.flatten().tolist() == pytest.approx([-half + 0.25, half - 0.25])
    a, _ = simple_gate(gate="shrink").explain(*image(1, 3))
    assert a.flatten().tolist() == pytest.approx([1 - 0.25 / half] * 2)
    a, _ = simple_gate(gate="shrink", threshold_init=0.6).explain(*image(1, 3))
    assert a.flatten().tolist() == [0, 0]
    a, _ = simple_gate(gate="shrink", threshold_init=0.6).explain(*image(3, 3))
    assert a.flatten().tolist() == [0, 0], "no evidence at all is no reason for a NaN"


def test_negative_projections_are_multiplied_by_a_hundredth():
    # -100 and 2 become -1 and 2: mean 0.5, deviation 1.5
    z = simple_gate().spatial.field(*image(-100, 2))
    assert z.flatten().tolist() == pytest.approx([-1, 1], abs=1e-5)
    a, _ = simple_gate(gain_init=0.1).explain(*image(-100, 2, 2, 2))
    # -1, 2, 2, 2: mean 1.25, variance 1.6875; z = -2.25 / 1.299 and 0.75 / 1.299
    expected = [1 - 0.1 * 2.25 / 1.6875**0.5 - 0.25, *[1 + 0.1 * 0.75 / 1.6875**0.5 - 0.25] * 3]
    assert a.flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_the_decoder_adds_to_the_projection():
    gate = simple_gate()
    gate.spatial.field.project_decoder.weight.data.fill_(10)
    gate.spatial.field.project_decoder.bias.data.fill_(7)
    x, _ = image(1, 3)
    g = torch.tensor([2.0, 0.0]).reshape(1, 1, 1, 2)
    # 1 + 20 + 7 = 28 and 3 + 0 + 7 = 10: the first is now the greater one
    assert gate.spatial.field(x, g).flatten().tolist() == pytest.approx([1, -1], abs=1e-5)


def test_scales_are_dilated_padded_and_summed():
    field = CompatibilityField(2, 1, 1, (1, 2), (1, 3))
    assert [scale.dilation for scale in field.scales] == [(1, 1), (2, 2)]
    assert [scale.padding for scale in field.scales] == [(0, 1), (0, 2)]
    assert all(scale.bias is None and scale.groups == 1 for scale in field.scales)
    field.project_skip.weight.data.fill_(1)
    field.project_decoder.weight.data.zero_()
    for scale, weights in zip(field.scales, ([1.0, 0, 0], [0, 0, 2.0]), strict=True):
        scale.weight.data = torch.tensor(weights).reshape(1, 1, 1, 3)
    x = torch.tensor([1.0, 2, 4, 8, 16]).reshape(1, 1, 1, 5)
    # the left neighbour, and twice the one two to the right: 0 + 8, 1 + 16, 2 + 32, 4, 8
    expected = np.array([8.0, 17, 34, 4, 8])
    expected = (expected - expected.mean()) / np.sqrt(expected.var() + 1e-5)
    assert field(x, torch.zeros_like(x)).flatten().tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize(("fine", "coarse"), [((6, 8), (3, 2)), ((4, 6, 8), (2, 6, 2)), ((2, 2), (1, 1))])
def test_average_to_is_the_mean_over_each_window(fine, coarse):
    x = np.random.default_rng(0).normal(size=(2, 3, *fine))
    blocks = [size for f, c in zip(fine, coarse, strict=True) for size in (c, f // c)]
    windows = tuple(range(3, 3 + 2 * len(fine), 2))
    expected = x.reshape(2, 3, *blocks).mean(axis=windows)
    np.testing.assert_allclose(average_to(torch.from_numpy(x), coarse).numpy(), expected, atol=1e-12)


def test_the_decoder_grid_gate_in_numbers():
    # pairs (0, 2) and (1, 5) average to 1 and 3, as above: a = 0.25 and 1, each for two voxels
    x, _ = image(0, 2, 1, 5)
    x = x.repeat(1, 1, 2, 1)
    y = simple_gate(field_grid="decoder")(x, torch.zeros(1, 1, 1, 2))
    low = 1 - 0.5 * TO_ONE - 0.25
    assert y[0, 0, 0].tolist() == y[0, 0, 1].tolist() == pytest.approx([0, 2 * low, 1, 5])


def test_the_channel_gate_in_numbers():
    channel = ChannelGate(3, 2, 4)
    channel.squeeze.weight.data.zero_()
    channel.squeeze.bias.data.zero_()
    channel.squeeze.weight.data[0] = torch.tensor([1.0, -2.0])
    channel.squeeze.weight.data[1] = torch.tensor([-1.0, 0.0])
    channel.excite.weight.data[0, 0], channel.excite.weight.data[1, 1] = 0.5, 9.0
    g = torch.tensor([[8.0, 12.0], [1.0, 3.0]]).reshape(1, 2, 1, 2)
    # means 10 and 2; hidden relu(10 - 4) = 6 and relu(-10) = 0; logits 3 + 3, 3 + 0, 3
    c = channel(g)
    assert c.shape == (1, 3, 1, 1)
    assert c.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-v)) for v in (6, 3, 3)])


def test_the_channel_gates_hidden_layer_is_a_share_of_the_channels_and_eight_at_least():
    assert [ChannelGate(n, 2, 4).squeeze.out_features for n in (16, 32, 40, 80)] == [8, 8, 10, 20]
    gate = ProximalSkipGate(2, 48, 2)
    assert gate.channel.squeeze.out_features == 12 and gate.channel.squeeze.in_features == 2
    gate = ProximalSkipGate(2, 48, 2, reduction=2)
    assert gate.channel.squeeze.out_features == 24
    assert (gate.channel.excite.weight == 0).all() and (gate.channel.excite.bias == 3).all()


def test_both_gates_multiply_the_skip():
    gate = ProximalSkipGate(2, 1, 1, dilations=(1,), kernel_size=1)
    gate.spatial.field.project_skip.weight.data.fill_(1)
    gate.spatial.field.project_decoder.weight.data.zero_()
    gate.spatial.field.scales[0].weight.data.fill_(1)
    low, c = 1 - 0.5 * TO_ONE - 0.25, 1 / (1 + math.exp(-3))
    assert gate(*image(1, 3)).flatten().tolist() == pytest.approx([low * c, 3 * c])


def test_what_a_gate_has_unless_it_is_told_otherwise():
    defaults = {name: p.default for name, p in inspect.signature(ProximalSkipGate).parameters.items()}
    assert defaults["dilations"] == (1, 2, 3) and defaults["kernel_size"] == 3 and defaults["reduction"] == 4
    assert defaults["gate"] == "box" and defaults["field_grid"] == "skip" and defaults["channel_gate"] is True
    assert defaults["threshold_init"] == 0.25 and defaults["gain_init"] == 0.5
    assert (simple_gate(gate="sigmoid").spatial.offset == 2).all()


def test_first_weights_keep_the_spread_of_what_goes_through():
    """He's initialisation for LeakyReLU 0.01: variance 2 / (1 + 0.01^2) over the number of inputs."""
    field = CompatibilityField(2, 64, 64, (1,), 3)
    for weight, inputs in (
        (field.project_skip.weight, 64),
        (field.project_decoder.weight, 64),
        (field.scales[0].weight, 9),
    ):
        assert weight.var().item() == pytest.approx(2 / (1 + 1e-4) / inputs, rel=0.2)
    assert (field.project_decoder.bias == 0).all() and field.project_skip.bias is None
    assert field.norm.weight is None and field.norm.bias is None and field.norm.num_groups == 64


def test_instance_norm_in_numbers():
    x = torch.tensor([[1.0, 3.0], [10.0, 10.0]]).reshape(1, 2, 1, 2)
    found = instance_norm(2, affine=False)(x)
    assert found.flatten().tolist() == pytest.approx([-TO_ONE, TO_ONE, 0, 0])
    assert instance_norm(2, affine=True).weight.shape == (2,)


def test_one_number_or_one_per_axis():
    assert per_axis(3, 2) == (3, 3) and per_axis([1, 2, 3], 3) == (1, 2, 3)
    with pytest.raises(ValueError, match="each of the 3 axes"):
        per_axis([1, 2], 3)
    assert along_channels(torch.ones(5), 3).shape == (1, 5, 1, 1, 1)
    assert along_channels(torch.ones(2, 5), 2).shape == (2, 5, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"spatial_dims": 4}, "spatial_dims should be 2 or 3, not 4"),
        ({"spatial_dims": 1}, "spatial_dims should be 2 or 3, not 1"),
        ({"dilations": (0, 1)}, "dilations should hold at least one positive"),
        ({"threshold_init": -1.0}, "threshold_init should be positive"),
    ],
)
def test_impossible_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        ProximalSkipGate(**{"spatial_dims": 2, "skip_channels": 4, "gating_channels": 4, **arguments})


def test_a_threshold_of_any_size_above_zero_is_taken():
    gate = ProximalSkipGate(2, 1, 1, dilations=(1,), threshold_init=0.01)
    assert gate.spatial.threshold.item() == pytest.approx(0.01)


def test_of_a_sigmoid_gate_the_offset_is_a_selection_parameter():
    gate = simple_gate(gate="sigmoid")
    assert {id(p) for p in selection_parameters(gate)} == {id(gate.spatial.gain), id(gate.spatial.offset)}
    assert selection_parameters(torch.nn.Linear(2, 2)) == []


# --- the monitor


def constant_gate(*values, size=4):
    """A gate whose channels are `values` everywhere, whatever comes: no gain, and as threshold the rest to 1."""
    gate = simple_gate(channels=len(values), gain_init=0.0)
    thresholds = {0: 2.0, 1: 1e-300}  # surely closed and surely open
    gate.spatial.rho.data = torch.tensor([inverse_softplus(thresholds.get(v, 1 - v)) for v in values])
    return gate, (torch.randn(1, len(values), size, size), torch.zeros(1, 1, size, size))


def test_what_the_monitor_says_in_numbers():
    gate, inputs = constant_gate(1.0, 0.5, 0.0)
    with GateMonitor(gate) as monitor:
        gate(*inputs)
    found = monitor.statistics()
    (level,) = found["levels"]
    assert level["zeros"] == pytest.approx(1 / 3) == found["removed_share"]
    assert level["ones"] == pytest.approx(1 / 3) and level["mean"] == pytest.approx(0.5)
    assert level["dead_channels"] == 1
    assert level["effective_channels"] == pytest.approx(1.5**2 / 1.25)
    assert level["threshold"] == pytest.approx([0, 0.5, 2]) and level["gain"] == [0, 0, 0]
    assert monitor.maps == [None]


def test_effective_channels_count_channels_that_are_alike():
    for values, expected in (((1, 1, 1, 1), 4), ((1, 1, 0, 0), 2), ((0.25, 0, 0, 0), 1), ((0, 0, 0, 0), 0)):
        gate, inputs = constant_gate(*values)
        with GateMonitor(gate) as monitor:
            gate(*inputs)
        assert monitor.statistics()["levels"][0]["effective_channels"] == pytest.approx(expected, abs=1e-9)


def test_removed_features_of_all_levels_count_by_their_number():
    large, large_inputs = constant_gate(0.0, 1.0, size=8)  # 64 of 128 removed
    small, small_inputs = constant_gate(0.0, 0.0, 0.0, 0.5, size=2)  # 12 of 16
    never, _ = constant_gate(0.0)
    with GateMonitor(torch.nn.ModuleList([large, never, small])) as monitor:
        large(*large_inputs)
        small(*small_inputs)
        small(*small_inputs)
    found = monitor.statistics()
    assert len(monitor.gates) == len(monitor.maps) == 3
    assert [level["zeros"] for level in found["levels"]] == pytest.approx([0.5, 0.75])
    assert found["removed_share"] == pytest.approx((64 + 24) / (128 + 32))


def test_a_channel_is_dead_when_hardly_anything_goes_through():
    gate = simple_gate(channels=1)
    for open_voxels, dead in ((1, 1), (2, 0), (3, 0)):  # of 1600: closed for 99.94 %, 99.88 %, 99.81 %
        a = torch.zeros(1, 1, 40, 40)
        a.flatten()[:open_voxels] = 0.5
        with GateMonitor(gate) as monitor:
            for hook in list(gate.spatial._forward_hooks.values()):
                hook(gate.spatial, (), a)
        assert monitor.statistics()["levels"][0]["dead_channels"] == dead


def test_nothing_seen_is_nothing_removed_and_no_hook_stays():
    gate, inputs = constant_gate(0.0)
    with GateMonitor(gate, keep_maps=True) as monitor:
        pass
    gate(*inputs)
    assert monitor.statistics() == {"removed_share": 0.0, "levels": []}
    assert not gate.spatial._forward_hooks and monitor.maps == [None]


def test_a_sigmoid_gate_has_no_threshold_to_tell():
    gate = simple_gate(gate="sigmoid", channels=3)
    gate.spatial.gain.data = torch.tensor([0.5, -1.0, 4.0])
    with GateMonitor(gate) as monitor, torch.inference_mode():
        gate(torch.randn(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))
    level = monitor.statistics()["levels"][0]
    assert level["threshold"] is None and level["gain"] == [-1, 0.5, 4]
    assert isinstance(gate.spatial, SpatialGate)
