"""Forward passes over tiles: class probabilities (softmax), averaged over flips (test-time augmentation), gate statistics.

Imports torch: take it in only after `devices.import_torch`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..fast.allocator import TIDIED_EVERY, release_freed_memory
from ..network.gate import SpatialGate
from ..network.gate_monitor import GateMonitor
from .finder import averaged

MOST_MONITORED_TILES = 8  # gate statistics come from at most so many tiles, evenly spread,
LEAST_MONITORED_STEP = 4  # and from every fourth at most: collecting them costs 6 % of a tile's time


@dataclass
class TilePredictor:
    """Turns one tile after the other into scores; `statistics` then tells what the gates did.

    Args:
        network: gives logits (B, classes, S) for (B, C, S).
        device: where it lies.
        axes: 2 where the last axis of a tile (C, X, Y, K) counts images of their own, else 3.
        classes: with background.
        flips: axes to flip, for each forward pass that is averaged; the first flips none.
        gate_map: whether one more plane of scores holds the share of the skip features that the gates keep.
        tiles: how many there will be.
        half: whether to compute in half precision on a card.
        memory_for: how the network gets its memory for a batch of a shape, see `fast.allocator`.
        gates: those of the network.
    """

    network: Any
    device: str
    axes: int
    classes: int
    flips: Sequence[tuple[int, ...]]
    gate_map: bool
    tiles: int
    half: bool
    memory_for: Callable[[tuple[int, ...]], AbstractContextManager]
    gates: Sequence[SpatialGate]
    seconds: float = 0.0
    done: int = 0
    monitor: GateMonitor = field(init=False)

    def __post_init__(self) -> None:
        self.monitor = GateMonitor(self.network, self.gate_map, self.gates)
        self.monitored_every = monitored_every(self.tiles, self.gate_map)

    @property
    def planes(self) -> int:
        """Number of planes of scores that a tile gives."""
        return self.classes + self.gate_map

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        """(C, *patch) -> probabilities of the classes, and the gate map behind them: float32 (planes, *patch)."""
        began = time.perf_counter()
        batch = torch.from_numpy(np.ascontiguousarray(tile)).to(self.device)
        batch = batch.permute(3, 0, 1, 2) if self.axes == 2 else batch[None]
        if self.done % TIDIED_EVERY == 1:
            release_freed_memory()
        with self.memory_for(tuple(batch.shape)):
            scores = self._scores(batch)
        self.done += 1
        self.seconds += time.perf_counter() - began
        return scores

    def _scores(self, batch: Tensor) -> np.ndarray:
        half_on_card = torch.autocast("cuda", torch.float16, enabled=self.half and self.device != "cpu")
        monitored = self.done % self.monitored_every == 0
        with torch.inference_mode(), half_on_card:
            with self.monitor if monitored else contextlib.nullcontext():
                scores = self._probabilities(batch)
            if self.gate_map:
                scores = torch.cat([scores, kept_share(self.monitor.maps, scores.shape[2:])], dim=1)
            for flip in self.flips[1:]:
                axes = [axis + 2 for axis in flip]
                flipped = self._probabilities(batch.flip(axes)).flip(axes)
                scores[:, : self.classes] += flipped
            scores[:, : self.classes] /= len(self.flips)
            return (scores.permute(1, 2, 3, 0) if self.axes == 2 else scores[0]).float().cpu().numpy()

    def _probabilities(self, batch: Tensor) -> Tensor:
        layout = torch.channels_last_3d if batch.ndim == 5 else torch.channels_last
        return class_probabilities(self.network, batch.contiguous(memory_format=layout))

    def statistics(self, tile: Sequence[int]) -> dict:
        """What the gates did, see `GateMonitor.statistics`; in how many `tiles`, `of_tiles`, each of shape `tile`.

        A level's figures are averaged over the networks that answer together.
        """
        seen = len(range(0, self.tiles, self.monitored_every))
        found = self.monitor.statistics()
        networks = len(networks_of(self.network))
        if networks > 1:  # the figures of one would come out the same, but 0.1 ms of a small case's 40 later
            count = len(found["levels"]) // networks
            found["levels"] = [averaged(found["levels"][level::count]) for level in range(count)]
        return {**found, "tiles": seen, "of_tiles": self.tiles, "tile": list(tile)}


def monitored_every(tiles: int, gate_map: bool) -> int:
    """Gate statistics come from every n-th tile: from all for a gate map, else from a few."""
    return 1 if gate_map else max(LEAST_MONITORED_STEP, -(-tiles // MOST_MONITORED_TILES))


def networks_of(network: nn.Module) -> list:
    """Those that answer together in an `ensemble.Ensemble`, or the network itself."""
    return list(getattr(network, "networks", [network]))


def class_probabilities(network: nn.Module, x: Tensor) -> Tensor:
    """Softmax of the network's logits: (B, channels, S) -> (B, classes, S), float32."""
    return class_planes(network(x).float()).softmax(dim=1)


def class_planes(logits: Tensor) -> Tensor:
    """Channels-last (1, C, X, Y, Z) as contiguous planes; others as they are.

    A product with the identity, which took a fifth of the time of PyTorch's own transposition on a CPU.
    """
    rows = logits.movedim(1, -1)
    if logits.is_contiguous() or len(logits) > 1 or not rows.is_contiguous() or logits.device.type != "cpu":
        return logits
    classes = logits.shape[1]
    return (torch.eye(classes) @ rows.reshape(-1, classes).T).reshape(logits.shape)


def kept_share(maps: Sequence[Tensor | None], shape: Sequence[int]) -> Tensor:
    """Gates (B, C, *S) of each level -> (B, 1, *shape): share of channels not closed, averaged over the levels."""
    levels = [(gate != 0).float().mean(dim=1, keepdim=True) for gate in maps if gate is not None]
    levels = [nn.functional.interpolate(level, size=tuple(shape), mode="nearest") for level in levels]
    return torch.stack(levels).mean(dim=0)
