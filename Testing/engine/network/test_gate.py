"""The gate's mathematics, property by property (training/prosma/network/gate.py)."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from prosma.network.gate import (
    GATES,
    ProximalSkipGate,
    box_soft_threshold,
    inverse_softplus,
    selection_parameters,
    soft_threshold,
)
from prosma.network.gate_monitor import GateMonitor

DIMENSIONS = (2, 3)
SPATIAL_GATES = tuple(gate for gate in GATES if gate != "none")


pytestmark = pytest.mark.usefixtures("double_precision")


def inputs(dims, channels=4, gating=4, size=7, batch=2):
    return torch.randn(batch, channels, *[size] * dims), torch.randn(batch, gating, *[size] * dims)


def perturbed(module):
    """Away from the initial values, where kinks and symmetries could hide a mistake."""
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return module


def set_threshold(gate, value):
    gate.spatial.rho.data.fill_(inverse_softplus(value))


numbers = st.floats(-20, 20)
thresholds = st.floats(0, 10)


@given(numbers, thresholds)
def test_both_operators_are_the_argmin_of_their_definition(u, threshold):
    grid = torch.linspace(-20, 20, 20001)
    objective = (grid - u) ** 2 / 2 + threshold * grid.abs()
    value, limit = torch.tensor(u), torch.tensor(threshold)
    step = 1.001 * (grid[1] - grid[0]).item()
    assert abs(grid[objective.argmin()] - soft_threshold(value, limit)) <= step
    box = (grid >= 0) & (grid <= 1)
    assert abs(grid[box][objective[box].argmin()] - box_soft_threshold(value, limit)) <= step


@given(numbers, numbers, thresholds)
def test_both_operators_are_firmly_non_expansive(first, second, threshold):
    a, b, limit = torch.tensor(first), torch.tensor(second), torch.tensor(threshold)
    for operator in (soft_threshold, box_soft_threshold):
        change = operator(a, limit) - operator(b, limit)
        assert change**2 <= change * (a - b) + 1e-12


@given(numbers, thresholds)
def test_moreau_identity_and_the_box_as_clipped_soft_threshold(u, threshold):
    value, limit = torch.tensor(u), torch.tensor(threshold)
    assert torch.isclose(value, soft_threshold(value, limit) + value.clamp(-limit, limit), atol=1e-12)
    assert torch.isclose(soft_threshold(value, limit).clamp(0, 1), box_soft_threshold(value, limit), atol=1e-12)


@pytest.mark.parametrize("dims", DIMENSIONS)
def test_the_gate_is_the_formula_of_its_docstring(dims):
    gate = perturbed(ProximalSkipGate(dims, 4, 6, dilations=(1, 2)))
    x, g = inputs(dims, gating=6)
    field, convolution = gate.spatial.field, (F.conv2d, F.conv3d)[dims - 2]
    q = F.leaky_relu(
        convolution(x, field.project_skip.weight)
        + convolution(g, field.project_decoder.weight, field.project_decoder.bias),
        0.01,
    )
    z = sum(
        convolution(q, s.weight, padding=d, dilation=d, groups=4) for d, s in zip((1, 2), field.scales, strict=True)
    )
    axes = tuple(range(2, 2 + dims))
    z = (z - z.mean(axes, keepdim=True)) / (z.var(axes, unbiased=False, keepdim=True) + 1e-5).sqrt()
    shape = (1, 4, *[1] * dims)
    u = 1 + gate.spatial.gain.view(shape) * z
    a = soft_threshold(u, F.softplus(gate.spatial.rho).view(shape)).clamp(0, 1)
    hidden = F.relu(g.mean(axes) @ gate.channel.squeeze.weight.T + gate.channel.squeeze.bias)
    c = torch.sigmoid(hidden @ gate.channel.excite.weight.T + gate.channel.excite.bias)
    assert torch.allclose(gate(x, g), x * a * c.view(2, 4, *[1] * dims), atol=1e-12)
    assert gate.channel.squeeze.out_features == 8


@pytest.mark.parametrize("dims", DIMENSIONS)
@pytest.mark.parametrize("kind", ["box", "sigmoid"])
def test_gates_that_cannot_amplify_do_not(dims, kind):
    gate = perturbed(ProximalSkipGate(dims, 4, 4, gate=kind))
    x, g = inputs(dims)
    assert (gate(x, g).abs() <= x.abs()).all()
    assert (gate(torch.zeros_like(x), g) == 0).all()


def test_zeros_are_exact_and_their_share_rises_with_the_threshold():
    gate = ProximalSkipGate(2, 8, 8, gain_init=1.0)
    x, g = inputs(2, 8, 8, 16)
    shares = []
    for threshold in (0.01, 0.1, 0.5, 1.0, 2.0):
        set_threshold(gate, threshold)
        a, _ = gate.explain(x, g)
        shares.append((a == 0).double().mean().item())
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 1


@pytest.mark.parametrize("dims", DIMENSIONS)
@pytest.mark.parametrize("grid", ["skip", "decoder"])
def test_it_reduces_to_the_plain_skip_exactly(dims, grid):
    gate = ProximalSkipGate(dims, 4, 4, channel_gate=False, field_grid=grid)
    gate.spatial.gain.data.zero_()
    gate.spatial.rho.data.fill_(-800)
    x, g = inputs(dims, size=8)
    assert torch.equal(gate(x, g[(..., *[slice(None, None, 2)] * dims)] if grid == "decoder" else g), x)
    plain = ProximalSkipGate(dims, 4, 4, gate="none", channel_gate=False)
    assert torch.equal(plain(x, g), x) and not list(plain.parameters())


def test_a_large_threshold_closes_everything():
    gate = ProximalSkipGate(2, 8, 8)
    gate.spatial.rho.data.fill_(50)
    assert (gate(*inputs(2, 8, 8)) == 0).all()


@pytest.mark.parametrize("dims", DIMENSIONS)
@pytest.mark.parametrize("kind", SPATIAL_GATES)
def test_gradients_are_right(dims, kind):
    gate = perturbed(ProximalSkipGate(dims, 2, 3, gate=kind, dilations=(1, 2)))
    x, g = (t.requires_grad_() for t in inputs(dims, 2, 3, 3 if dims == 3 else 5, 1))
    assert torch.autograd.gradcheck(gate, (x, g), eps=1e-7, atol=1e-4)


def test_permuting_channels_permutes_the_result():
    gate = perturbed(ProximalSkipGate(2, 6, 4))
    order = torch.randperm(6)
    other = copy.deepcopy(gate)
    spatial, source = other.spatial, gate.spatial
    spatial.field.project_skip.weight.data = source.field.project_skip.weight[order][:, order]
    spatial.field.project_decoder.weight.data = source.field.project_decoder.weight[order]
    spatial.field.project_decoder.bias.data = source.field.project_decoder.bias[order]
    for mine, theirs in zip(spatial.field.scales, source.field.scales, strict=True):
        mine.weight.data = theirs.weight[order]
    spatial.gain.data, spatial.rho.data = source.gain[order], source.rho[order]
    other.channel.excite.weight.data = gate.channel.excite.weight[order]
    other.channel.excite.bias.data = gate.channel.excite.bias[order]
    x, g = inputs(2, 6, 4)
    assert torch.allclose(other(x[:, order], g), gate(x, g)[:, order], atol=1e-12)


@pytest.mark.parametrize("dims", DIMENSIONS)
def test_circular_shifts_shift_the_result(dims):
    gate = perturbed(ProximalSkipGate(dims, 3, 3))
    for scale in gate.spatial.field.scales:
        scale.padding_mode = "circular"
        scale._reversed_padding_repeated_twice = [p for p in reversed(scale.padding) for _ in range(2)]
    x, g = inputs(dims, 3, 3, 8, 1)
    shift, axes = (3, 5, 2)[:dims], tuple(range(-dims, 0))
    assert torch.allclose(gate(x.roll(shift, axes), g.roll(shift, axes)), gate(x, g).roll(shift, axes), atol=1e-12)


@pytest.mark.parametrize("dims", DIMENSIONS)
def test_flips_flip_the_result_with_symmetric_kernels(dims):
    gate = perturbed(ProximalSkipGate(dims, 3, 3))
    for scale in gate.spatial.field.scales:
        scale.weight.data = (scale.weight + scale.weight.flip(-1)) / 2
    x, g = inputs(dims, 3, 3)
    assert torch.allclose(gate(x.flip(-1), g.flip(-1)), gate(x, g).flip(-1), atol=1e-12)


@pytest.mark.parametrize("kind", SPATIAL_GATES)
def test_2d_equals_3d_on_a_singleton_axis(kind):
    flat = perturbed(ProximalSkipGate(2, 3, 3, gate=kind))
    deep = ProximalSkipGate(3, 3, 3, gate=kind, kernel_size=(1, 3, 3))
    deep.load_state_dict({k: v.unsqueeze(2) if v.ndim == 4 else v for k, v in flat.state_dict().items()})
    x, g = inputs(2, 3, 3)
    assert torch.allclose(deep(x.unsqueeze(2), g.unsqueeze(2)).squeeze(2), flat(x, g), atol=1e-12)


def test_samples_of_a_batch_do_not_see_each_other():
    gate = perturbed(ProximalSkipGate(3, 4, 4))
    x, g = inputs(3)
    assert torch.allclose(gate(x, g)[1:], gate(x[1:], g[1:]), atol=1e-12)


def test_bfloat16_keeps_exact_zeros():
    gate = ProximalSkipGate(2, 8, 8, gain_init=1.0, threshold_init=1.0).bfloat16()
    x, g = (t.bfloat16() for t in inputs(2, 8, 8, 16))
    a, _ = gate.explain(x, g)
    assert a.dtype == torch.bfloat16
    assert 0.3 < (a == 0).double().mean() < 0.9


@pytest.mark.parametrize("dims", DIMENSIONS)
@pytest.mark.parametrize("kind", GATES)
def test_state_dict_round_trip(dims, kind):
    first, second = (perturbed(ProximalSkipGate(dims, 4, 4, gate=kind)) for _ in range(2))
    second.load_state_dict(first.state_dict())
    x, g = inputs(dims)
    assert torch.equal(first(x, g), second(x, g))


def test_the_decoder_grid_gate_is_constant_over_each_coarse_voxel():
    gate = perturbed(ProximalSkipGate(2, 4, 6, field_grid="decoder"))
    x, coarse = torch.rand(1, 4, 8, 12) + 1, torch.randn(1, 6, 4, 6)
    share = gate(x, coarse) / x
    assert torch.allclose(share, F.interpolate(share[..., ::2, ::2], scale_factor=2, mode="nearest"), atol=1e-12)
    assert gate.explain(x, coarse)[0].shape == (1, 4, 4, 6)


def test_soft_and_shrink_are_their_formulas():
    x, g = inputs(2)
    for kind in ("soft", "shrink"):
        gate = perturbed(ProximalSkipGate(2, 4, 4, gate=kind))
        evidence = gate.spatial.gain.view(1, 4, 1, 1) * gate.spatial.field(x, g)
        limit = gate.spatial.threshold.view(1, 4, 1, 1)
        signed = evidence.sign() * (evidence.abs() - limit).clamp_min(0)
        expected = signed if kind == "soft" else signed / evidence
        assert torch.allclose(gate.explain(x, g)[0], expected, atol=1e-12)


def test_the_monitor_counts_what_the_gate_does():
    gate = ProximalSkipGate(2, 8, 8, gain_init=1.0)
    x, g = inputs(2, 8, 8, 16)
    a, _ = gate.explain(x, g)
    with GateMonitor(gate, keep_maps=True) as monitor:
        gate(x, g)
        gate(x, g)
    gate(2 * x, g)
    (level,) = monitor.statistics()["levels"]
    assert level["zeros"] == pytest.approx((a == 0).double().mean().item())
    assert level["ones"] == pytest.approx((a == 1).double().mean().item())
    assert level["mean"] == pytest.approx(a.mean().item(), rel=1e-5)
    assert monitor.statistics()["removed_share"] == pytest.approx(level["zeros"])
    assert torch.equal(monitor.maps[0], a)


def test_a_closed_channel_is_reported_dead():
    gate = ProximalSkipGate(2, 4, 4)
    gate.spatial.rho.data[1] = 50
    with GateMonitor(gate) as monitor:
        gate(*inputs(2))
    assert monitor.statistics()["levels"][0]["dead_channels"] == 1


def test_thresholds_and_gains_are_found_for_their_own_optimiser_group():
    gate = ProximalSkipGate(2, 4, 4)
    found = {id(parameter) for parameter in selection_parameters(gate)}
    assert found == {id(gate.spatial.rho), id(gate.spatial.gain)}


def test_initial_values_and_threshold():
    gate = ProximalSkipGate(3, 8, 8, threshold_init=0.25, gain_init=0.5)
    assert torch.allclose(gate.spatial.threshold, torch.tensor(0.25))
    assert (gate.spatial.gain == 0.5).all()
    _, c = gate.explain(*inputs(3, 8, 8))
    assert torch.allclose(c, torch.sigmoid(torch.tensor(3.0)))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"gate": "hard"}, "gate"),
        ({"field_grid": "image"}, "field_grid"),
        ({"dilations": ()}, "dilations"),
        ({"threshold_init": 0}, "threshold_init"),
        ({"kernel_size": (3, 3, 3)}, "axes"),
    ],
)
def test_impossible_arguments_are_refused_by_name(arguments, word):
    with pytest.raises(ValueError, match=word):
        ProximalSkipGate(2, 4, 4, **arguments)


@settings(max_examples=15)
@given(st.integers(1, 6), st.integers(1, 6), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(2, 9))
def test_any_channels_dilations_and_sizes_keep_the_shape(channels, gating, dilations, size):
    gate = ProximalSkipGate(2, channels, gating, dilations=dilations)
    x, g = torch.randn(1, channels, size, size + 1), torch.randn(1, gating, size, size + 1)
    assert gate(x, g).shape == x.shape
