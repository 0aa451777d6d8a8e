"""From stroke to mask: how long Refine takes on a volume of 256 x 256 x 160 voxels.

    python Testing/benchmarks/refine_latency.py [--strokes 20] [--brush 5] [--json FILE]

A noisy volume with a bright ellipsoid of 12 cm, 1 mm voxels, a mask that is off by some millimetres, probabilities that
are memory-mapped as the panel has them. Strokes are balls along the border. The bar is a median below 300 ms on two
cores; `taskset -c 0` shows one core. On a busy machine the processor's time tells more than the clock's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from prosma.correct.refine import REACH, refine
from prosma.files import write_json

SHAPE = (160, 256, 256)


def ellipsoid(centre, radii) -> np.ndarray:
    grid = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strokes", type=int, default=20)
    parser.add_argument("--brush", type=float, default=5, help="radius of the brush in mm (default: 5)")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args(arguments)
    truth = ellipsoid((80, 128, 128), (50, 60, 60))
    mask = ellipsoid((80, 128, 134), (50, 60, 60))
    image = (100 * truth + np.random.default_rng(0).normal(0, 20, SHAPE)).astype(np.int16)
    seconds, processor = [], []
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/probability.npy", np.where(mask, 200, 40).astype(np.uint8))
        probability = np.load(f"{folder}/probability.npy", mmap_mode="r")
        for angle in np.linspace(2.2, 4.1, options.strokes):
            centre = (80, 128 + 62 * np.sin(angle), 131 + 62 * np.cos(angle))
            stroke = ellipsoid(centre, [options.brush] * 3)
            began, began_processor = time.perf_counter(), time.process_time()
            refine(mask, image, stroke, None, (1, 1, 1), probability, REACH * options.brush)
            seconds.append(time.perf_counter() - began)
            processor.append(time.process_time() - began_processor)
        del probability
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    report = {
        "median_ms": round(1000 * statistics.median(seconds), 1),
        "slowest_ms": round(1000 * max(seconds), 1),
        "median_processor_ms": round(1000 * statistics.median(processor), 1),
        "cores": cores,
    }
    if options.json:
        write_json(options.json, report)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
