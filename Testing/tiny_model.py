"""Model packages with random weights: real files and real inference where a test does not need a trained model."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save

from prosma.correct.prompt_input import PROMPT_CHANNELS
from prosma.network.unet import ProSMAUNet
from prosma.package import ModelPackage, write_package
from prosma.package.weights import joined

COLORS = ([221, 130, 101], [128, 174, 128], [111, 184, 210], [216, 101, 79], [230, 220, 70])


def make_tiny_package(
    folder: Path,
    dimension: int = 3,
    channels: int = 1,
    labels: int = 2,
    seed: int = 0,
    bias: list[float] | None = None,
    **overrides,
) -> ModelPackage:
    """Write a package of a network with a few thousand random weights; ``overrides`` replace entries of model.json.

    ``bias``: of the logits, for a network that has made up its mind.
    """
    network = {
        "spatial_dims": dimension,
        "in_channels": channels,
        "out_channels": labels + 1,
        "features": [4, 8, 8],
    }
    model = {
        "schema": 1,
        "id": "tiny",
        "name": "Tiny test model",
        "version": "1.0.0",
        "description": "Random weights, for tests.",
        "modality": "MR",
        "dimension": dimension,
        "channels": [{"name": f"channel {index}"} for index in range(channels)],
        "labels": [
            {"value": value, "name": f"structure {value}", "color": list(COLORS[(value - 1) % len(COLORS)])}
            for value in range(1, labels + 1)
        ],
        "spacing": [1.0, 1.0, 1.0] if dimension == 3 else None,
        "resize": None,
        "orientation": "RAS" if dimension == 3 else None,
        "intensity": {"rule": "zscore"},
        "patch_size": [32, 32, 32] if dimension == 3 else [64, 64],
        "mirror_axes": [],
        "network": network,
        "training": {"data": "none", "licence": "CC0-1.0", "citation": "none"},
        "weights": {"dtype": "float16"},
        "accept_licence": False,
        **overrides,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = ProSMAUNet(**model["network"]).state_dict()
    if bias is not None:
        state["head.bias"] = torch.tensor(bias)
    weights = save({name: tensor.half().contiguous() for name, tensor in state.items()})
    return write_package(folder, model, weights, "# Tiny test model\n")


def make_tiny_promptable(
    folder: Path, dimension: int = 3, channels: int = 1, prompts: tuple = PROMPT_CHANNELS, **overrides
) -> ModelPackage:
    """As `make_tiny_package`, of a network that answers strokes."""
    network = {
        "spatial_dims": dimension,
        "in_channels": channels + len(prompts),
        "out_channels": 2,
        "features": [4, 8],
    }
    prompt, patch = {"channels": list(prompts)}, [16] * dimension
    return make_tiny_package(
        folder,
        dimension,
        channels,
        labels=1,
        network=network,
        prompt=prompt,
        patch_size=patch,
        **{"seed": 3, **overrides},
    )


def make_tiny_ensemble(folder: Path, *packages: ModelPackage, **overrides) -> ModelPackage:
    """A package with the weights of several, which are alike else."""
    model = {key: value for key, value in packages[0].model.items() if key != "weights"}
    weights = {"dtype": "float16", "sets": len(packages)}
    content = save(joined([load_file(package.weights_path) for package in packages]))
    return write_package(folder, {**model, "schema": 3, "weights": weights, **overrides}, content, "# Tiny ensemble\n")
