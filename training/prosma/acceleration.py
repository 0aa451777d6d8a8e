"""A ProSMA-UNet made fast for inference: the same mathematics, arranged for the processor.

On a CPU, with oneDNN, in 2D and 3D:

- The channels lie last in memory throughout, and every convolution calls oneDNN. (PyTorch itself takes unfolded patches
  and a matrix product for small volumes.) A single channel becomes three: each voxel with its neighbours along one axis.
- The skip and the decoder feature are never concatenated: the second convolution adds to the result of the first. The
  decoder feature's upsampling and convolution are one transposed convolution, of fewer multiplications.
- Norm, activation and gate work in place, a piece in the cache at a time (`fastnorm`). A convolution before a norm needs
  no bias. The box gate clip(1 + gamma z - lambda, 0, 1) is one scale and shift of the unnormalised field, and a clamp; the
  signed and the shrinking gate are divided by their thresholds, which leaves one threshold 1 for all channels.
- The dilated depthwise convolutions never run dilated in 3D (`stencils`); which way is fastest is measured (`tuning`).
- The channel gate needs the mean of the upsampled decoder feature. It is linear in the mean before the upsampling.
- Where the processor computes in bfloat16 (AVX-512 BF16, AMX), that is used if the labels on a test image stay the same.

On CUDA the plain network runs with its channels last and in half precision, with the same test. Whatever has no fast way
(gradients wanted, float64, another device, a PyTorch without oneDNN) takes the plain one.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import tuning
from .fastnorm import FEW, channels_last, is_small, normalise_, normalised_in_half, row_of, rows
from .gate import CompatibilityField, ProximalSkipGate, SpatialGate
from .stencils import Stencil
from .unet import AttentionSkip, ConvolutionBlock, ProSMAUNet, pad_to_multiple

CONVOLVE = {2: F.conv2d, 3: F.conv3d}
CONVOLVE_TRANSPOSED = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
TUNED_SIZE = 1 << 18  # values of a field from which on the ways to compute it are measured
CHECK_SIZES = {2: 64, 3: 32}  # voxels along each axis of the image on which the fast ways are checked: all of them
TRIAL_SIZES = {2: 192, 3: 48}  # voxels along each axis of the image on which precisions are compared: about a tile
FEW_WEIGHTS = 100_000  # of a network that takes milliseconds: measuring such times is tossing a coin
AGREEMENT = 1e-3  # largest difference between fast and plain in float32, as a share of the largest logit
FEW_CHANNELS = 16  # up to which a convolution repeats voxels faster than a copy does
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
        return "half" if device.type == "cuda" else tuning.measure(ways)

    image = trial_image(fast.plain, TRIAL_SIZES[fast.plain.spatial_dims]).to(device)
    weights = zlib.crc32(b"".join(p.detach().cpu().numpy().tobytes() for p in fast.plain.parameters()))
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    question = f"precision of network {weights:08x} on {place}, images from {max(image.shape)}"
    try:
        return tuning.answered(question, better) == "half"
    except RuntimeError:
        return False  # no such operation, or too little memory for the trial: nothing is known, and nothing remembered


def has_fast_way(x: Tensor) -> bool:
    """Whether a tensor goes through oneDNN: CPU, float32 or bfloat16, no gradients."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    )


