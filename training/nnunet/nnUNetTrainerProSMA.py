"""nnU-Net v2 with the skips of ProSMA-UNet: trainers for nnU-Net 2.8.

    export nnUNet_extTrainer=<this folder>
    nnUNetv2_train DATASET CONFIGURATION FOLD -tr nnUNetTrainerProSMA

nnU-Net searches the folders in ``nnUNet_extTrainer`` for the class whose name ``-tr`` gives, and for the class whose name a
checkpoint holds. It imports every module that it finds there, and forgets them again: this folder holds no other module.
"""

from __future__ import annotations

from typing import ClassVar

try:
    from prosma.network.gate import selection_parameters
    from prosma.network.unet import ProSMAUNet
except ImportError as error:
    raise ImportError(
        f"nnUNetTrainerProSMA needs the Python package 'prosma', which could not be imported ({error}). Install it into "
        "the environment where nnU-Net is: pip install <SlicerProSMA checkout>/training"
    ) from error

import numpy as np
import torch
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn
from torch._dynamo import OptimizedModule

FROM_PLANS = ("features_per_stage", "strides", "kernel_sizes")
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class nnUNetTrainerProSMA(nnUNetTrainer):
    """nnU-Net's trainer, with ProSMA-UNet as the network.

    The network follows the plans: stages, features, strides, kernel sizes, one output for each resolution of the decoder.
    Without its gates it is nnU-Net's ``PlainConvUNet`` with two convolutions a stage, initialised in the same way.
    """

    # Arguments of ProSMAUNet that say what the skips are; subclasses change these.
    skip_arguments: ClassVar[dict] = {"skip": "prosma", "field_grid": "skip"}

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> ProSMAUNet:
        """The network that the plans describe; nnU-Net calls this for training and for prediction.

        Raises ValueError if the plans describe a network without stages.
        """
        architecture = configuration_manager.network_arch_init_kwargs
        if not all(name in architecture for name in FROM_PLANS):
            raise ValueError(
                f"{cls.__name__} needs plans with {', '.join(FROM_PLANS)}; these are for "
                f"{configuration_manager.network_arch_class_name}. Plan with nnU-Net's ExperimentPlanner."
            )
        network = ProSMAUNet(
            len(configuration_manager.patch_size),
            num_input_channels,
            num_output_channels,
            *(architecture[name] for name in FROM_PLANS),
            deep_supervision=True,  # the heads are always there, so that weights fit with deep supervision on and off
            **cls.skip_arguments,
        )
        use_instance_norm(network)
        network.apply(InitWeights_He(1e-2))
        network.deep_supervision = enable_deep_supervision
        return network

    def initialize(self) -> None:
        super().initialize()
        for departure in departures(self.configuration_manager):
            self.print_to_log_file(f"{type(self).__name__} departs from the plans: {departure}")

    def configure_optimizers(self) -> tuple[torch.optim.SGD, PolyLRScheduler]:
        """nnU-Net's SGD and schedule, without weight decay for thresholds and gains: it would open every gate."""
        selection = selection_parameters(self.network)
        apart = {id(parameter) for parameter in selection}
        rest = [parameter for parameter in self.network.parameters() if id(parameter) not in apart]
        optimizer = torch.optim.SGD(
            [{"params": rest}, {"params": selection, "weight_decay": 0.0}],
            self.initial_lr,
            weight_decay=self.weight_decay,
            momentum=0.99,
            nesterov=True,
        )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        network = self.network.module if self.is_ddp else self.network
        network = network._orig_mod if isinstance(network, OptimizedModule) else network
        network.deep_supervision = enabled

    def on_validation_epoch_start(self) -> None:
        """Leave the network in training mode: only there does it return the list of outputs that the loss takes.

        It has no layer that works differently in the two modes.
        """
        self.network.train()


class nnUNetTrainerProSMADecoderGrid(nnUNetTrainerProSMA):
    """The gates are computed on the decoder's coarse grid: cheaper in time and memory, and a different model."""

    skip_arguments: ClassVar[dict] = {"skip": "prosma", "field_grid": "decoder"}


def use_instance_norm(network: ProSMAUNet) -> None:
    """Put ``nn.InstanceNorm`` where ProSMAUNet has the equal ``GroupNorm(C, C)``: same result, same names of the weights.

    CUDA's autocast lets it stay in half precision, as nnU-Net has it; GroupNorm would run, and keep its input, in single.
    """
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.GroupNorm):
                instance_norm = INSTANCE_NORM[network.spatial_dims]
                setattr(parent, name, instance_norm(norm.num_channels, eps=norm.eps, affine=norm.affine))


def departures(configuration_manager: ConfigurationManager) -> list[str]:
    """What the plans ask for and ProSMA-UNet does not have: one text each."""
    asked = configuration_manager.network_arch_init_kwargs
    name = configuration_manager.network_arch_class_name.rsplit(".", 1)[-1]
    found = []
    if name != "PlainConvUNet":
        found.append(f"plain convolutional blocks in place of those of {name}.")
    convolutions = {
        int(count)
        for part in ("n_conv_per_stage", "n_conv_per_stage_decoder")
        for count in np.ravel(asked.get(part, 2))
    }
    if convolutions != {2}:
        found.append(f"two convolutions in every stage in place of {sorted(convolutions)}.")
    if asked.get("dropout_op"):
        found.append("no dropout.")
    return found
