"""What is measured: a volume with a body in air, our own path through it, and other tools with networks of equal widths.

Weights are random: they do not change the speed, and nothing here says anything about accuracy.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..inference.devices import import_torch

PATCH = (96, 96, 96)
FEATURES = (16, 32, 64, 128, 256)
CT = {"rule": "ct", "clip": [-200, 700], "mean": 40.0, "std": 150.0}
WARM_TILES = 2  # whose memory is new
BODY = (0.8, 0.66)  # of the plane's sides, so that its box has 53 % of the voxels


def body_volume(shape) -> np.ndarray:
    """An elliptic cylinder of noisy tissue in air, like a CT of the trunk: int16 (I, J, K), contiguous in K, J, I."""
    random = np.random.default_rng(0)
    i, j = (np.linspace(-1, 1, n) / side for n, side in zip(shape[:2], BODY, strict=True))
    inside = i[:, None] ** 2 + j[None] ** 2 <= 1
    volume = np.empty(shape[::-1], np.int16).T
    for k in range(shape[2]):
        noise = random.normal(0, 30, shape[:2])
        volume[..., k] = np.where(inside, 40 + 3 * noise, -1000 + noise)
    return volume


class Sampled:
    """A network whose first tiles are computed and timed; for the others it answers zeros, if `limit` is given.

    What it costs altogether is then its mean time, the first WARM_TILES left out, times the number of tiles.
    """

    def __init__(self, network, limit: int | None) -> None:
        self.network = network
        self.limit = limit
        self.seconds: list[tuple[float, float]] = []  # of the processor, of the wall clock
        self.calls = 0
        self._forward = network.forward
        self._shape: tuple[int, ...] = ()
        network.forward = self._measured

    def _measured(self, x):
        self.calls += 1
        if self.limit is not None and self.calls > self.limit:
            return x.new_zeros(self._shape)
        began = time.process_time(), time.perf_counter()
        result = self._forward(x)
        self.seconds.append((time.process_time() - began[0], time.perf_counter() - began[1]))
        self._shape = result.shape  # and not the zeros themselves: kept, they would be in the way of later tiles
        return result

    def cost(self, clock: int) -> tuple[float, float]:
        """Seconds (0: of the processor, 1: of the wall clock) that were spent and that all tiles take."""
        seconds = [pair[clock] for pair in self.seconds]
        if self.limit is None or self.calls <= self.limit:
            return sum(seconds), sum(seconds)
        return sum(seconds), statistics.fmean(seconds[WARM_TILES:] or seconds) * self.calls


def random_package(folder, classes: int, features=FEATURES, patch=PATCH, field_grid: str = "decoder"):
    """A model package of a ProSMA-UNet with random weights."""
    torch = import_torch()
    from safetensors.torch import save

    from ..network.unet import ProSMAUNet
    from ..package import write_package

    network: dict[str, Any] = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": classes,
        "features": list(features),
        "field_grid": field_grid,
    }
    model = {
        "schema": 1,
        "id": "benchmark",
        "name": "Benchmark",
        "version": "1.0.0",
        "description": "Random weights.",
        "modality": "CT",
        "dimension": 3,
        "channels": [{"name": "CT"}],
        "labels": [{"value": n, "name": f"label {n}", "color": [200, 10 * n % 256, 90]} for n in range(1, classes)],
        "spacing": None,
        "resize": None,
        "orientation": "RAS",
        "intensity": CT,
        "patch_size": list(patch),
        "mirror_axes": [],
        "network": network,
        "training": {"data": "none", "licence": "CC0-1.0", "citation": "none"},
        "weights": {"dtype": "float32"},
        "accept_licence": False,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = ProSMAUNet(**network).state_dict()
    return write_package(folder, model, save({name: t.contiguous() for name, t in state.items()}), "# Benchmark\n")


# --- each prepares itself and gives (network, run); run() does a whole volume and gives the number of tiles ------------


def prosma(volume: np.ndarray, task: dict):
    """From the int16 volume to labels on its own grid: preparation, network, blending, argmax.

    Random weights give labels that hang by a hair, so that the defaults hardly ever choose half precision for them.
    """
    from ..image.geometry import Image
    from ..inference.segmenter import Segmenter

    with tempfile.TemporaryDirectory() as folder:
        package = random_package(
            f"{folder}/m",
            task["classes"],
            task.get("features", FEATURES),
            task.get("patch", PATCH),
            task.get("field_grid", "decoder"),
        )
        segmenter = Segmenter(package, "cpu")
    if task.get("half"):
        segmenter.network.half_on = "cpu"
    image = Image(volume[None], np.eye(4))
    options = {name: task[name] for name in ("overlap", "shortcuts") if name in task}
    return segmenter.network, lambda: segmenter.segment(image, **options).statistics["of_tiles"]


def monai(volume: np.ndarray, task: dict):
    """MONAI's SlidingWindowInferer with its AttentionUnet, from a normalised float32 tensor to labels."""
    import torch  # as others do, without what `import_torch` sets
    from monai.inferers import SlidingWindowInferer
    from monai.networks.nets import AttentionUnet

    features = task.get("features", FEATURES)
    network = AttentionUnet(3, 1, task["classes"], features, (2,) * (len(features) - 1)).eval()
    x = normalised_tensor(volume)[None]
    inferer = SlidingWindowInferer(task.get("patch", PATCH), 1, task["overlap"], mode="gaussian")

    def run():
        with torch.inference_mode():
            logits = inferer(x, network)
            assert isinstance(logits, torch.Tensor)
            logits.argmax(dim=1).to(torch.uint8)

    return network, run


def nnunet(volume: np.ndarray, task: dict):
    """nnU-Net v2's predictor with its plain U-Net, without mirroring, from a normalised float32 tensor to labels."""
    import torch  # as others do, without what `import_torch` sets
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    network = plain_unet(volume[None, None].shape, task.get("features", FEATURES), task["classes"]).eval()
    predictor = nnUNetPredictor(1 - task["overlap"], use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.network = network
    predictor.configuration_manager = SimpleNamespace(patch_size=task.get("patch", PATCH))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=task["classes"])
    x = normalised_tensor(volume)

    def run():
        with torch.inference_mode():
            predictor.predict_sliding_window_return_logits(x).argmax(dim=0).to(torch.uint8)

    return network, run


def plain_unet(shape, features, classes: int, deep_supervision: bool = False):
    """nnU-Net's plain U-Net of these widths."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    axes, stages = len(shape) - 2, len(features)
    return PlainConvUNet(
        1,
        stages,
        list(features),
        (torch.nn.Conv2d, torch.nn.Conv3d)[axes - 2],
        3,
        [1] + [2] * (stages - 1),
        2,
        classes,
        2,
        conv_bias=True,
        norm_op=(torch.nn.InstanceNorm2d, torch.nn.InstanceNorm3d)[axes - 2],
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
    )


def normalised_tensor(volume: np.ndarray):
    """(1, I, J, K) as other tools get it, normalised beforehand, at no cost of theirs."""
    from ..image.intensity import normalise

    return import_torch().from_numpy(normalise(volume[None], CT))


SUBJECTS = {"prosma": prosma, "monai": monai, "nnunet": nnunet}