class FastModule(nn.Module):
    """A plain module with weights that `derive` (dtype) makes of its own, at first use and again after it has moved."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.plain = plain
        self._derived: dict = {}

    def derived(self, dtype: torch.dtype):
        if dtype not in self._derived:
            self._derived[dtype] = self.derive(dtype)
        return self._derived[dtype]

    def _apply(self, *arguments, **options):
        self._derived.clear()
        return super()._apply(*arguments, **options)


def convolution_weights(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return channels_last(weight.detach().to(dtype))


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=None, padding=None) -> Tensor:
    """Convolution by oneDNN, channels-last in and out."""
    axes = x.ndim - 2
    one = [1] * axes
    y = torch.mkldnn_convolution(x, weight, bias, padding or [0] * axes, stride or one, one, 1)
    return channels_last(y)


def transposed(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding=None) -> Tensor:
    """Transposed convolution by oneDNN, weight (in, out, sizes), channels-last in and out."""
    none, one = [0] * (x.ndim - 2), [1] * (x.ndim - 2)
    return channels_last(
        torch.ops.mkldnn._convolution_transpose_pointwise(
            x, weight, bias, padding or none, none, stride, one, 1, "none", [], ""
        )
    )


def convolve_onto(
    total: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, padding=None, relu: bool = False
) -> None:
    """total += convolution, then ReLU if asked for, in one pass."""
    one = [1] * (x.ndim - 2)
    activation = ("relu", [], None) if relu else (None, [], None)
    torch.ops.mkldnn._convolution_pointwise_.binary(
        total, x, weight, bias, padding or [0] * len(one), one, one, 1, "add", 1.0, *activation
    )


class FastBlock(FastModule):
    """`ConvolutionBlock` of the encoder."""

    def __init__(self, plain: ConvolutionBlock) -> None:
        super().__init__(plain)
        first = plain[0]
        keeps_length = first.stride[0] == 1 and 2 * first.padding[0] + 1 == first.kernel_size[0]
        self.stacked = first.in_channels == 1 and keeps_length

    def derive(self, dtype: torch.dtype):
        weight = self.plain[0].weight.transpose(1, 2) if self.stacked else self.plain[0].weight
        return convolution_weights(weight, dtype), convolution_weights(self.plain[3].weight, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, S) -> (B, out, S / stride)."""
        if not has_fast_way(x):
            return self.plain(x)
        weight, second_weight = self.derived(x.dtype)
        x, first = channels_last(x), self.plain[0]
        if self.stacked:
            x = convolve(with_neighbours(x, first.kernel_size[0]), weight, None, None, (0, *first.padding[1:]))
        else:
            x = convolve(x, weight, None, first.stride, first.padding)
        return rest_of_block(x, self.plain, second_weight)


def rest_of_block(x: Tensor, block: ConvolutionBlock, weight: Tensor) -> Tensor:
    """What a block does after its first convolution, which has had no bias; ``weight`` is the second's."""
    _, norm, activation, second, second_norm, second_activation = block
    x = norm_and_activation(x, norm, activation.negative_slope)
    x = convolve(x, weight, None, second.stride, second.padding)
    return norm_and_activation(x, second_norm, second_activation.negative_slope)


class FastDecoderBlock(FastModule):
    """Upsampling, concatenation with the skip and `ConvolutionBlock`.

    A transposed convolution and the convolution after it are one transposed convolution with a larger kernel, of fewer
    multiplications than the two: 8 x 2C x C for a voxel instead of 27 x C x C, and the upsampled feature is never made.
    """

    def __init__(self, plain: ConvolutionBlock, upsampling: nn.Module) -> None:
        super().__init__(plain)
        self.upsampling = FastUpsampling(upsampling)

    def derive(self, dtype: torch.dtype):
        up, skip = self.plain[0].weight.chunk(2, dim=1)
        weights = [convolution_weights(weight, dtype) for weight in (up, skip, self.plain[3].weight)]
        kernel, edge = convolved_upsampling(self.upsampling.plain, up.detach().double(), self.plain[0].padding)
        return *weights, convolution_weights(kernel, dtype), edge.to(dtype)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """[decoder feature (B, 2 C, S / stride), skip (B, C, S)] -> (B, C, S). The list is emptied, to free them early."""
        if not has_fast_way(inputs[0]):
            coarse, skip = inputs
            inputs.clear()
            return self.plain(torch.cat([self.upsampling(coarse), skip], dim=1))
        up, skip, second, kernel, edge = self.derived(inputs[0].dtype)
        padding = self.plain[0].padding
        if self.takes_one_kernel(inputs[0], inputs[1]):
            x = transposed(inputs.pop(0), kernel, None, self.upsampling.plain.stride, padding)
            add_at_borders(x, edge)
            convolve_onto(x, inputs.pop(), skip, None, padding)
        else:
            x = convolve(inputs.pop(), skip, None, None, padding)
            convolve_onto(x, self.upsampling(inputs.pop()), up, None, padding)
        return rest_of_block(x, self.plain, second)

    def takes_one_kernel(self, coarse: Tensor, skip: Tensor) -> bool:
        """Whether one kernel is quicker than two (with few voxels AVX-512 takes longer), and no border meets the other."""
        wide = all(size >= kernel for size, kernel in zip(skip.shape[2:], self.plain[0].kernel_size, strict=True))
        return wide and coarse.numel() // coarse.shape[1] >= FEW


