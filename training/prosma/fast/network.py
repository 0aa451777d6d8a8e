"""`accelerate`: a ProSMA-UNet that computes the same, faster; the package's docstring maps the room."""

from __future__ import annotations

import copy
import logging
import time
import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..network.gate import ProximalSkipGate
from ..network.unet import AttentionSkip, ProSMAUNet, pad_to_multiple
from . import autotune
from .blocks import FastBlock, FastDecoderBlock, FastModule
from .fallback import note_fallback
from .gates import FastAttention, FastGate
from .norm import Watch
from .onednn import convolution_weights, convolve, has_bfloat16, has_fast_way, why_no_fast_way

CHECK_SIZES = {2: 64, 3: 32}  # voxels along each axis of the image on which the fast ways are checked: all of them
TRIAL_SIZES = {2: 192, 3: 48}  # voxels along each axis of the image on which precisions are compared: about a tile
FEW_WEIGHTS = 100_000  # of a network that takes milliseconds: measuring such times is tossing a coin
AGREEMENT = 1e-3  # largest difference between fast and plain in float32, as a share of the largest logit
CHANGED_LABELS = 1e-3  # share of a test image's labels that half precision may change
PLAIN = "The network runs in PyTorch's own way, which takes several times as long"
FLOAT32 = "The network computes in float32"


def accelerate(network: nn.Module, device: str = "cpu", precision: str = "auto") -> nn.Module:
    """A network that computes what ``network`` does, faster, without gradients; a plain copy where there is no fast way.

    Args:
        network: a `ProSMAUNet` with its final weights. It stays as it is.
        device: "cpu", "cuda:0", ... The result can be moved to another one later.
        precision: "float32", "half" (bfloat16 on a CPU, float16 on CUDA) or "auto": half where the processor computes in
            it, it is faster and a test image keeps its labels.

    The result has ``encoder``, ``decoder`` and ``gates`` like the network, and `GateMonitor` works on it. It is tried on a
    small image first, and given back only if the answer is right. It shares the weights' memory with ``network`` where these
    lie on ``device`` with their channels last; otherwise it holds a second copy for as long as ``network`` is kept.

    >>> from prosma.network.unet import ProSMAUNet
    >>> plain = ProSMAUNet(spatial_dims=2, in_channels=1, out_channels=3, features=[4, 8]).eval()
    >>> fast = accelerate(plain, precision="float32")
    >>> image = torch.rand(1, 1, 20, 30)
    >>> with torch.inference_mode():
    ...     torch.allclose(fast(image), plain(image), atol=1e-4)
    True
    """
    if reason := why_unusual(network):
        note_fallback(PLAIN, reason)
        return sharing_copy(network).to(device).eval()
    plain: Any = laid_out(sharing_copy(network), device).eval()
    image = trial_image(plain, CHECK_SIZES[plain.spatial_dims]).to(device)
    with torch.inference_mode():
        fast = FastNetwork(plain)
        if reason := why_wrong(fast, image, expected=plain(image)):
            note_fallback(PLAIN, reason)
            return plain
        in_half = half_pays(fast, image.device) if precision == "auto" else precision == "half"
        fast.half_on = image.device.type if in_half else ""
    return fast


def laid_out(network: nn.Module, device: str) -> nn.Module:
    """`network`, itself, on a device and with the channels of its weights last."""
    ranks = {weight.ndim for weight in network.parameters()}
    layout = torch.channels_last_3d if 5 in ranks else torch.channels_last
    return network.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # its stub knows no layout


def sharing_copy(network: nn.Module) -> nn.Module:
    """A copy of the modules whose parameters and buffers are other objects in the same memory."""
    tensors = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in network.parameters()}
    return copy.deepcopy(network, tensors | {id(b): b.detach() for b in network.buffers()})


def why_wrong(fast: FastNetwork, image: Tensor, expected: Tensor) -> str:
    """The reason not to trust the fast ways, in this build of PyTorch for this processor; empty where they are right."""
    try:
        difference = (fast(image) - expected).abs().max() / expected.abs().max()
    except (RuntimeError, AttributeError) as error:  # the latter where PyTorch does not know the operator at all
        return f"an operator of this PyTorch failed ({str(error).strip().splitlines()[0]})"
    if difference <= AGREEMENT:
        return ""
    return f"its answer on a test image was off by {difference:.1e} of the largest value"


def why_unusual(network: nn.Module) -> str:
    """The reason for a network to have no fast way, whatever the computer; empty where it may have one."""
    if type(network) is not ProSMAUNet:
        return f"there is a fast way for a ProSMAUNet, not for a {type(network).__name__}"
    return "" if all(map(is_usual, network.modules())) else "a convolution does not pad with zeros by numbers"


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
    reason = why_not_half(fast, device)
    if reason:
        note_fallback(FLOAT32, reason, logging.INFO)
    return not reason


def why_not_half(fast: FastNetwork, device: torch.device) -> str:
    """The reason against half precision, as a clause; empty where it pays."""
    if not computes_in_half(device):
        return "the processor does not compute in half precision"
    if sum(weight.numel() for weight in fast.plain.parameters()) < FEW_WEIGHTS:
        return "the network is too small for half precision to pay"
    image = trial_image(fast.plain, TRIAL_SIZES[fast.plain.spatial_dims]).to(device)
    weights = zlib.crc32(b"".join(p.detach().cpu().numpy().tobytes() for p in fast.plain.parameters()))
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    question = f"precision of network {weights:08x} on {place}, images from {max(image.shape)}"
    try:
        answer = autotune.answered(question, lambda: better_precision(fast, image))
    except RuntimeError as error:  # no such operation, or too little memory: nothing is known, and nothing remembered
        return f"the trial of half precision failed ({str(error).strip().splitlines()[0]})"
    return "" if answer == "half" else "half precision changed a test image's labels or was not clearly faster"


