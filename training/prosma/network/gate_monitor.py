"""What the spatial gates of a network do while it runs: shares of zeros and ones, dead channels, thresholds, maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .gate import SpatialGate


def gates_of(network: nn.Module) -> list[SpatialGate]:
    """The proximal gates of a network, coarse to fine."""
    return [module for module in network.modules() if isinstance(module, SpatialGate)]


class GateMonitor:
    """Collects what the spatial gates of a network do while it runs, through forward hooks.

        with GateMonitor(network) as monitor:
            network(x)
        monitor.statistics()

    ``gates`` are in decoder order, coarse to fine; looked for in the network unless they are given. ``maps`` holds the
    last gate values ``a`` of each, if ``keep_maps``.
    """

    def __init__(self, network: nn.Module, keep_maps: bool = False, gates: Sequence[SpatialGate] | None = None) -> None:
        self.gates = gates_of(network) if gates is None else list(gates)
        self.keep_maps = keep_maps
        self.maps: list[Tensor | None] = [None] * len(self.gates)
        self._sums: list[dict[str, Tensor] | None] = [None] * len(self.gates)
        self._handles: list = []

    def __enter__(self) -> GateMonitor:
        for level, gate in enumerate(self.gates):
            self._handles.append(gate.register_forward_hook(self._hook(level)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, level: int):
        def collect(_module: nn.Module, _inputs: tuple, a: Tensor) -> None:
            a = a.detach()
            if self.keep_maps:
                self.maps[level] = a
            axes = (0, *range(2, a.ndim))
            new = {
                "zeros": (a == 0).sum(axes),
                "ones": (a == 1).sum(axes),
                "sum": a.sum(axes, dtype=torch.float32),
                "count": torch.tensor(a.numel() // a.shape[1]),
            }
            sums = self._sums[level]
            if sums is None:
                with torch.inference_mode(False):  # can be added to in either mode
                    sums = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in new.items()}
                self._sums[level] = sums
            for key, value in new.items():
                sums[key] += value.cpu()  # in place: nothing new stays between the network's blocks

        return collect

    def statistics(self) -> dict:
        """Shares over everything seen, per level and over all gate values.

        Returns ``removed_share`` (share of exact zeros among all gate values, weighted by their number) and ``levels``,
        coarse to fine: ``zeros``, ``ones``, ``mean``, ``dead_channels`` (closed for more than 99.9 % of voxels),
        ``effective_channels`` ((sum m)^2 / sum m^2 of the channels' means m), ``gain`` and ``threshold`` (lowest, median
        and highest over channels).
        """
        levels, zeros, total = [], 0.0, 0.0
        for gate, sums in zip(self.gates, self._sums, strict=True):
            if sums is None:
                continue
            count = float(sums["count"])
            closed, mean = (sums[key].double().numpy() / count for key in ("zeros", "sum"))
            levels.append(
                {
                    "zeros": float(closed.mean()),
                    "ones": float(sums["ones"].numpy().mean() / count),
                    "mean": float(mean.mean()),
                    "dead_channels": int((closed > 0.999).sum()),
                    "effective_channels": float(mean.sum() ** 2 / max(1e-12, (mean**2).sum())),
                    "gain": _range(gate.gain),
                    "threshold": None if gate.kind == "sigmoid" else _range(gate.threshold),
                }
            )
            zeros += float(sums["zeros"].sum())
            total += count * len(closed)
        return {"removed_share": zeros / total if total else 0.0, "levels": levels}


def _range(values: Tensor) -> list[float]:
    in_order = sorted(values.detach().flatten().tolist())
    return [in_order[place] for place in (0, (len(in_order) - 1) // 2, -1)]
