"""A ProSMA-UNet made fast for inference: the same mathematics, arranged for the processor.

On a CPU, with oneDNN, in 2D and 3D (`blocks`, `gates`):

- The channels lie last in memory throughout, and every convolution calls oneDNN. (PyTorch itself takes unfolded patches
  and a matrix product for small volumes.) A single channel becomes three: each voxel with its neighbours along one axis.
- The skip and the decoder feature are never concatenated: the second convolution adds to the result of the first. The
  decoder feature's upsampling and convolution are one transposed convolution, of fewer multiplications.
- Norm, activation and gate work in place, a piece in the cache at a time (`norm`). A convolution before a norm needs
  no bias. The box gate clip(1 + gamma z - lambda, 0, 1) is one scale and shift of the unnormalised field, and a clamp; the
  signed and the shrinking gate are divided by their thresholds, which leaves one threshold 1 for all channels.
- The dilated depthwise convolutions never run dilated in 3D (`stencils`); which way is fastest is measured (`autotune`).
- The channel gate needs the mean of the upsampled decoder feature. It is linear in the mean before the upsampling.
- Where the processor computes in bfloat16 (AVX-512 BF16, AMX), that is used if the labels on a test image stay the same.

On CUDA the plain network runs with its channels last and in half precision, with the same test. Whatever has no fast way
(gradients wanted, float64, another device, a PyTorch without oneDNN) takes the plain one.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..network.gate import ProximalSkipGate, SpatialGate
from ..network.unet import AttentionSkip, ProSMAUNet, pad_to_multiple
from . import autotune
from .blocks import FastBlock, FastDecoderBlock, FastModule
from .gates import FastAttention, FastGate
from .onednn import convolution_weights, convolve, has_bfloat16, has_fast_way

CHECK_SIZES = {2: 64, 3: 32}  # voxels along each axis of the image on which the fast ways are checked: all of them
TRIAL_SIZES = {2: 192, 3: 48}  # voxels along each axis of the image on which precisions are compared: about a tile
FEW_WEIGHTS = 100_000  # of a network that takes milliseconds: measuring such times is tossing a coin
AGREEMENT = 1e-3  # largest difference between fast and plain in float32, as a share of the largest logit
CHANGED_LABELS = 1e-3  # share of a test image's labels that half precision may change


def accelerate(network: nn.Module, device: str = "cpu", precision: str = "auto") -> nn.Module:
    """A network that computes what ``network`` does, faster, without gradients; ``network`` itself where there is none.

    Args:
        network: a `ProSMAUNet` with its final weights, in evaluation mode. Its weights are shared, and the fields of its
            gates are replaced; use it no more. It is moved to ``device``.
        device: "cpu", "cuda:0", ... The result can be moved to another one later.
        precision: "float32", "half" (bfloat16 on a CPU, float16 on CUDA) or "auto": half where the processor computes in
            it, it is faster and a test image keeps its labels.

    The result has ``encoder``, ``decoder`` and ``gates`` like the network, and `gate.GateMonitor` works on it. It is tried
    on a small image first, and given back only if the answer is right.
    """
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}.get(getattr(network, "spatial_dims", None))
    if type(network) is not ProSMAUNet or not all(map(is_usual, network.modules())):
        return network.to(device)
    network = network.to(device, memory_format=layout).eval()
    image = trial_image(network, CHECK_SIZES[network.spatial_dims]).to(device)
    with torch.inference_mode():
        expected = network(image)
        fast = FastNetwork(network)
        if not agrees(fast, image, expected):
            return fast.undone()
        in_half = half_pays(fast, image.device) if precision == "auto" else precision == "half"
        fast.half_on = image.device.type if in_half else ""
    return fast


def agrees(fast: FastNetwork, image: Tensor, expected: Tensor) -> bool:
    """Whether the fast ways are there, in this build of PyTorch for this processor, and right."""
    try:
        difference = (fast(image) - expected).abs().max()
    except (RuntimeError, AttributeError):  # the latter where PyTorch does not know the operator at all
        return False
    return bool(difference <= AGREEMENT * expected.abs().max())


def is_usual(module: nn.Module) -> bool:
    """Whether a convolution pads with zeros by numbers; True for all other modules."""
    return getattr(module, "padding_mode", "zeros") == "zeros" and not isinstance(getattr(module, "padding", 0), str)


def trial_image(network: ProSMAUNet, size: int) -> Tensor:
    """A smooth random image, the same each time, that the network takes without padding; ``size`` is its least side."""
    generator = torch.Generator().manual_seed(0)
    sizes = [max(2, -(-size // divisor)) * divisor for divisor in network.divisor]
    coarse = torch.randn(1, network.in_channels, *[max(2, size // 4) for size in sizes], generator=generator)
    return F.interpolate(coarse, size=sizes, mode="nearest")


def computes_in_half(device: torch.device) -> bool:
    """Whether the processor multiplies half precision numbers natively; emulated they are slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (7, 0)
    return device.type == "cpu" and any(
        getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


def half_pays(fast: FastNetwork, device: torch.device) -> bool:
    """Whether half precision is there, keeps the labels of a trial image and is faster; small networks do without."""
    if not computes_in_half(device) or sum(weight.numel() for weight in fast.plain.parameters()) < FEW_WEIGHTS:
        return False

    def run(half: bool) -> Tensor:
        fast.half_on = device.type if half else ""
        return fast(image)

    def better() -> str:
        found, expected = run(True), run(False)
        changed = (found.argmax(1) != expected.argmax(1)).float().mean()
        if not torch.isfinite(found).all() or changed > CHANGED_LABELS:
            return "float32"
        ways = {"float32": lambda: run(False), "half": lambda: run(True)}
        return "half" if device.type == "cuda" else autotune.measure(ways)

    image = trial_image(fast.plain, TRIAL_SIZES[fast.plain.spatial_dims]).to(device)
    weights = zlib.crc32(b"".join(p.detach().cpu().numpy().tobytes() for p in fast.plain.parameters()))
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    question = f"precision of network {weights:08x} on {place}, images from {max(image.shape)}"
    try:
        return autotune.answered(question, better) == "half"
    except RuntimeError:
        return False  # no such operation, or too little memory for the trial: nothing is known, and nothing remembered


class FastHead(FastModule):
    """1x1 convolution to the logits."""

    def derive(self, dtype: torch.dtype):
        return convolution_weights(self.plain.weight, dtype), self.plain.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, *self.derived(x.dtype)) if has_fast_way(x) else self.plain(x)


