import pytest
import torch


@pytest.fixture
def double_precision():
    """Formulas are compared in float64."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
