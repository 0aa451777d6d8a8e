"""The fast network computes what the plain one computes, with little work (training/prosma/fast/network.py)."""

import copy
import weakref
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from labelled_folders import DATA_OF_MODELS
from prosma.fast import autotune, blocks, gates, norm
from prosma.fast import network as fast_network
from prosma.fast.fallback import note_fallback
from prosma.fast.network import FastNetwork, accelerate
from prosma.fast.onednn import channels_last
from prosma.fast.stencils import Stencil
from prosma.network.gate import GATES
from prosma.network.gate_monitor import GateMonitor
from prosma.network.unet import ProSMAUNet
from prosma.package import bundled_models_folder, resolve
from prosma.package.weights import load_network

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}


def trained(network):
    """Weights away from their initial values, where gates are all alike."""
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval()


def networks(dims=3, classes=3, features=(8, 16, 16), **arguments):
    torch.manual_seed(0)
    plain = trained(ProSMAUNet(dims, 1, classes, features, **arguments))
    fast = accelerate(plain, precision="float32")
    return plain, fast


@st.composite
def cases(draw):
    dims = draw(st.sampled_from((2, 3)))
    axis = st.tuples(*[st.sampled_from((1, 2))] * dims)
    odd = st.tuples(*[st.sampled_from((1, 3))] * dims)
    arguments = {
        "spatial_dims": dims,
        "in_channels": draw(st.integers(1, 2)),
        "out_channels": draw(st.integers(1, 3)),
        "features": draw(st.sampled_from(((4, 8), (8, 5, 16)))),
        "skip": draw(st.sampled_from(("prosma", "prosma", "prosma", "attention", "plain"))),
        "gate": draw(st.sampled_from(GATES)),
        "channel_gate": draw(st.booleans()),
        "field_grid": draw(st.sampled_from(("skip", "decoder"))),
        "dilations": draw(st.sampled_from(((1, 2, 3), (1,), (2,), (3, 1)))),
    }
    if draw(st.booleans()):
        arguments |= {"bottleneck": "attention", "bottleneck_heads": draw(st.sampled_from((1, 2, 4)))}
        axis = st.just((2,) * dims)  # attention's work grows with the square of the voxels of its stage
    later = len(arguments["features"]) - 1
    arguments["strides"] = [1, *(draw(axis) for _ in range(later))]
    arguments["kernel_sizes"] = [3, *(draw(odd) for _ in range(later))]
    return arguments, draw(st.tuples(*[st.integers(6, 13)] * dims)), draw(st.integers(1, 2))


@needs_onednn
@settings(derandomize=True, max_examples=12)
@given(cases(), st.sampled_from((0, 0, blocks.FEW)))
def test_every_variant_gives_the_same_up_to_rounding(case, few):
    arguments, shape, batch = case
    torch.manual_seed(0)
    plain = trained(ProSMAUNet(**arguments))
    fast = accelerate(plain, precision="float32")
    assert isinstance(fast, FastNetwork)
    x = torch.randn(batch, arguments["in_channels"], *shape)
    with torch.inference_mode(), mock.patch.object(blocks, "FEW", few):
        found, expected = fast(x), plain(x)
        exact = copy.deepcopy(plain).double()(x.double())
    scale, rounding = exact.abs().max(), (expected - exact).abs().max()
    assert (found - exact).abs().max() <= 20 * rounding + 1e-5 * scale