class FastNetwork(nn.Module):
    """`ProSMAUNet` for inference; ``half_on`` is the kind of device where it computes in half precision."""

    def __init__(self, plain: ProSMAUNet) -> None:
        super().__init__()
        self.plain = plain
        self.half_on = ""
        self.encoder = nn.ModuleList(FastBlock(block) for block in plain.encoder)
        self.decoder = nn.ModuleList(map(FastDecoderBlock, plain.decoder, plain.upsamplings))
        kinds = {ProximalSkipGate: FastGate, AttentionSkip: FastAttention}
        self.gates = nn.ModuleList(
            kinds[type(gate)](gate, block.upsampling) for gate, block in zip(plain.gates, self.decoder, strict=False)
        )
        self.head = FastHead(plain.head)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, S) -> logits (B, out_channels, S), in the type of ``x``."""
        plain = self.plain
        if x.ndim != plain.spatial_dims + 2 or x.shape[1] != plain.in_channels:
            return plain(x)
        if x.device.type != self.half_on or x.dtype != torch.float32:
            return self.logits(x)
        if x.device.type == "cuda":
            with torch.autocast("cuda", torch.float16):
                logits = self.logits(x).float()
            return logits if torch.isfinite(logits).all() else self.logits(x)
        return self.logits(x.bfloat16()).float() if has_fast_way(x) else self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        shape = x.shape[2:]
        x = pad_to_multiple(x, self.plain.divisor)
        features, rooms = [], []
        for block in self.encoder:
            x = block(x)
            features.append(x)
            # Never touched: keeps smaller features from splitting memory that the decoder needs in one piece.
            rooms.append(torch.empty_like(x))
        features.pop()
        rooms.pop()
        for level, block in enumerate(self.decoder):
            rooms.pop()
            inputs = [x, features.pop()]
            if len(self.gates):
                inputs[1] = self.gates[level](inputs[1], x)
            del x  # the block then frees it
            x = block(inputs)
        return self.head(x)[(..., *(slice(size) for size in shape))]

    def can_halve_on_cpu(self) -> bool:
        """Whether the CPU could compute in bfloat16, quickly or not, and does not."""
        return self.half_on != "cpu" and has_bfloat16()

    def undone(self) -> ProSMAUNet:
        """The plain network as it was; this one is of no use afterwards."""
        for gate in self.plain.gates:
            if isinstance(getattr(gate, "spatial", None), SpatialGate):
                gate.spatial.field = gate.spatial.field.plain
        return self.plain
