"""What each bundled model computes on a fixed image does not move: not in the plain network, not in the fast one."""

import numpy as np
import pytest
import torch
from golden_forward import GOLDEN, bundled, fixed_image, kept

from prosma.fast.network import accelerate, computes_in_half
from prosma.package.weights import load_network

# Largest difference to the stored logits, as a share of the largest stored one. Measured on an EPYC with AVX-512, with one
# thread and two: the stored numbers' own rounding 5e-8, plain float32 6e-7, fast float32 1e-5, bfloat16 3e-2. The bars
# leave other processors' orders of sums ten times that, bfloat16 three times.
ROUNDING = {"float64": 2e-7, "float32": 1e-5, "fast": 1e-4, "half": 8e-2}
MODELS = {package.id: package for package in bundled()}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_as_stored(package, logits, bar):
    with np.load(GOLDEN / f"{package.id}.npz") as stored:
        assert stored["weights"] == package.sha256, "The model has other weights now: run Testing/golden_forward.py"
        found, scale = kept(logits), abs(stored["logits"]).max()
        assert abs(found["logits"] - stored["logits"]).max() <= bar * scale
        assert abs(found["mean"] - stored["mean"]).max() <= bar * scale
        np.testing.assert_allclose(found["mean_square"], stored["mean_square"], rtol=max(bar, 1e-6))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_plain_network_gives_the_stored_logits(name):
    package = MODELS[name]
    image, network = fixed_image(package), load_network(package)
    with torch.inference_mode():
        assert_as_stored(package, network(image), ROUNDING["float32"])
        assert_as_stored(package, network.double()(image.double()), ROUNDING["float64"])


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_fast_network_gives_the_stored_logits(name):
    package = MODELS[name]
    with torch.inference_mode():
        logits = accelerate(load_network(package), precision="float32")(fixed_image(package))
    assert_as_stored(package, logits, ROUNDING["fast"])


@pytest.mark.skipif(not computes_in_half(torch.device("cpu")), reason="this processor does not compute in bfloat16")
@pytest.mark.parametrize("name", sorted(MODELS))
def test_half_precision_stays_near_the_stored_logits(name):
    package = MODELS[name]
    with torch.inference_mode():
        logits = accelerate(load_network(package), precision="half")(fixed_image(package))
    with np.load(GOLDEN / f"{name}.npz") as stored:
        found, scale = kept(logits)["logits"], abs(stored["logits"]).max()
        assert abs(found - stored["logits"]).max() <= ROUNDING["half"] * scale
        assert (found.argmax(0) != stored["logits"].argmax(0)).mean() <= 0.02


def test_every_bundled_model_has_stored_logits_and_no_other():
    assert {path.stem for path in GOLDEN.glob("*.npz")} == set(MODELS)
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 200_000


def test_a_changed_weight_is_seen():
    package = next(iter(MODELS.values()))
    network = load_network(package)
    network.gates[0].spatial.gain.data *= 1.01
    with torch.inference_mode(), pytest.raises(AssertionError):
        assert_as_stored(package, network(fixed_image(package)), ROUNDING["float32"])
