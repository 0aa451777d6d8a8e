"""The faster backward pass of instance norm: same numbers as PyTorch's."""

import copy

import pytest
import torch

from prosma.learning.fit.norm import TrainedInstanceNorm, use_fast_norm
from prosma.network.unet import ProSMAUNet


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (2, 5, 4, 3, 6)])
@pytest.mark.parametrize("last", [True, False])
def test_gradients_are_those_of_group_norm(shape, affine, last):
    torch.manual_seed(1)
    plain = torch.nn.GroupNorm(5, 5, affine=affine).double()
    fast = copy.deepcopy(plain).float()
    if affine:
        torch.nn.init.normal_(plain.weight)
        fast.weight.data.copy_(plain.weight)
    use_fast_norm(torch.nn.Sequential(fast))
    assert type(fast) is TrainedInstanceNorm
    x = torch.randn(shape) * 3 + 2
    if last:
        x = x.contiguous(memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)
    inputs = [x.clone().requires_grad_(), x.double().requires_grad_()]
    outputs = [fast(inputs[0]), plain(inputs[1])]
    slopes = torch.randn(shape)
    outputs[0].backward(slopes)
    outputs[1].backward(slopes.double())
    assert torch.allclose(outputs[0].double(), outputs[1], atol=1e-5)
    assert torch.allclose(inputs[0].grad.double(), inputs[1].grad, atol=1e-5)
    if affine:
        assert torch.allclose(fast.weight.grad.double(), plain.weight.grad, atol=1e-4)
        assert torch.allclose(fast.bias.grad.double(), plain.bias.grad, atol=1e-4)


def test_a_network_keeps_its_weights_names_and_gradients():
    torch.manual_seed(2)
    network = ProSMAUNet(2, 1, 2, (4, 8, 16), field_grid="decoder", deep_supervision=True)
    fast = copy.deepcopy(network)
    use_fast_norm(fast)
    assert list(fast.state_dict()) == list(network.state_dict())
    assert any(type(module) is TrainedInstanceNorm for module in fast.modules())
    x = torch.randn(2, 1, 16, 16)
    for model in (network, fast):
        model.train()
        sum(output.square().mean() for output in model(x)).backward()
    for first, second in zip(network.parameters(), fast.parameters(), strict=True):
        assert torch.allclose(first.grad, second.grad, rtol=1e-3, atol=1e-5)