@needs_onednn
@settings(derandomize=True, max_examples=15)
@given(
    st.sampled_from((2, 3)),
    st.sampled_from(((1, 2, 3), (2, 3), (1, 4), (3,))),
    st.tuples(*[st.sampled_from((1, 3, 5))] * 3),
    st.tuples(*[st.integers(1, 11)] * 3),
    st.integers(1, 5),
)
def test_each_way_to_compute_the_stencil_is_the_sum_of_its_convolutions(dims, dilations, kernel, shape, channels):
    torch.manual_seed(0)
    kernel = kernel[:dims]
    scales = [
        CONVOLUTION[dims](channels, channels, kernel, 1, [d * (k // 2) for k in kernel], d, groups=channels, bias=False)
        for d in dilations
    ]
    q = torch.randn(2, channels, *shape[:dims])
    with torch.inference_mode():
        activated = nn.functional.leaky_relu(q.double(), 0.01)
        expected = sum(scale.double()(activated) for scale in scales)
        stencil = Stencil(scales, torch.float32)
        for way in stencil.ways(q.shape[2:]).values():
            assert torch.allclose(way(channels_last(q.clone())).double(), expected, atol=1e-5)


@needs_onednn
def test_measuring_the_ways_changes_no_result(monkeypatch, tmp_path):
    plain, fast = networks()
    x = torch.randn(1, 1, 8, 8, 8)
    monkeypatch.setattr(gates, "TUNED_SIZE", 0)
    monkeypatch.setattr(autotune, "_known", {})
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path))
    with torch.inference_mode():
        assert torch.allclose(fast(x), plain(x), atol=1e-4)
    assert len(autotune.read_answers()) == 2


@needs_onednn
def test_no_way_dilates_in_3d():
    scales = networks()[0].gates[-1].spatial.field.scales
    with torch.inference_mode():
        ways = Stencil(scales, torch.float32).ways((10, 10, 10))
        for way in ways.values():
            assert Work.of(way, channels_last(torch.ones(1, 8, 10, 10, 10))).dilated == 0
    assert set(ways) == {"merged", "planes", "folded"}


def test_moments_of_a_large_sample_far_from_zero_are_exact(monkeypatch):
    x = channels_last(1.3 * torch.randn(1, 8, 40, 41, 42) + 5)
    variance, mean = torch.var_mean(x.double(), dim=(0, 2, 3, 4), correction=0)
    monkeypatch.setattr(norm, "PIECE_BYTES", 200_000)
    assert len(list(norm.pieces(x))) > 5
    found_mean, found_variance = norm.moments(x)
    assert ((found_mean - mean).abs() / variance.sqrt()).max() < 1e-5
    assert (found_variance / variance - 1).abs().max() < 2e-5


def test_pieces_do_not_change_the_result(monkeypatch):
    _, fast = networks()
    x = torch.randn(1, 1, 16, 12, 20)
    with torch.inference_mode():
        whole = fast(x)
        monkeypatch.setattr(norm, "PIECE_BYTES", 3000)
        monkeypatch.setattr(norm, "SMALL", 100)
        assert torch.allclose(fast(x), whole, atol=1e-5 * whole.abs().max().item())


@pytest.mark.parametrize("grid", ["skip", "decoder"])
def test_gates_can_be_watched_while_the_network_is_fast(grid):
    plain, fast = networks(field_grid=grid)
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        unwatched = fast(x)
        with GateMonitor(fast, keep_maps=True) as found, GateMonitor(plain, keep_maps=True) as expected:
            assert torch.allclose(fast(x), unwatched, atol=1e-4)
            plain(x)
    for a, b in zip(found.maps, expected.maps, strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-4)
    share = expected.statistics()["removed_share"]
    assert 0 < share < 1 and found.statistics()["removed_share"] == pytest.approx(share, abs=1e-3)


def test_every_stage_calls_its_hooks():
    _, fast = networks()
    called = []
    for stage in (*fast.encoder, *fast.decoder):
        stage.register_forward_pre_hook(lambda *_: called.append(1))
    with torch.inference_mode():
        fast(torch.randn(1, 1, 8, 8, 8))
    assert len(called) == 5


def test_gradients_float64_and_a_pytorch_without_onednn_take_the_plain_way():
    plain, fast = networks()
    x = torch.randn(1, 1, 8, 12, 8)
    fast(x).sum().backward()
    assert fast.plain.encoder[0][0].weight.grad.abs().sum() > 0
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
        assert torch.allclose(fast(x), plain(x), atol=1e-5)
        assert Work.of(fast, x).names.isdisjoint({"mkldnn_convolution", "_convolution_pointwise_"})
    with torch.inference_mode():
        assert torch.allclose(fast.double()(x.double()), plain.double()(x.double()), atol=1e-12)
        assert fast.float()(x).dtype == torch.float32


@pytest.fixture
def reasons(caplog):
    """Says what was logged about fast ways since it was asked last; nothing has been logged before."""
    note_fallback.cache_clear()
    caplog.set_level("INFO", logger="prosma.fast")

    def since() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    return since


def test_the_network_given_stays_as_it_is():
    torch.manual_seed(0)
    network = trained(ProSMAUNet(3, 1, 3, (8, 16, 16))).train()
    modules = [type(module) for module in network.modules()]
    before = {name: (value.clone(), value.stride(), value.data_ptr()) for name, value in network.state_dict().items()}
    fast = accelerate(network, precision="half")
    fast(torch.randn(1, 1, 16, 16, 16)).sum().backward()
    assert [type(module) for module in network.modules()] == modules
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert (value.stride(), value.data_ptr()) == before[name][1:]
    assert not any(module is other for module in network.modules() for other in fast.modules())


def test_weights_with_their_channels_last_are_shared():
    network = ProSMAUNet(3, 2, 3, (8, 16, 16)).to(memory_format=torch.channels_last_3d)
    own = {value.data_ptr() for value in network.parameters()}
    assert {value.data_ptr() for value in accelerate(network).parameters()} == own


def test_other_networks_are_copied_and_the_log_says_why(reasons):
    reflecting = networks()[0]
    reflecting.encoder[0][0].padding_mode = "reflect"
    reasons()
    for network, image, reason in (
        (reflecting, torch.randn(1, 1, 8, 8, 8), "does not pad with zeros"),
        (nn.Conv2d(1, 1, 3), torch.randn(1, 1, 8, 8), "not for a Conv2d"),
    ):
        result = accelerate(network)
        assert type(result) is type(network) and result is not network
        assert torch.equal(result(image), network(image))
        (line,) = reasons()
        assert reason in line
        accelerate(network)
        assert not reasons()


def test_an_operator_that_fails_or_gives_a_wrong_answer_is_not_used(monkeypatch, reasons):
    plain, _ = networks()
    x = torch.randn(1, 1, 8, 8, 8)
    reasons()

    def missing(*_arguments, **_options):
        raise NotImplementedError("no such operator")

    def wrong(total, *_arguments, **_options):
        return total

    for broken, reason in ((missing, "no such operator"), (wrong, "was off by")):
        monkeypatch.setattr(blocks, "convolve_onto", broken)
        result = accelerate(plain)
        assert type(result) is ProSMAUNet
        (line,) = reasons()
        assert reason in line and "several times as long" in line
        with torch.inference_mode():
            assert torch.allclose(result(x), plain(x), atol=1e-5)


def test_the_log_says_once_why_an_image_has_no_fast_way(reasons):
    _, fast = networks()
    x = torch.randn(1, 1, 8, 8, 8)
    reasons()
    with torch.inference_mode():
        fast(x)
        assert not reasons()
    fast(x), fast(x)
    (line,) = reasons()
    assert "gradients are wanted" in line
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
        fast(x), fast(x)
    (line,) = reasons()
    assert "oneDNN is switched off" in line


def test_the_log_says_why_half_precision_is_not_used(monkeypatch, reasons):
    monkeypatch.setattr(fast_network, "computes_in_half", lambda _device: False)
    assert accelerate(networks()[0]).half_on == ""
    assert any("does not compute in half precision" in line for line in reasons())
    monkeypatch.setattr(fast_network, "computes_in_half", lambda _device: True)
    assert accelerate(networks()[0]).half_on == ""
    assert any("too small" in line for line in reasons())


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 here")
@pytest.mark.parametrize("grid", ["skip", "decoder"])
def test_half_precision_is_near_and_only_used_where_the_processor_has_it(grid):
    plain, fast = networks(field_grid=grid)
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        fast.half_on = "cpu"
        found, expected = fast(x), plain(x)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).pow(2).mean().sqrt() < 0.03 * expected.pow(2).mean().sqrt()
    if not fast_network.computes_in_half(torch.device("cpu")):
        assert not accelerate(plain).half_on