def convolved_upsampling(upsampling: nn.Module, weight: Tensor, padding: Sequence[int]) -> tuple[Tensor, Tensor]:
    """A transposed convolution followed by a convolution, as one.

    Args:
        upsampling: its stride is its kernel.
        weight: (out, C, odd sizes), float64, of the convolution, which keeps the shape and has no bias.
        padding: of the convolution.

    Returns the kernel (in, out, sizes) of the transposed convolution, padded alike; and what the bias of ``upsampling``
    adds near the borders, where zeros take its place, beyond what it adds everywhere, which a norm takes away again:
    (1, out, sizes), voxel by voxel at both ends of each axis, with one voxel, 0, for all in the middle.
    """
    axes = weight.ndim - 2
    kernel = CONVOLVE_TRANSPOSED[axes](
        upsampling.weight.detach().double(), weight.flip(*range(2, 2 + axes)).transpose(0, 1)
    )
    bias = upsampling.bias.detach().double().view(1, -1, *[1] * axes).expand(-1, -1, *weight.shape[2:])
    edge = CONVOLVE[axes](bias, weight, padding=tuple(padding))
    return kernel, edge - edge[(..., *(slice(p, p + 1) for p in padding))]


def add_at_borders(x: Tensor, edge: Tensor) -> None:
    """x += edge, (1, C, odd sizes), whose middle voxel, 0, stands for all but the first and last few of an axis.

    Axis by axis: the ends of each get what differs from its middle, as whole faces, which are contiguous for the first.
    """
    x, edge = x.movedim(1, -1), edge.movedim(1, -1)
    for axis in range(1, x.ndim - 1):
        reach = edge.shape[axis] // 2
        middle = edge.narrow(axis, reach, 1)
        faces = edge - middle
        for later in range(axis + 1, x.ndim - 1):
            faces = stretched(faces, later, x.shape[later])
        for start in (0, x.shape[axis] - reach):
            x.narrow(axis, start, reach).add_(faces.narrow(axis, reach + 1 if start else 0, reach))
        edge = middle


def stretched(x: Tensor, axis: int, length: int) -> Tensor:
    """``x`` with the middle of an axis of odd size repeated up to ``length``."""
    reach = x.shape[axis] // 2
    repeats = torch.ones(2 * reach + 1, dtype=torch.int64)
    repeats[reach] = length - 2 * reach
    return x.repeat_interleave(repeats, dim=axis)


def with_neighbours(x: Tensor, size: int) -> Tensor:
    """(B, 1, S) -> channels-last (B, size, S): as channels the voxel and its neighbours along the first axis, 0 beyond.

    A convolution of one channel takes oneDNN 2 to 5 times as long as one of three.
    """
    length, reach = x.shape[2], size // 2
    result = x.new_zeros(len(x), *x.shape[2:], size)
    for number, away in enumerate(range(-reach, reach + 1)):
        to = slice(max(0, -away), length - max(0, away))
        result[:, to, ..., number] = x[:, 0, max(0, away) : length + min(0, away)]
    return result.movedim(-1, 1)


def norm_and_activation(x: Tensor, norm: nn.GroupNorm, slope: float) -> Tensor:
    """Instance norm and LeakyReLU, in place in float32."""
    if in_one_pass(x):
        return normalised_in_half(x, norm.weight, norm.bias, norm.eps, "leaky_relu", [slope])
    for lines, _, _ in normalise_(x, norm.weight, norm.bias, norm.eps):
        F.leaky_relu_(lines, slope)
    return x


def in_one_pass(x: Tensor) -> bool:
    """Whether `normalised_in_half` is there for a tensor, and quicker."""
    return x.dtype == torch.bfloat16 and not is_small(x)


