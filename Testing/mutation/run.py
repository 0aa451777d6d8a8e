"""How many small faults in the code the tests that own it notice: a mutation run.

    python Testing/mutation/run.py [NAME ...] [--sample 60] [--seed 0] [--all] [--least 0.85]
    python Testing/mutation/run.py --named

For each subject (or those named) it puts faults into the code one at a time, in memory, runs the tests that own the code
until the first failure, and prints the share of faults noticed and those that were not. A sample is drawn without
repetition with the seed; a second run draws the same. `--named` puts in the seven faults of named.py instead. No file of the
checkout is changed. Linux alone: each fault has a forked process, so that the libraries are imported once.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mutants import Mutant, mutants
from named import NAMED

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "training"
HEAVY = ("torch", "numpy", "scipy.ndimage", "SimpleITK", "hypothesis", "pytest", "safetensors.torch")
LEARNING = (
    "monai.losses",
    "monai.metrics",
    "lightning.pytorch",
    "PIL.Image",
    "tensorboard",
    "yaml",
    "matplotlib.pyplot",
)
PATIENCE = 8  # times as long as without a fault; what takes longer hangs, and is noticed


@dataclass(frozen=True)
class Subject:
    """A file of the engine and the tests that own it; `chosen` is an expression for pytest's -k."""

    module: str
    tests: tuple[str, ...]
    chosen: str = ""

    @property
    def path(self) -> Path:
        return ENGINE / (self.module.replace(".", "/") + ".py")


TESTS = "Testing/engine"
REFINE = (f"{TESTS}/test_stroke_features.py", f"{TESTS}/test_refine_engine.py")
SUBJECTS = {
    "gate": Subject("prosma.network.gate", (f"{TESTS}/network/test_gate_numbers.py", f"{TESTS}/network/test_gate.py")),
    "gate_monitor": Subject("prosma.network.gate_monitor", (f"{TESTS}/network/test_gate_numbers.py",)),
    "loss": Subject("prosma.learning.fit.loss", (f"{TESTS}/learning/test_loss.py",)),
    "tiling": Subject("prosma.inference.sliding_window", (f"{TESTS}/inference/test_sliding_window.py",)),
    "geometry": Subject(
        "prosma.image.geometry", (f"{TESTS}/image/test_geometry_numbers.py", f"{TESTS}/image/test_image.py")
    ),
    "back_to_image": Subject("prosma.inference.back_to_image", (f"{TESTS}/inference/test_back_to_image.py",)),
    "refine": Subject("prosma.correct.refine", REFINE, "not worker"),
    "features": Subject("prosma.correct.stroke_features", REFINE, "not worker"),
    "network": Subject("prosma.correct.stroke_network", (f"{TESTS}/test_stroke_network.py",)),
    "metrics": Subject("prosma.learning.judge.evaluation", (f"{TESTS}/learning/test_metrics.py",)),
    "surfaces": Subject("prosma.learning.judge.surfaces", (f"{TESTS}/learning/test_metrics.py",)),
}


class Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module the code of a mutant instead of its file's."""

    def __init__(self, subject: Subject, tree: ast.Module) -> None:
        self.subject, self.tree = subject, tree

    def find_spec(self, name, path=None, target=None):
        if name != self.subject.module:
            return None
        return importlib.util.spec_from_file_location(name, self.subject.path, loader=self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.tree, str(self.subject.path), "exec"), module.__dict__)


def outcome(subject: Subject, tree: ast.Module | None, seconds: float) -> bool:
    """Whether the tests fail, or do not end, with this code in place of the subject's."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        silence()
        if tree is not None:
            sys.meta_path.insert(0, Planted(subject, tree))
        os._exit(int(bool(run_tests(subject))))
    os.setpgid(child, child)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def silence() -> None:
    """Nothing of a child's reaches the terminal."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def run_tests(subject: Subject) -> int:
    import pytest

    unneeded = ("cacheprovider", "xdist", "unraisableexception", "threadexception", "warnings", "logging")
    options = ["-x", "-q", *(part for name in unneeded for part in ("-p", f"no:{name}"))]
    options += ["-k", subject.chosen] if subject.chosen else []
    try:
        return pytest.main([*options, *(str(ROOT / path) for path in subject.tests)])
    except BaseException:
        return 1


def sampled(found: list[Mutant], size: int | None, seed: int) -> list[Mutant]:
    """So many of the faults, in the order of their lines; all for None."""
    if size is None or len(found) <= size:
        return found
    return sorted(random.Random(seed).sample(found, size), key=lambda mutant: mutant.line)


def measure(name: str, size: int | None, seed: int) -> float:
    """Runs one subject, prints its score and what was not noticed, and returns the share that was."""
    subject = SUBJECTS[name]
    everything = mutants(subject.path.read_text(encoding="utf-8"))
    chosen = sampled(everything, size, seed)
    started = time.monotonic()
    if outcome(subject, None, 600):
        sys.exit(f"The tests of '{name}' fail without any fault: {', '.join(subject.tests)}")
    patience = PATIENCE * (time.monotonic() - started) + 5
    unnoticed = [mutant for mutant in chosen if not outcome(subject, mutant.tree, patience)]
    score = 1 - len(unnoticed) / len(chosen)
    taken = time.monotonic() - started
    print(f"{name:14} {100 * score:5.1f} %  {len(chosen) - len(unnoticed)} of {len(chosen)} noticed", end="")
    print(f" ({len(everything)} possible, {taken:.0f} s)", flush=True)
    for mutant in unnoticed:
        print(f"    {subject.path.name}:{mutant.line}  {mutant.change}", flush=True)
    return score


def measure_named() -> float:
    """Tries the faults that have names, prints which are noticed, and returns their share."""
    noticed = []
    for fault in NAMED:
        subject = SUBJECTS[fault.subject]
        noticed.append(outcome(subject, fault.tree(subject.path.read_text(encoding="utf-8")), 600))
        print(f"{'noticed' if noticed[-1] else 'NOT NOTICED':12} {fault.name} ({subject.path.name})", flush=True)
    return sum(noticed) / len(noticed)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*SUBJECTS, []], metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--sample", type=int, default=60, help="faults of each subject")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="every fault instead of a sample")
    parser.add_argument("--named", action="store_true", help="the faults that have names, and no others")
    parser.add_argument("--least", type=float, default=0.0, help="exit with 1 if a score is below this share")
    options = parser.parse_args(arguments)
    os.nice(10)
    os.chdir(ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    names = options.names or list(SUBJECTS)
    for heavy in HEAVY + (LEARNING if {"loss", "metrics", "surfaces"} & {*names} else ()):
        importlib.import_module(heavy)
    gc.freeze()  # children collect what is theirs
    if options.named:
        return int(measure_named() < 1)
    scores = [measure(name, None if options.all else options.sample, options.seed) for name in names]
    return int(min(scores) < options.least)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
