"""The computer that was measured, in a few words, and what a process takes of it."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from ..inference.devices import core_count
from ..inference.memory_ladder import physical_memory

STATUS = Path("/proc/self/status")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_fp16")


def describe_machine(threads: int) -> dict:
    """Processor, instructions that matter, memory, system, versions and the load at the beginning."""
    import torch

    facts = processor_facts()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "instructions": [name for name in INSTRUCTIONS if name in facts.get("flags", "").split()],
        "cores": core_count(),
        "threads": threads,
        "memory_gb": round(physical_memory() / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "card": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "load": None if load is None else round(load, 2),
    }


def processor_facts() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not say."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Count the peak of memory from now on (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """The most memory that this process held since `forget_peak`; elsewhere than on Linux since its start, or 0."""
    if peak := _status("VmHWM"):
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def processor_seconds(pid: int) -> float | None:
    """User and system time of another process so far; None where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(name: str) -> int:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
