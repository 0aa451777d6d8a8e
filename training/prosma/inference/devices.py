"""Which processor to use, tested by really using it, with torch imported when needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import EngineError

_WORKING_CARDS: set[int] = set()  # a card that worked is not tested again; one that did not may be free later


def import_torch():
    """The torch module; EngineError `no_torch` with the reason where it is missing or broken.

    Threads that wait for others soon sleep instead of spinning: on a computer that does other things too, such as drawing
    Slicer's views, spinning was measured to make a network 1.7 to 11 times slower. GNU's OpenMP, which is that of PyTorch on
    Linux, spins for some 50 microseconds before: without that a network takes 1.2 times as long on a computer that does
    nothing else, with it 1.1 times as long on one that does. OpenMP reads this once, when it loads.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    try:
        import torch
    except Exception as error:  # a half-installed torch fails in many ways, among them OSError and AttributeError
        found = "is not installed" if isinstance(error, ModuleNotFoundError) else f"does not load ({error})"
        raise EngineError(
            "no_torch",
            f"PyTorch {found} in {sys.executable}.",
            "Install it: in Slicer through the PyTorch extension, elsewhere with the package 'torch'.",
        ) from error
    return torch


def core_count() -> int:
    """Processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def cuda_problem(index: int = 0) -> str:
    """Why CUDA card `index` cannot be used now; empty where a kernel really ran on it."""
    if index in _WORKING_CARDS:
        return ""
    torch = import_torch()
    if not torch.backends.cuda.is_built():
        card = any(Path("/dev").glob("nvidia[0-9]*"))
        return "this PyTorch was built without CUDA" + (", although the computer has an NVIDIA card" if card else "")
    if index >= torch.cuda.device_count():
        return f"PyTorch finds {torch.cuda.device_count()} CUDA cards"
    try:
        with torch.inference_mode():
            ones = torch.ones(1, 1, 8, 8, 8, device=f"cuda:{index}")
            total = torch.nn.functional.conv3d(ones, ones[:, :, :3, :3, :3]).sum().item()
    except Exception as error:  # driver, architecture, exclusive use, memory: all mean that the card is of no use now
        return str(error).strip().splitlines()[0]
    if total != 27 * 216:
        return "its test computation gave a wrong result"
    _WORKING_CARDS.add(index)
    return ""


def parse_device(wanted: str) -> tuple[str, int]:
    """`auto`, `cpu` or `cuda`, and the number of the card; EngineError `no_device` for names that mean nothing."""
    name, _, number = wanted.partition(":")
    if name not in ("auto", "cpu", "cuda") or (number and not (name == "cuda" and number.isdigit())):
        raise EngineError("no_device", f"There is no device '{wanted}'.", "Choose auto, cpu or cuda.")
    return name, int(number or 0)


def choose_device(wanted: str = "auto") -> tuple[str, list[str]]:
    """The device to use ("cpu", "cuda:0", ...) and notices about it.

    `auto` and `cuda` take a CUDA card only if a kernel really runs on it, else the CPU. EngineError `no_device` for
    names that mean nothing here.
    """
    name, index = parse_device(wanted)
    if name == "cpu":
        return "cpu", []
    reason = cuda_problem(index)
    if not reason:
        return f"cuda:{index}", []
    return "cpu", [f"CUDA was not used: {reason}."]


def list_devices() -> list[dict]:
    """For the worker's `ready` event: name, label, usable, reason."""
    torch = import_torch()
    devices = [{"name": "cpu", "label": f"CPU, {core_count()} cores", "usable": True, "reason": ""}]
    for index in range(torch.cuda.device_count() if torch.backends.cuda.is_built() else 0):
        reason = cuda_problem(index)
        label = torch.cuda.get_device_name(index) if not reason else f"CUDA card {index}"
        devices.append({"name": f"cuda:{index}", "label": label, "usable": not reason, "reason": reason})
    return devices