def better_precision(fast: FastNetwork, image: Tensor) -> str:
    """ "half" where that keeps the labels of ``image`` and is faster, else "float32"."""

    def run(half: bool) -> Tensor:
        fast.half_on = image.device.type if half else ""
        return fast(image)

    found, expected = run(True), run(False)
    changed = (found.argmax(1) != expected.argmax(1)).float().mean()
    if not torch.isfinite(found).all() or changed > CHANGED_LABELS:
        return "float32"
    ways = {"float32": lambda: run(False), "half": lambda: run(True)}
    return "half" if image.device.type == "cuda" else autotune.measure(ways)


class FastHead(FastModule):
    """1x1 convolution to the logits."""

    def derive(self, dtype: torch.dtype) -> Any:
        return convolution_weights(self.plain.weight, dtype), self.plain.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        if not has_fast_way(x):
            return self.plain(x)
        weight, bias = self.derived(x.dtype)
        return convolve(x, weight, bias)


@dataclass
class Encoded:
    """What the encoder made of ``x`` (B, in_channels, S) in so many `seconds`: the feature of each stage, fine to coarse."""

    x: Tensor
    features: list[Tensor]
    rooms: list[Tensor]
    seconds: float

    def is_of(self, x: Tensor) -> bool:
        """Whether it is what the encoder would make of this."""
        same = (x.shape, x.dtype, x.device) == (self.x.shape, self.x.dtype, self.x.device)
        return same and torch.equal(x, self.x)


class FastNetwork(nn.Module):
    """`ProSMAUNet` for inference; ``half_on`` is the kind of device where it computes in half precision.

    ``kept`` is what the encoder made of an image that was looked at before (`encoder_features`): the forward pass of the same
    image goes on from there.
    """

    def __init__(self, plain: ProSMAUNet) -> None:
        super().__init__()
        self.plain = plain
        self.half_on = ""
        encoder, decoder, upsamplings = (
            list[Any](blocks) for blocks in (plain.encoder, plain.decoder, plain.upsamplings)
        )
        self.encoder = nn.ModuleList(FastBlock(block) for block in encoder)
        self.decoder = nn.ModuleList(map(FastDecoderBlock, decoder, upsamplings))
        kinds: dict[type, Any] = {ProximalSkipGate: FastGate, AttentionSkip: FastAttention}
        self.gates = nn.ModuleList(
            kinds[type(gate)](gate, block.upsampling) for gate, block in zip(plain.gates, self.decoder, strict=False)
        )
        self.head = FastHead(plain.head)
        self.kept: Encoded | None = None
        self.seconds_saved = 0.0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, S) -> logits (B, out_channels, S), in the type of ``x``."""
        plain = self.plain
        if x.ndim != plain.spatial_dims + 2 or x.shape[1] != plain.in_channels:
            return plain(x)
        if x.device.type == "cpu" and (reason := why_no_fast_way(x)):
            note_fallback(PLAIN, reason)
        if x.device.type != self.half_on or x.dtype != torch.float32:
            return self.logits(x)
        if x.device.type == "cuda":
            with torch.autocast("cuda", torch.float16):
                logits = self.logits(x).float()
            return logits if torch.isfinite(logits).all() else self.logits(x)
        return self.logits(x.bfloat16()).float() if has_fast_way(x) else self.logits(x)

    def logits(self, x: Tensor) -> Tensor:
        shape = x.shape[2:]
        features, rooms = self._encoded(pad_to_multiple(x, self.plain.divisor))
        x = self._between(features.pop())
        for level, block in enumerate(self.decoder):
            rooms.pop()
            inputs = [x, features.pop()]
            if len(self.gates):
                inputs[1] = self.gates[level](inputs[1], x)
            del x  # the block then frees it
            x = block(inputs)
        inside = (..., *(slice(size) for size in shape))
        return self.head(x)[inside]

    def _between(self, x: Tensor) -> Tensor:
        """The bottleneck, in float32: with its voxels as rows, channels last, PyTorch's own products are fast."""
        return self.plain.bottleneck(x.float()).to(x.dtype) if len(self.plain.bottleneck) else x

    def encode(self, x: Tensor, watch: Watch | None = None) -> Encoded:
        """(B, in_channels, S), of sizes that the strides divide. ``watch``: see `FastBlock`."""
        began, image, features, rooms = time.perf_counter(), x, [], []
        for block in self.encoder:
            x = block(x) if watch is None else block(x, watch)
            features.append(x)
            # Never touched: keeps smaller features from splitting memory that the decoder needs in one piece.
            rooms.append(torch.empty_like(x))
        rooms.pop()
        return Encoded(image, features, rooms, time.perf_counter() - began)

    def _encoded(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Features and rooms, which are the caller's alone: it takes them off as it needs them."""
        if self.kept is not None and self.kept.is_of(x):
            encoded, self.kept = self.kept, None
            self.seconds_saved += encoded.seconds
        else:
            encoded = self.encode(x)
        return encoded.features, encoded.rooms

    def forget(self) -> float:
        """Keep nothing any more; the seconds that were saved by it since the last time."""
        saved, self.kept, self.seconds_saved = self.seconds_saved, None, 0.0
        return saved

    def can_halve_on_cpu(self) -> bool:
        """Whether the CPU could compute in bfloat16, quickly or not, and does not."""
        return self.half_on != "cpu" and has_bfloat16()
