"""What a forward pass costs: plain, attention and ProSMA skips, as PyTorch runs them and accelerated, in 2D and 3D.

All networks run in turn, round after round; times are medians, beside the best, and ratios and shares of the peak are
medians of those within a round. With one thread the time is that of the thread, so that other programs disturb less.
"As it is" is the plain network in PyTorch's default layout, with the same allocator setting as the fast one. The
processor's peak is that of the faster of a large matrix product (2048^3, by the BLAS of PyTorch) and of a convolution of
128 to 128 channels by oneDNN, measured in the same rounds. The share of it counts the multiplications of the plain
network, not the zeros between dilated taps; beside it stands that of the multiplications really done, as the fast network
gets by with fewer. Weights are random.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..fast.allocator import keep_freed_memory
from ..fast.network import accelerate, computes_in_half
from ..network.unet import SMALL, ProSMAUNet

SKIPS: dict[str, dict[str, Any]] = {
    "plain": {"skip": "plain"},
    "attention": {"skip": "attention"},
    "ProSMA, skip grid": {"field_grid": "skip"},
    "ProSMA, decoder grid": {"field_grid": "decoder"},
}
SHAPES = {"3d": (1, 1, 96, 96, 96), "2d": (4, 1, 256, 256)}
CLASSES = 5
GIGA = 1e9


def measure_forward(rounds: int, threads: int, shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict:
    """The measurements of `measure` for each of `shapes`, with this process's allocator and threads set for good."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    tables = {name: measure(shape, rounds, threads) for name, shape in shapes.items()}
    return {"clock": "thread" if threads == 1 else "wall", "rounds": rounds, "tables": tables}


@torch.inference_mode()
def measure(shape: tuple[int, ...], rounds: int, threads: int) -> dict:
    """Median milliseconds of each network and way, ratios to the plain network the same way, share of the peak."""
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    plain = {name: ProSMAUNet(len(shape) - 2, 1, CLASSES, SMALL, **more).eval() for name, more in SKIPS.items()}
    work = {name: floating_point_operations(network, image) for name, network in plain.items()}
    done = {(name, "as it is"): operations for name, operations in work.items()}
    probes = peak_probes()
    ways = {"fast": "float32", "fast, bfloat16": "half"}
    if not computes_in_half(image.device):
        del ways["fast, bfloat16"]
    # What is compared runs within a second: on a shared computer the speed changes from one to the next.
    runs: dict[tuple[str, str], Callable[[], object]] = {}
    runs |= {(name, "as it is"): bound(network, image) for name, network in plain.items()}
    for way, precision in ways.items():
        for name, network in plain.items():
            runs[name, way] = bound(accelerate(network, precision=precision), image)
            runs[name, way]()  # what is measured once is not counted
            with OperationsDone() as counted:
                runs[name, way]()
            done[name, way] = counted.total
        if way == "fast":
            runs |= {(name, "peak"): run for name, (run, _) in probes.items()}
    seconds = interleaved(runs, rounds, time.thread_time if threads == 1 else time.perf_counter)
    peaks = [
        max(operations / seconds[name, "peak"][number] for name, (_, operations) in probes.items())
        for number in range(rounds)
    ]
    rows = []
    for name, way in itertools.product(plain, ["as it is", *ways]):
        own = seconds[name, way]
        speed = statistics.median(1 / one / peak for one, peak in zip(own, peaks, strict=True))
        in_float32 = "bfloat16" not in way
        rows.append(
            {
                "network": name,
                "way": way,
                "milliseconds": round(1e3 * statistics.median(own), 1),
                "best_milliseconds": round(1e3 * min(own), 1),
                "over_plain": round(median_ratio(own, seconds["plain", way]), 3),
                "faster_than_as_it_is": round(median_ratio(seconds[name, "as it is"], own), 2),
                "share_of_peak": round(work[name] * speed, 5) if in_float32 else None,
                "done_share_of_peak": round(done[name, way] * speed, 5) if in_float32 else None,
            }
        )
    return {"shape": list(shape), "peak_gflops": round(statistics.median(peaks) / GIGA, 1), "rows": rows}


def bound(network: nn.Module, image: torch.Tensor) -> Callable[[], object]:
    return lambda: network(image)


def peak_probes() -> dict[str, tuple[Callable[[], object], float]]:
    """Computations that come near the processor's peak, with their floating-point operations."""
    a, b = torch.randn(2, 2048, 2048)
    x = torch.randn(1, 128, 16, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    weight, one = torch.randn(128, 128, 3, 3, 3), [1, 1, 1]
    probes: dict[str, tuple[Callable[[], object], float]] = {"matrix product": (lambda: a @ b, 2 * 2048**3)}
    if torch.backends.mkldnn.is_available():
        run = lambda: torch.mkldnn_convolution(x, weight, None, one, one, one, 1)  # noqa: E731
        probes["convolution"] = (run, 2 * 27 * 128 * 128 * 16**3)
    return probes


def interleaved(runs: dict, rounds: int, clock: Callable[[], float]) -> dict:
    """Seconds of each run in each round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            began = clock()
            run()
            if number:
                seconds[name].append(clock() - began)
    return seconds


def median_ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def floating_point_operations(network: nn.Module, image: torch.Tensor) -> float:
    """Two for each multiplication of the convolutions of one forward pass, counted from shapes alone."""
    total = 0
    network = copy.deepcopy(network).to("meta")

    def count(layer: Any, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal total
        transposed = isinstance(layer, (nn.ConvTranspose2d, nn.ConvTranspose3d))
        places = inputs[0] if transposed else output
        total += 2 * layer.weight.numel() * places[0, 0].numel() * len(places)

    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    for layer in network.modules():
        if isinstance(layer, kinds):
            layer.register_forward_hook(count)
    network(image.to("meta"))
    return float(total)


class OperationsDone(TorchDispatchMode):
    """Counts two for each multiplication of the convolutions that run, but for those by zeros of a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        name = function.overloadpacket.__name__
        if "conv" in name:
            tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
            kernel = tensors[2 if function._overloadname == "binary" else 1]
            places = tensors[0] if "transpose" in name else result
            self.total += 2 * int(kernel.count_nonzero()) * places[0, 0].numel() * len(places)
        return result