class Work(TorchDispatchMode):
    """Counts convolutions, those that dilate in 3D, and the bytes of new tensors.

    The network's `empty_like` do not count: they keep addresses free and are never written to.
    """

    def __init__(self):
        super().__init__()
        self.convolutions = self.dilated = self.bytes = 0
        self.names = set()

    @classmethod
    def of(cls, run, *arguments):
        with cls() as work:
            run(*arguments)
        return work

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        name = function.overloadpacket.__name__
        self.names.add(name)
        if "conv" in name:
            self.convolutions += 1
            numbers = [value for value in arguments if isinstance(value, (list, tuple)) and value]
            usual = "transpose" not in name  # whose third numbers are strides
            self.dilated += usual and len(numbers) >= 3 and len(numbers[2]) == 3 and max(numbers[2]) > 1
        known = {value.untyped_storage().data_ptr() for value in arguments if isinstance(value, torch.Tensor)}
        for value in result if isinstance(result, (list, tuple)) else [result]:
            if (
                name != "empty_like"
                and isinstance(value, torch.Tensor)
                and value.untyped_storage().data_ptr() not in known
            ):
                self.bytes += value.untyped_storage().nbytes()
        return result


@pytest.fixture
def as_large(monkeypatch):
    """Small images are computed in the way of large ones, and nothing is measured."""
    monkeypatch.setattr(norm, "SMALL", 0)
    monkeypatch.setattr(blocks, "FEW", 0)
    monkeypatch.setattr(gates, "TUNED_SIZE", float("inf"))