class FastUpsampling(FastModule):
    """Transposed convolution whose stride is its kernel."""

    def derive(self, dtype: torch.dtype):
        return convolution_weights(self.plain.weight, dtype), self.plain.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return transposed(x, *self.derived(x.dtype), self.plain.stride) if has_fast_way(x) else self.plain(x)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of the result over its voxels, (B, C), from that of ``x``: the kernels tile the result."""
        kernel = self.plain.weight.float().flatten(2).mean(2)
        return spatial_mean(x) @ kernel + self.plain.bias.float()


def spatial_mean(x: Tensor) -> Tensor:
    """(B, C, S) -> (B, C), float32. In bfloat16 PyTorch sums slowly: it gets the means of neighbours."""
    if in_one_pass(x) and has_fast_way(x) and not any(size % 2 for size in x.shape[2:]):
        x = pooled(x, [size // 2 for size in x.shape[2:]])
    return x.mean(dim=tuple(range(2, x.ndim)), dtype=torch.float32)


class FastField(FastModule):
    """`CompatibilityField`. With an ``upsampling`` it takes the decoder feature before it: their product is one kernel."""

    def __init__(self, plain: CompatibilityField, upsampling: FastUpsampling | None = None) -> None:
        super().__init__(plain)
        self.upsampling = upsampling
        self.ways: dict[tuple, str] = {}

    def derive(self, dtype: torch.dtype):
        skip = convolution_weights(self.plain.project_skip.weight, dtype)
        return skip, *projection(self.plain.project_decoder, self.upsampling, dtype), Stencil(self.plain.scales, dtype)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        return self.plain(x, g)

    def unnormalised(self, x: Tensor, coarse: Tensor) -> Tensor:
        skip, decoder, bias, stencil = self.derived(x.dtype)
        q = projected(coarse, decoder, bias, self.upsampling)
        convolve_onto(q, x, skip)
        return stencil.ways(q.shape[2:])[self.way(q, stencil)](q)

    def way(self, q: Tensor, stencil: Stencil) -> str:
        """The fastest way to compute the stencil for this shape, measured where it matters."""
        case = (tuple(q.shape), q.dtype)
        if case not in self.ways:
            ways = stencil.ways(q.shape[2:])
            self.ways[case] = (
                next(iter(ways)) if q.numel() < TUNED_SIZE else self.measured_way(q.clone(), stencil, ways)
            )
        return self.ways[case]

    def measured_way(self, q: Tensor, stencil: Stencil, ways: dict[str, Callable]) -> str:
        """`way`, whose answer is remembered. The ways use up ``q``."""
        sizes, kernel = "x".join(map(str, q.shape)), list(self.plain.scales[0].kernel_size)
        question = f"activated stencil {sizes} {q.dtype} dilations {stencil.dilations} kernel {kernel}"
        return tuning.fastest(question, {name: functools.partial(way, q) for name, way in ways.items()})


def projection(layer: nn.Module, upsampling: FastUpsampling | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution of one voxel, or of the upsampling before it and it as one."""
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    if upsampling is not None:
        matrix = weight.flatten(1)
        bias = bias + matrix @ upsampling.plain.bias.detach().double()
        weight = torch.einsum("oc,ic...->io...", matrix, upsampling.plain.weight.detach().double())
    return convolution_weights(weight, dtype), bias.to(dtype)


def projected(coarse: Tensor, weight: Tensor, bias: Tensor, upsampling: FastUpsampling | None) -> Tensor:
    """What `projection` is for."""
    if upsampling is None:
        return convolve(coarse, weight, bias)
    return transposed(coarse, weight, bias, upsampling.plain.stride)


