"""The networks: shapes, baselines, any input size, weights there and back (training/prosma/network/unet.py)."""

import itertools

import pytest
import torch
from safetensors.torch import save

from prosma.network.unet import ProSMAUNet
from prosma.package import PackageError, write_package
from prosma.package.weights import load_network
from tiny_model import make_tiny_package

TINY = {"in_channels": 2, "out_channels": 3, "features": (4, 6, 8)}
VARIANTS = [
    {"skip": "plain"},
    {"skip": "attention"},
    *({"gate": gate} for gate in ("box", "soft", "shrink", "sigmoid", "none")),
    {"field_grid": "decoder"},
    {"channel_gate": False, "dilations": (1,)},
]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(("dims", "variant"), list(itertools.product((2, 3), VARIANTS)))
def test_every_variant_learns_in_2d_and_3d(dims, variant):
    network = ProSMAUNet(dims, **TINY, **variant)
    x = torch.randn(2, 2, *[8] * dims)
    logits = network(x)
    assert logits.shape == (2, 3, *[8] * dims)
    logits.square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without


@pytest.mark.parametrize("dims", (2, 3))
def test_baselines_share_the_backbone_to_the_last_weight(dims):
    def backbone(skip):
        return {
            name: p.shape
            for name, p in ProSMAUNet(dims, **TINY, skip=skip).state_dict().items()
            if not name.startswith("gates")
        }

    assert backbone("plain") == backbone("attention") == backbone("prosma")


@pytest.mark.parametrize("dims", (2, 3))
def test_an_open_gate_gives_the_plain_network_exactly(dims):
    plain = ProSMAUNet(dims, **TINY, skip="plain")
    gated = ProSMAUNet(dims, **TINY, channel_gate=False)
    gated.load_state_dict(plain.state_dict(), strict=False)
    for gate in gated.gates:
        gate.spatial.gain.data.zero_()
        gate.spatial.rho.data.fill_(-200)
    x = torch.randn(1, 2, *[12] * dims)
    assert torch.equal(gated(x), plain(x))


@pytest.mark.parametrize("size", [(1, 1, 1), (5, 9, 7), (13, 4, 6)])
def test_sizes_that_the_strides_do_not_divide_come_back_as_they_were(size):
    network = ProSMAUNet(3, **TINY).eval()
    assert network(torch.randn(1, 2, *size)).shape == (1, 3, *size)


def test_anisotropic_strides_and_kernels():
    network = ProSMAUNet(3, **TINY, strides=[1, (1, 2, 2), 2], kernel_sizes=[(1, 3, 3), 3, 3])
    assert network.divisor == (2, 4, 4)
    assert network(torch.randn(1, 2, 6, 9, 8)).shape == (1, 3, 6, 9, 8)
    assert network.gates[-1].spatial.field.scales[0].kernel_size == (1, 3, 3)


def test_deep_supervision_adds_coarser_outputs_in_training_only():
    network = ProSMAUNet(2, **TINY, deep_supervision=True)
    x = torch.randn(1, 2, 16, 16)
    assert [tuple(logits.shape[2:]) for logits in network(x)] == [(16, 16), (8, 8)]
    assert isinstance(network.eval()(x), torch.Tensor)
    network.train().deep_supervision = False
    assert isinstance(network(x), torch.Tensor)


def test_the_state_dict_names_each_weight_once():
    network = ProSMAUNet(2, **TINY, deep_supervision=True)
    assert len(network.state_dict()) == len({p.data_ptr() for p in network.state_dict().values()})
    copy = ProSMAUNet(2, **TINY, deep_supervision=True)
    copy.load_state_dict(network.state_dict())
    x = torch.randn(1, 2, 16, 16)
    assert torch.equal(network.eval()(x), copy.eval()(x))


def test_channels_last_gives_the_same_result():
    network = ProSMAUNet(3, **TINY).eval()
    x = torch.randn(1, 2, 16, 16, 16)
    expected = network(x)
    layout = torch.channels_last_3d
    assert torch.allclose(network.to(memory_format=layout)(x.contiguous(memory_format=layout)), expected, atol=1e-4)


@pytest.mark.parametrize("dims", (2, 3))
def test_export_gives_the_same_result(dims):
    network = ProSMAUNet(dims, **TINY).eval()
    x = torch.randn(1, 2, *[8] * dims)
    exported = torch.export.export(network, (x,))
    assert torch.allclose(exported.module()(x), network(x), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"skip": "dense"}, "skip"),
        ({"features": (4,)}, "two stages"),
        ({"strides": [1, 2]}, "one length"),
        ({"strides": [2, 2, 2]}, "first stride"),
        ({"kernel_sizes": [2, 3, 3]}, "odd"),
    ],
)
def test_impossible_networks_are_refused_by_name(arguments, words):
    with pytest.raises(ValueError, match=words):
        ProSMAUNet(2, **{**TINY, **arguments})


def test_an_image_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="2"):
        ProSMAUNet(2, **TINY)(torch.randn(1, 1, 8, 8))


def test_a_package_gives_back_the_network_that_went_in(tmp_path):
    package = make_tiny_package(tmp_path / "tiny", labels=2)
    network = load_network(package)
    assert not network.training
    assert next(network.parameters()).dtype == torch.float32
    assert network(torch.randn(1, 1, 8, 8, 8)).shape[1] == 3


def test_weights_of_another_network_are_refused_in_words(tmp_path):
    package = make_tiny_package(tmp_path / "tiny")
    other = ProSMAUNet(**{**package.model["network"], "features": [4, 6, 6]}).state_dict()
    model = {key: value for key, value in package.model.items() if key != "weights"}
    with pytest.raises(PackageError, match="do not fit"):
        write_package(tmp_path / "other", model, save(other), "# Other\n")
    gated = {**model, "network": {**model["network"], "skip": "attention"}}
    changed = write_package(tmp_path / "other", gated, package.weights_path.read_bytes(), "# Other\n")
    with pytest.raises(PackageError, match="do not fit"):
        load_network(changed)
