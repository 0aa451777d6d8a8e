"""From a model package to its network: weights and architecture must fit."""

from __future__ import annotations

from safetensors.torch import load_file

from ..network.unet import ProSMAUNet
from .model_package import ModelPackage
from .schema import PackageError


def load_network(package: ModelPackage) -> ProSMAUNet:
    """The network of a `ModelPackage` with its weights, float32, in evaluation mode.

    Raises `PackageError` when the weights do not fit the network that the package describes.
    """
    try:
        network = ProSMAUNet(**package.model["network"])
        weights = {name: tensor.float() for name, tensor in load_file(package.weights_path).items()}
        network.load_state_dict(weights)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise PackageError(
            f"The weights of model '{package.id}' do not fit its network ({reason}). "
            "The package is damaged or was put together wrongly: export or install it again."
        ) from error
    return network.eval()
