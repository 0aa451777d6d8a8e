"""From stroke to mask in the panel: how long the effect ProSMA Strokes takes with a model, and the engine's memory.

    python Testing/benchmarks/stroke_latency.py PACKAGE [--strokes 20] [--json FILE]

In a headless Slicer, with the real engine process: a noisy volume with a bright ball of 7 cm in 256 x 256 x 160 and in
512 x 512 x 300 voxels. Strokes of 1 to 8 cm are painted in and around the ball, each on what the ones before have made. Time
runs from the release of the button to the preview; the engine's own part of it is told, too, and what it spent of the
processors, which tells more than the clock on a busy machine. The bars are a median of 300 ms, 600 ms for 19 of 20, on two
cores, and 500 MB above the idle engine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

MODULES = Path(__file__).parents[2] / "ProSMASegmentation"
SIZES = {"256 x 256 x 160": ((256, 256, 160), (1.0, 1.0, 1.0)), "512 x 512 x 300": ((512, 512, 300), (0.8, 0.8, 1.5))}
RADIUS = 35.0  # of the ball, mm
SECONDS = 300


def ball_in_noise(shape, spacing) -> np.ndarray:
    """(K, J, I) int16."""
    rng = np.random.default_rng(0)
    grid = np.ogrid[tuple(slice(n) for n in shape[::-1])]
    middle = [(n - 1) / 2 for n in shape[::-1]]
    inside = sum(((g - m) * s) ** 2 for g, m, s in zip(grid, middle, spacing[::-1], strict=True)) <= RADIUS**2
    image = np.empty(shape[::-1], np.int16)
    for plane, ball in zip(image, inside, strict=True):
        plane[...] = rng.normal(100, 30, plane.shape) + 120 * ball
    return image


def strokes_of(count: int, shape, spacing):
    """(points in mm, belongs): inside the ball, then now and then beside it."""
    rng = np.random.default_rng(1)
    middle = np.array([(n - 1) / 2 * s for n, s in zip(shape, spacing, strict=True)])
    for number in range(count):
        belongs = number == 0 or rng.random() < 0.6
        away, length = rng.uniform(0, 0.8) if belongs else rng.uniform(1.1, 1.5), rng.uniform(10, 80)
        angle, height = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5) * RADIUS
        place = middle + np.array([away * RADIUS * np.cos(angle), away * RADIUS * np.sin(angle), height])
        along = np.array([-np.sin(angle), np.cos(angle), 0]) * length / 2
        if belongs:  # no longer than the ball allows
            along *= min(1, np.sqrt(max(1, RADIUS**2 - height**2 - (away * RADIUS) ** 2)) / (length / 2))
        yield [tuple(place + t * along) for t in np.linspace(-1, 1, 12)], belongs


def of_process(number: int) -> dict[str, float]:
    """Resident and largest resident memory in MB, and processor seconds so far."""
    text = Path(f"/proc/{number}/status").read_text(encoding="ascii")
    found = {line.split(":")[0]: line.split()[1] for line in text.splitlines() if line.startswith(("VmRSS", "VmHWM"))}
    times = Path(f"/proc/{number}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    ticks = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return {"rss": int(found["VmRSS"]) / 1024, "peak": int(found["VmHWM"]) / 1024, "cpu": ticks}


class Person:
    """Strokes in the panel of a headless Slicer."""

    def __init__(self) -> None:
        import headless_slicer

        self.slicer = headless_slicer
        headless_slicer.start()
        for name in ("SegmentEditorProSMAStrokes", "ProSMASegmentation"):
            self.widget = headless_slicer.loadModule(MODULES / f"{name}.py")
        self.panel, self.ui = self.widget.panel, self.widget.panel.ui
        self.engine = self.panel.logic.engine
        self.wait(lambda: self.engine.state == self.engine.READY)

    def wait(self, until) -> None:
        self.slicer.processEvents(until=until, timeout=SECONDS)

    def begin(self, shape, spacing, package: str):
        """Load the volume and start strokes from nothing; the effect."""
        import scenes

        self.slicer.newScene()
        self.slicer.processEvents()
        volume = scenes.add_volume(ball_in_noise(shape, spacing), "ball", np.diag([*spacing, 1.0]))
        scenes.select(self.panel, volume)
        scenes.choose(self.panel, package)
        self.slicer.click(self.ui.segmentButton)
        self.slicer.processEvents()
        effect = self.ui.segmentEditor.activeEffect().self()
        ready = []
        request = {"do": "describe", "model": str(self.panel._input.package.folder), "device": "auto"}
        self.engine.request(request, ready.append)
        self.wait(lambda: ready)
        return effect

    def stroke(self, effect, points, belongs) -> tuple[float, float]:
        """Seconds from the release of the button to the preview, and the engine's processor seconds meanwhile."""
        from headless_slicer import strokes

        interactor = strokes.move(points[0], "Red", not belongs)
        interactor.InvokeEvent("LeftButtonPressEvent")
        for point in points:
            strokes.move(point, "Red", not belongs, scroll=False)
        self.wait(lambda: not effect._network.isBusy)  # what was asked while painting
        began, before = time.perf_counter(), of_process(self.engine.processId)["cpu"]
        interactor.InvokeEvent("LeftButtonReleaseEvent")
        self.wait(lambda: not effect._network.isBusy)
        return time.perf_counter() - began, of_process(self.engine.processId)["cpu"] - before


def measured(person: Person, name: str, package: str, count: int) -> dict:
    """The report for one size of volume."""
    shape, spacing = SIZES[name]
    effect = person.begin(shape, spacing, package)
    worker = person.engine.processId
    idle = of_process(worker)
    times = [person.stroke(effect, points, belongs) for points, belongs in strokes_of(count, shape, spacing)]
    seconds, cpu = zip(*times, strict=True)
    after = of_process(worker)
    first, *later = [round(1000 * s) for s in seconds]
    return {
        "first_ms": first,
        "median_ms": float(np.median(later)),
        "95_percent_ms": float(np.quantile(later, 0.95)),
        "median_engine_cpu_ms": round(1000 * float(np.median(cpu[1:]))),
        "95_percent_engine_cpu_ms": round(1000 * float(np.quantile(cpu[1:], 0.95))),
        "mb_above_idle": round(after["rss"] - idle["rss"]),
        "peak_mb_above_idle": round(after["peak"] - idle["rss"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="a promptable package for volumes")
    parser.add_argument("--strokes", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from prosma.files import write_json
    from prosma.package import ModelPackage

    sys.path.insert(0, str(Path(__file__).parents[1] / "module"))
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(options.package, Path(home, "models", "measured"))
        os.environ["PROSMA_HOME"] = home
        package = ModelPackage.open(options.package)
        person = Person()
        person.panel.logic.library.acceptLicence(package)
        report = {name: measured(person, name, package.id, options.strokes) for name in SIZES}
        person.slicer.close()
    report["load"] = os.getloadavg()[0]
    report["cores"] = len(os.sched_getaffinity(0))
    print(json.dumps(report, indent=1))
    if options.json:
        write_json(options.json, report)


if __name__ == "__main__":
    main()