@needs_onednn
@pytest.mark.parametrize("arguments", [{"skip": "plain"}, {"skip": "attention"}, {}, {"field_grid": "decoder"}])
def test_the_work_stays_small(arguments, as_large):
    """A guard against slow ways coming back, which counts what is computed instead of seconds."""
    plain, fast = networks(features=(8, 16, 16, 32), **arguments)
    x = channels_last(torch.randn(1, 1, 16, 24, 24))
    with torch.inference_mode():
        work, before = Work.of(fast, x), Work.of(plain, x)
    levels = 3
    blocks, head = 4 * 2 + levels * 3, 1  # of a decoder's block one is the upsampling at the same time
    # Two projections and a stencil; the decoder's grid needs an average and repetition besides. Attention: three projections.
    gate = {"plain": 0, "attention": 3}.get(arguments.get("skip"), 5 if "field_grid" in arguments else 3)
    assert work.convolutions == blocks + head + levels * gate
    assert work.dilated == 0
    assert work.names.isdisjoint({"cat", "native_group_norm", "_slow_conv3d_forward", "avg_pool3d"})
    assert work.bytes < 0.65 * before.bytes


@needs_onednn
def test_the_exact_gate_costs_little_more_memory_than_none(as_large):
    x = channels_last(torch.randn(1, 1, 16, 24, 24))
    with torch.inference_mode():
        bytes_of = {
            name: Work.of(networks(**arguments)[1], x).bytes
            for name, arguments in {
                "plain": {"skip": "plain"},
                "skip": {},
                "decoder": {"field_grid": "decoder"},
            }.items()
        }
    assert bytes_of["skip"] < 1.5 * bytes_of["plain"]
    assert bytes_of["decoder"] < 1.2 * bytes_of["plain"]


@needs_onednn
@pytest.mark.parametrize("arguments", [{"skip": "plain"}, {"field_grid": "decoder"}])
@pytest.mark.parametrize(("few", "steps"), [(0, 2), (float("inf"), 3)])
def test_the_skip_is_gone_before_a_third_large_feature_is_made(arguments, few, steps, monkeypatch):
    """A third of the memory at the finest level. Steps: norms, and the upsampling where it is one."""
    _, fast = networks(**arguments)
    monkeypatch.setattr(blocks, "FEW", few)
    skips, alive = [], []
    keep = fast.encoder[0].register_forward_hook(lambda _module, _inputs, x: skips.append(weakref.ref(x)))

    def noting(function):
        return lambda *given: (alive.append(any(skip() is not None for skip in skips)), function(*given))[1]

    upsampling = fast.decoder[-1].upsampling
    monkeypatch.setattr(upsampling, "forward", noting(upsampling.forward))
    monkeypatch.setattr(blocks, "norm_and_activation", noting(blocks.norm_and_activation))
    with torch.inference_mode():
        fast(torch.randn(1, 1, 16, 16, 16))
    keep.remove()
    assert alive[-steps - 1 :] == [True] + [False] * steps


@pytest.mark.slow
@pytest.mark.parametrize("model", DATA_OF_MODELS)
def test_bundled_models_keep_their_labels(model, shared):
    """At most one voxel in 10000 gets another label in float32, counted over test images."""
    from prosma.image.reading import read_image
    from prosma.inference.segmenter import Segmenter

    package = resolve(bundled_models_folder() / model)
    plain, fast = Segmenter(package, "cpu"), Segmenter(package, "cpu")
    plain.network = load_network(package)
    assert isinstance(fast.network, FastNetwork)
    fast.network.half_on = ""
    changed = voxels = 0
    for path in images_of(model, shared):
        image = read_image(path)
        differs = plain.segment(image, overlap=0.25).labels != fast.segment(image, overlap=0.25).labels
        changed, voxels = changed + int(differs.sum()), voxels + differs.size
    assert voxels and changed <= 1e-4 * voxels


def images_of(model, shared):
    """Paths of the first test images of a bundled model's data."""
    from prosma.learning.data.dataset import LabelledFolder

    data = LabelledFolder.open(shared / DATA_OF_MODELS[model])
    return [data.cases[case].images for case in data.splits["test"][:2]]
