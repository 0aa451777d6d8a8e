"""A recipe with attention at the coarsest stage: trained, packed and used, on the ways that users have."""

import json

import nibabel
import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from test_folds import data, write_recipe  # noqa: F401

from prosma.cli import main
from prosma.learning.packing.runs import Run
from prosma.learning.recipe import Recipe
from prosma.network.unet import ProSMAUNet
from prosma.package import ModelPackage, PackageError
from prosma.package.schema import check_description, least_schema
from prosma.package.weights_file import check_shapes

ATTENTION = {"bottleneck": "attention", "bottleneck_blocks": 2, "bottleneck_heads": 2}


@pytest.fixture
def recipe(tmp_path):
    path = write_recipe(tmp_path / "recipe.yaml")
    content = yaml.safe_load(path.read_text())
    content["network"].update(ATTENTION)
    content["fitting"].update(iterations=12, batch_size=2, average_decay=0.5)
    path.write_text(yaml.safe_dump(content))
    return path


def test_it_is_trained_exported_and_segments_as_plain_pytorch_does(recipe, data, tmp_path):  # noqa: F811
    run, folder, result = tmp_path / "run", tmp_path / "package", tmp_path / "labels.nii.gz"
    assert main(["train", str(recipe), "--data", str(data), "-o", str(run), "--workers", "0", "--device", "cpu"]) == 0
    losses = [epoch["train/loss"] for epoch in json.loads((run / "history.json").read_text())["epochs"]]
    assert np.isfinite(losses).all()
    weights = Run.read(run).weights
    moved = [
        name for name in weights if name.startswith("bottleneck.0.") and name.endswith("bias") and weights[name].any()
    ]
    assert "bottleneck.0.query_key_value.bias" in moved, "which is 0 before training"

    assert main(["export", str(run), "-o", str(folder)]) == 0
    package = ModelPackage.open(folder)
    assert package.model["schema"] == 3 and "2 attention blocks" in (folder / "README.md").read_text()
    image = data / "imagesTr" / "case_5_0000.nii.gz"
    assert main(["segment", str(image), "-m", str(folder), "-o", str(result), "--device", "cpu"]) == 0
    array = np.asarray(nibabel.load(image).dataobj).astype(np.float64)
    network = ProSMAUNet(**package.model["network"]).double().eval()
    stored = load_file(package.weights_path)
    for name, parameter in network.named_parameters():
        parameter.data = torch.from_numpy(stored[name].astype(np.float64) * stored.get(f"{name}.scale", 1.0))
    with torch.inference_mode():
        scores = network(torch.from_numpy((array - array.mean()) / array.std())[None, None])[0].softmax(0).numpy()
    ahead = np.sort(scores, axis=0)
    sure = ahead[-1] > ahead[-2] + 1e-3
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(nibabel.load(result).dataobj)[sure], scores.argmax(0)[sure])


def test_it_learns_one_case():
    """A few steps on one small case: what one kind of network cannot learn here, no training of hours would show."""
    torch.manual_seed(0)
    network = ProSMAUNet(3, 1, 2, (4, 8, 8), field_grid="decoder", **ATTENTION)
    x = torch.randn(1, 1, 16, 16, 16)
    labels = (x[:, 0] > 0).long()
    optimizer = torch.optim.AdamW(network.bottleneck.parameters(), lr=0.02)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01, "the attention alone, all other weights stay"


@pytest.fixture
def described(recipe):
    made = Recipe.read(recipe)
    weights = {"file": "weights.safetensors", "sha256": "0" * 64}
    return {"schema": 3, **made.model, "network": made.network_arguments, "weights": weights}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bottleneck": "mamba"}, "'network.bottleneck' should be 'none' or 'attention'"),
        ({"bottleneck_blocks": 0}, "'network.bottleneck_blocks' should be a whole number from 1 to 12"),
        ({"bottleneck_heads": 3}, "'network.bottleneck_heads' should be a divisor of 8"),
        ({"strides": [1, 1, 1], "kernel_sizes": None}, "'patch_size' should be so small that at most 4096 voxels"),
    ],
)
def test_what_no_network_can_be_is_refused_before_the_training(described, changes, words):
    model = {**described, "network": {**described["network"], **changes}}
    with pytest.raises(PackageError) as refused:
        check_description(model)
    assert words in refused.value.message


def test_older_software_refuses_it(described):
    check_description(described)
    with pytest.raises(PackageError, match="'schema' should be 3 for a network with attention"):
        check_description({**described, "schema": 2})
    network = {name: value for name, value in described["network"].items() if name not in ATTENTION}
    check_description({**described, "schema": 2, "network": network})
    schemas = [least_schema({"network": each}) for each in (network, {**network, "bottleneck": "none"})]
    assert schemas == [1, 3], "before schema 3 such an entry had no meaning at all"


def test_a_description_of_more_blocks_than_the_file_has_is_refused(described):
    network = ProSMAUNet(**described["network"])
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    check_shapes(shapes, check_description(described))
    more = check_description({**described, "network": {**described["network"], "bottleneck_blocks": 3}})
    with pytest.raises(PackageError, match=r"'bottleneck\.2\.query_key_value\.weight' is missing"):
        check_shapes(shapes, more)
