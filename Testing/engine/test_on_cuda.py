"""On a CUDA card: the same results as on the CPU, and a training that goes there and comes back. Skipped without a card."""

import json

import numpy as np
import pytest
import torch
import yaml

from prosma.benchmarking.training_epoch import write_cases
from prosma.benchmarking.training_subjects import recipe_of
from prosma.cli import main
from prosma.fast.network import accelerate
from prosma.image.geometry import Image
from prosma.inference.devices import cuda_problem
from prosma.inference.segmenter import Segmenter
from prosma.network.unet import ProSMAUNet
from tiny_model import make_tiny_package

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(bool(cuda_problem()), reason=cuda_problem() or "a card works")]


def test_a_volume_gets_the_labels_that_it_gets_on_the_cpu(tmp_path):
    package = make_tiny_package(tmp_path / "m")
    image = Image(np.random.default_rng(0).normal(size=(1, 50, 44, 36)).astype(np.float32), np.eye(4))
    labels = [Segmenter(package, device).segment(image).labels for device in ("cpu", "cuda:0")]
    assert (labels[0] == labels[1]).mean() > 0.99


@pytest.mark.parametrize("skip", [{"field_grid": "skip"}, {"field_grid": "decoder"}, {"skip": "attention"}])
@pytest.mark.parametrize("shape", [(2, 1, 40, 52), (1, 1, 24, 28, 20)])
def test_a_network_gives_what_it_gives_on_the_cpu(shape, skip):
    torch.manual_seed(0)
    network = ProSMAUNet(len(shape) - 2, 1, 3, (8, 16, 16), **skip).eval()
    image = torch.randn(shape)
    with torch.inference_mode():
        expected = network(image)
        for precision, tolerance in (("float32", 2e-3), ("half", 5e-2)):
            found = accelerate(network, "cuda:0", precision)(image.to("cuda:0")).float().cpu()
            assert (found - expected).norm() < tolerance * expected.norm(), precision


def test_a_training_on_the_card_gives_a_checkpoint_that_goes_on_on_the_cpu(tmp_path):
    write_cases(tmp_path / "data", (2, 1, 16, 16, 16))
    recipe = recipe_of((2, 1, 16, 16, 16), (4, 8), epochs=2, iterations=3, validate_every=2)
    recipe["model"] |= {
        "name": "M", "version": "1.0.0", "description": "d", "modality": "MR", "accept_licence": False,
        "labels": [{"value": n, "name": f"label {n}", "color": [9, 9, 9]} for n in range(1, 5)],
        "training": {"data": "none", "licence": "CC0-1.0", "citation": "none"},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = ["train", str(tmp_path / "recipe.yaml"), "--data", str(tmp_path / "data"), "-o", str(tmp_path / "run")]
    assert main([*command, "--device", "cuda", "--devices", "1", "--max-epochs", "1", "--workers", "0"]) == 0
    assert main([*command, "--device", "cpu", "--resume", "--workers", "0"]) == 0
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert [epoch["epoch"] for epoch in history["epochs"]] == [0, 1]
    assert all(np.isfinite(epoch["train/loss"]) for epoch in history["epochs"])
