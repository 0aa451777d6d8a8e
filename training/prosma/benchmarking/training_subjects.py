"""Training steps that are compared: ours, nnU-Net's and MONAI's networks with equal widths, each trained as its makers do.

A step is forward pass, loss, backward pass, clipping and optimiser, on patches that are there already. Weights and patches
are random, the labels blobs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ..inference.devices import import_torch
from .subjects import FEATURES, plain_unet

CLASSES = 5  # with background
SHAPES = {"3d": (2, 1, 64, 64, 64), "2d": (8, 1, 192, 192)}


def random_patches(shape) -> tuple[Any, Any]:
    """Images (B, 1, S), float32, and labels (B, 1, S) in coherent areas."""
    torch = import_torch()
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn((shape[0], 1, *(max(1, size // 8) for size in shape[2:])), generator=random)
    mode = "trilinear" if len(shape) == 5 else "bilinear"
    smooth = torch.nn.functional.interpolate(coarse, tuple(shape[2:]), mode=mode)
    labels = (CLASSES * (smooth - smooth.min()) / (smooth.max() - smooth.min() + 1e-6)).long().clamp(0, CLASSES - 1)
    images = torch.randn(tuple(shape), generator=random) + smooth
    return images, labels


def recipe_of(shape, features, **fitting) -> dict:
    """A recipe as content, for the network that is compared: ProSMA with its field on the decoder's grid."""
    axes = len(shape) - 2
    model = {
        "id": "benchmark",
        "dimension": axes,
        "channels": [{"name": "image"}],
        "labels": [{"value": value, "name": f"label {value}"} for value in range(1, CLASSES)],
        "patch_size": list(shape[2:]),
        "intensity": {"rule": "zscore"},
        "spacing": None,
        "resize": None,
        "orientation": "RAS" if axes == 3 else None,
        "mirror_axes": list(range(axes)),
    }
    network = {"features": list(features), "field_grid": "decoder"}
    return {"model": model, "network": network, "fitting": {"batch_size": shape[0], **fitting}}


def prosma(task: dict) -> Callable[[], object]:
    """What `prosma train` does in a step, the moving average of the weights included."""
    torch = import_torch()
    from ..learning.fit.fitting import SegmentationTask

    half, device = task.get("half", False), task.get("device", "cpu")
    recipe = recipe_of(task["shape"], task.get("features", FEATURES), **task.get("fitting", {}))
    training = SegmentationTask(recipe).to(device)
    training.network.train()
    optimizer = training.configure_optimizers()["optimizer"]
    images, labels = (tensor.to(device) for tensor in random_patches(task["shape"]))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = training.loss(training.network(images.contiguous(memory_format=training.layout)), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(training.network.parameters(), training.recipe.fitting.gradient_clip)
        optimizer.step()
        training.on_train_batch_end()

    return step


def nnunet(task: dict) -> Callable[[], object]:
    """nnU-Net's own trainer step on its plain U-Net: deep supervision, its loss, stochastic gradients, float32 on a CPU."""
    import torch
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    device = torch.device(task.get("device", "cpu"))
    network = (
        plain_unet(task["shape"], task.get("features", FEATURES), CLASSES, deep_supervision=True).to(device).train()
    )
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
    images, labels = random_patches(task["shape"])
    levels = len(network(images.to(device)))
    weights = [0.5**level for level in range(levels - 1)] + [0.0]
    trainer = SimpleNamespace(
        device=device,
        network=network,
        loss=DeepSupervisionWrapper(loss, [weight / sum(weights) for weight in weights]),
        optimizer=torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True),
        grad_scaler=torch.amp.GradScaler("cuda") if device.type == "cuda" else None,
    )
    targets = [labels[(..., *(slice(None, None, 2**level),) * (labels.ndim - 2))].float() for level in range(levels)]
    batch = {"data": images, "target": targets}
    return lambda: nnUNetTrainer.train_step(trainer, batch)


def monai_attention(task: dict) -> Callable[[], object]:
    """MONAI's AttentionUnet with its Dice and cross entropy."""
    from monai.networks.nets import AttentionUnet

    return monai_step(task, AttentionUnet)


def monai_unet(task: dict) -> Callable[[], object]:
    """MONAI's UNet with two residual units a stage, as its tutorials have it."""
    from monai.networks.nets import UNet

    return monai_step(task, UNet, num_res_units=2)


def monai_step(task: dict, kind: Any, **options) -> Callable[[], object]:
    import torch  # as others do, without what `import_torch` sets
    from monai.losses import DiceCELoss

    features = task.get("features", FEATURES)
    axes = len(task["shape"]) - 2
    device = task.get("device", "cpu")
    network = kind(axes, 1, CLASSES, list(features), (2,) * (len(features) - 1), **options).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    images, labels = (tensor.to(device) for tensor in random_patches(task["shape"]))
    half = task.get("half", False) and device != "cpu"  # on a CPU they train in single precision

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=half):
            value = loss(network(images), labels)
        value.backward()
        optimizer.step()

    return step


STEPS = {"prosma": prosma, "nnunet": nnunet, "attention": monai_attention, "unet": monai_unet}