class FastGate(FastModule):
    """`ProximalSkipGate`; the result takes the place of the skip feature or of the field in memory."""

    def __init__(self, plain: ProximalSkipGate, upsampling: FastUpsampling) -> None:
        super().__init__(plain)
        self.upsampling = upsampling if plain.field_grid == "skip" else None
        if plain.spatial is not None:
            plain.spatial.field = FastField(plain.spatial.field, self.upsampling)

    def forward(self, x: Tensor, coarse: Tensor) -> Tensor:
        """Skip (B, C, S), decoder feature before its upsampling -> gated skip (B, C, S)."""
        gate, on_skip = self.plain, self.upsampling is not None
        if not has_fast_way(x):
            return gate(x, self.upsampling(coarse) if on_skip else coarse)
        factor = None if gate.channel is None else self.channel_weights(coarse)
        if gate.spatial is None:
            return x if factor is None else multiply_channels_(x, factor)
        evidence = (x if on_skip else pooled(x, coarse.shape[2:]), coarse)
        field, watched = gate.spatial.field.unnormalised(*evidence), gate.spatial._forward_hooks
        if on_skip and not watched and not in_one_pass(x):
            return open_(field, gate.spatial, factor, x)
        a = opened_in_half(field, gate.spatial) if in_one_pass(field) else open_(field, gate.spatial)
        for hook in watched.values():
            hook(gate.spatial, evidence, a)
        if on_skip and in_one_pass(x):
            return product_in_half(x, a, factor)
        if factor is not None:
            a = multiply_channels_(a.clone() if watched else a, factor)
        return multiply_repeated_(x, a)

    def channel_weights(self, coarse: Tensor) -> Tensor:
        """c, (B, C), float32."""
        channel = self.plain.channel
        context = spatial_mean(coarse) if self.upsampling is None else self.upsampling.mean(coarse)
        return torch.sigmoid(channel.excite(F.relu(channel.squeeze(context))))


def open_(field: Tensor, gate: SpatialGate, factor: Tensor | None = None, x: Tensor | None = None) -> Tensor:
    """The unnormalised field, in place, into the gate a, times ``factor`` (B, C) and ``x`` (B, C, S) where given."""
    weight, bias, scale = gate_parameters(gate)
    factor = scale if factor is None else factor if scale is None else factor * scale
    factor = None if factor is None else row_of(factor.expand(len(field), -1), field)
    for a, samples, planes in normalise_(field, weight, bias, gate.field.plain.norm.eps):
        activate_(a, gate.kind)
        if factor is not None:
            a.mul_(factor[samples])
        if x is not None:
            a.mul_(rows(x[samples, :, planes]))
    return field


def opened_in_half(field: Tensor, gate: SpatialGate) -> Tensor:
    """The gate a of an unnormalised field in bfloat16."""
    weight, bias, scale = gate_parameters(gate)
    known = {"box": ("hardtanh", [0.0, 1.0]), "sigmoid": ("sigmoid", [])}
    a = normalised_in_half(field, weight, bias, gate.field.plain.norm.eps, *known.get(gate.kind, ("none", [])))
    if gate.kind not in known:
        activate_(rows(a), gate.kind)
    return a if scale is None else multiply_channels_(a, scale.expand(len(a), -1))


def gate_parameters(gate: SpatialGate) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weight and bias of the field's norm such that `activate_`, times the third (1, C) if there is one, is the gate."""
    if gate.kind == "sigmoid":
        return 4 * gate.gain, gate.offset, None
    threshold = gate.threshold
    if gate.kind == "box":
        return gate.gain, 1 - threshold, None
    threshold = threshold.clamp_min(1e-12)
    return gate.gain / threshold, torch.zeros_like(threshold), threshold[None] if gate.kind == "soft" else None


def activate_(u: Tensor, kind: str) -> Tensor:
    """The gate of normalised evidence, with threshold 1 for the kinds that are divided by theirs, in place."""
    if kind == "box":
        return u.clamp_(0, 1)
    if kind == "sigmoid":
        return u.sigmoid_()
    if kind == "soft":
        return u.sub_(u.clamp(-1, 1))
    return u.abs_().reciprocal_().neg_().add_(1).clamp_min_(0)


def multiply_channels_(x: Tensor, factor: Tensor) -> Tensor:
    """x *= factor (B, C)."""
    rows(x).mul_(row_of(factor, x))
    return x


