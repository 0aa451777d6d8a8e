"""How long a step of a sensitivity slider takes, in a headless Slicer, on a volume of 512 x 512 x 300 with five labels.

    taskset -c 0 python Testing/benchmarks/sensitivity.py [--size 512 512 300] [--moves 7] [--steps 20] [--json FILE]

The class probabilities are made up: five ellipsoids, as large as organs, with borders some voxels wide. Everything else is
what happens in Slicer: the probabilities lie memory-mapped on disk, a step writes the segment's labelmap in the scene.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 0.1  # seconds of the processor's time for a press, a step and a release, in the median
PARTS = ("press", "step", "release")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}  # the latter for a machine that others use too
MIDDLES = (
    (0.3, 0.5, 0.4),
    (0.7, 0.5, 0.4),
    (0.5, 0.3, 0.6),
    (0.5, 0.75, 0.5),
    (0.5, 0.5, 0.7),
)  # of the volume's sides
HALF_AXES = (0.2, 0.2, 0.22)
STEEPNESS = 130  # borders about three voxels wide on either side
REACH = 1.05  # of the half axes


def main() -> int:
    options = parse()
    sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "training")]
    import headless_slicer

    headless_slicer.start()
    sys.path.insert(0, str(ROOT / "ProSMASegmentation"))
    try:
        report = measure(tuple(options.size), options.steps, options.moves)
    finally:
        headless_slicer.close()
    print(f"{report['voxels_in_reach']} voxels in the label's reach")
    for part in PARTS:
        for kind, seconds in report[part].items():
            print(f"{part:8} {kind:8} {seconds['wall']:.3f} s, of them on the processor {seconds['cpu']:.3f} s")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(report[part]["median"]["cpu"] < LIMIT for part in PARTS) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300), help="voxels along I, J, K")
    parser.add_argument("--moves", type=int, default=7, help="from a press to a release")
    parser.add_argument("--steps", type=int, default=20, help="of each move")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser.parse_args()


def measure(size, steps: int, moves: int) -> dict:
    """Moves of a press, `steps` steps over the whole way of the slider, and a release; seconds of each."""
    from ProSMASegmentationLib.Correct.SensitivityMove import SensitivityMove

    node = segmentation(size)
    segment_id = node.GetSegmentation().GetNthSegmentID(0)
    seconds = {part: [] for part in PARTS}
    for number in range(moves):
        move, press = timed(SensitivityMove, node, segment_id)
        seconds["press"].append(press)
        for shift in np.linspace(-5, 5, steps):
            inside, step = timed(move.to, float(shift))
            seconds["step"].append(step)
        _written, release = timed(move.finish, 2.0 - number % 2)
        seconds["release"].append(release)
    report = {"size": list(size), "moves": moves, "voxels_in_reach": int(inside.size)}
    return {
        **report,
        **{
            part: {"median": of(statistics.median, found), "longest": of(max, found)} for part, found in seconds.items()
        },
    }


def of(statistic, seconds: list[dict]) -> dict:
    return {clock: statistic(each[clock] for each in seconds) for clock in CLOCKS}


def timed(function, *arguments):
    """(what the function returns, seconds by each clock)."""
    began = {name: clock() for name, clock in CLOCKS.items()}
    value = function(*arguments)
    return value, {name: clock() - began[name] for name, clock in CLOCKS.items()}


def segmentation(size):
    """A segmentation node in the scene that a run with made-up probabilities has left."""
    import slicer

    from prosma.steps import finish
    from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities
    from ProSMASegmentationLib.Results.ResultWriter import ResultWriter
    from ProSMASegmentationLib.Volumes.VolumeReader import ijkToRasOf

    volume = slicer.util.addVolumeFromArray(np.zeros(size[::-1], np.uint8), name="benchmark")
    folder = Path(tempfile.mkdtemp(dir=slicer.app.temporaryPath))
    result = made_up_result(size, folder)
    package = MadeUpPackage(len(MIDDLES))
    writer = ResultWriter(volume, package)
    labels = np.load(folder / result["labels"]["file"], mmap_mode="r")
    node = finish(writer.write(labels, result["labels"]["offset"]))
    KeptProbabilities.shared().keep(writer.run, node, ijkToRasOf(volume), folder, result)
    return node


class MadeUpPackage:
    """What the result writer wants to know about a model."""

    id, version, sha256, name = "made-up", "1", "", "Made up"

    def __init__(self, count: int) -> None:
        self.labels = [{"value": n, "name": f"label {n}", "color": [50 * n, 90, 200]} for n in range(1, count + 1)]


def made_up_result(size, folder: Path) -> dict:
    """Files as the engine leaves them, and its event."""
    boxes = [box_of(middle, size) for middle in MIDDLES]
    union = [[min(box[n][0] for box in boxes), max(box[n][1] for box in boxes)] for n in range(3)]
    shape = [high - low for low, high in reversed(union)]
    file = folder / "reached.npy"
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(len(boxes) + 1, *shape))
    array[0] = 255
    for number, (box, middle) in enumerate(zip(boxes, MIDDLES, strict=True), start=1):
        part = tuple(
            slice(low - start, high - start) for (low, high), (start, _) in reversed(list(zip(box, union, strict=True)))
        )
        share = ellipsoid(box, middle, size)
        array[number][part] = share
        array[0][part] = np.minimum(array[0][part], 255 - share)
    labels = array.argmax(axis=0).astype(np.uint8)
    np.save(folder / "labels.npy", labels)
    offset = [low for low, _high in union]
    return {
        "labels": {"file": "labels.npy", "offset": offset},
        "volumes": {"probabilities": {"file": file.name, "offset": offset, "reach": boxes}},
    }


def box_of(middle, size) -> list[list[int]]:
    return [
        [max(0, int((m - REACH * h) * n)), min(n, int((m + REACH * h) * n))]
        for m, h, n in zip(middle, HALF_AXES, size, strict=True)
    ]


def ellipsoid(box, middle, size) -> np.ndarray:
    """Probabilities (K, J, I) 0 ... 255 of an ellipsoid in its box."""
    far = np.float32(0)
    for axis, ((low, high), m, h, n) in enumerate(zip(box, middle, HALF_AXES, size, strict=True)):
        along = ((np.arange(low, high, dtype=np.float32) / n - m) / h) ** 2
        far = far + along.reshape([-1 if other == 2 - axis else 1 for other in range(3)])
    return np.rint(255 / (1 + np.exp(np.minimum(STEEPNESS * (np.sqrt(far) - 1), 30)))).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
