"""The fast path computes what the plain one computes (training/prosma/acceleration.py)."""

import copy

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from prosma.acceleration import use_onednn
from prosma.unet import ProSMAUNet


def networks(**arguments):
    torch.manual_seed(0)
    plain = ProSMAUNet(3, 1, 3, (16, 32, 32), **arguments).eval().to(memory_format=torch.channels_last_3d)
    fast = copy.deepcopy(plain)
    use_onednn(fast)
    return plain, fast


@pytest.mark.parametrize("variant", [{}, {"skip": "plain"}, {"skip": "attention"}, {"field_grid": "decoder"}])
def test_the_result_is_the_same_up_to_rounding(variant):
    plain, fast = networks(**variant)
    x = torch.randn(1, 1, 24, 20, 16)
    with torch.inference_mode():
        expected, found = plain(x), fast(x)
        assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max().item())
        assert torch.equal(fast.double()(x.double()), plain.double()(x.double()))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
def test_no_convolution_takes_the_slow_way():
    plain, fast = networks()
    x = torch.randn(1, 1, 16, 16, 16)

    def slow_convolutions(network):
        with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as found:
            network(x)
        return sum(event.count for event in found.key_averages() if event.key == "aten::slow_conv3d")

    assert slow_convolutions(plain) > 0
    assert slow_convolutions(fast) == 0