def multiply_repeated_(x: Tensor, a: Tensor) -> Tensor:
    """x *= a, which is repeated by nearest neighbour where its grid is coarser. Channels-last both."""
    x = channels_last(x)
    steps = [fine // coarse for fine, coarse in zip(x.shape[2:], a.shape[2:], strict=True)]
    lines = repeated_along_last(a, steps[-1])
    width = x.shape[-1] * x.shape[1]
    fine = [part for pair in zip(a.shape[2:-1], steps[:-1], strict=True) for part in pair]
    coarse = [part for size in a.shape[2:-1] for part in (size, 1)]
    x.movedim(1, -1).view(len(x), *fine, width).mul_(lines.reshape(len(a), *coarse, width))
    return x


def repeated_along_last(a: Tensor, times: int) -> Tensor:
    """Channels-last (B, C, S), each voxel so many times along the last axis: (B, S, C), the last axis longer.

    Copied voxel by voxel, a few channels take long. There a convolution by ones writes the copies as further channels.
    """
    lines = a.movedim(1, -1)
    if times == 1 or a.shape[1] > FEW_CHANNELS:
        return lines.repeat_interleave(times, dim=-2)
    ones = torch.eye(a.shape[1], dtype=a.dtype).repeat(times, 1)[(..., *[None] * (a.ndim - 2))]
    copies = convolve(a, channels_last(ones)).movedim(1, -1)
    return copies.reshape(*lines.shape[:-2], times * lines.shape[-2], lines.shape[-1])


def product_in_half(x: Tensor, a: Tensor, factor: Tensor | None) -> Tensor:
    """x times a times factor (B, C), in bfloat16: oneDNN multiplies what a convolution gives by something else in passing."""
    none, one = [0] * (x.ndim - 2), [1] * (x.ndim - 2)
    results = []
    for number, (sample, gate) in enumerate(zip(x.split(1), a.split(1), strict=True)):
        kernel = torch.eye(x.shape[1]) if factor is None else torch.diag(factor[number])
        kernel = channels_last(kernel.to(x.dtype)[(..., *[None] * len(one))])
        results.append(
            torch.ops.mkldnn._convolution_pointwise.binary(
                gate, sample, kernel, None, none, one, one, 1, "mul", 1.0, None, [], None
            )
        )
    return channels_last(results[0] if len(results) == 1 else torch.cat(results))


def pooled(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Average of (B, C, S) on a coarser grid, as a depthwise convolution: PyTorch's pooling has no fast way in 3D."""
    window = [fine // coarse for fine, coarse in zip(x.shape[2:], shape, strict=True)]
    channels = x.shape[1]
    kernel = torch.full((channels, 1, *window), 1.0, dtype=x.dtype)
    kernel /= kernel[0].numel()
    none = [0] * len(window)
    return channels_last(torch.mkldnn_convolution(x, kernel, None, none, window, [1] * len(window), channels))


class FastAttention(FastModule):
    """`AttentionSkip`; the result takes the place of the skip feature."""

    def __init__(self, plain: AttentionSkip, upsampling: FastUpsampling) -> None:
        super().__init__(plain)
        self.upsampling = upsampling

    def derive(self, dtype: torch.dtype):
        skip, attention = self.plain.project_skip, self.plain.attention
        weights = [convolution_weights(layer.weight, dtype) for layer in (skip, attention)]
        return (
            *weights,
            attention.bias.detach().to(dtype),
            *projection(self.plain.project_decoder, self.upsampling, dtype),
        )

    def forward(self, x: Tensor, coarse: Tensor) -> Tensor:
        if not has_fast_way(x):
            return self.plain(x, self.upsampling(coarse))
        skip, attention, attention_bias, decoder, bias = self.derived(x.dtype)
        hidden = projected(coarse, decoder, bias, self.upsampling)
        convolve_onto(hidden, x, skip, relu=True)
        return x.mul_(convolve(hidden, attention, attention_bias).sigmoid_())


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
        return self.half_on != "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def undone(self) -> ProSMAUNet:
        """The plain network as it was; this one is of no use afterwards."""
        for gate in self.plain.gates:
            if isinstance(getattr(gate, "spatial", None), SpatialGate):
                gate.spatial.field = gate.spatial.field.plain
        return self.plain
