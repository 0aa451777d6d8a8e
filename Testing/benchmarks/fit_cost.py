"""What telling the fit, the expected quality and the presence costs in a warm click.

    python Testing/benchmarks/fit_cost.py DATA [MODEL ...] [--rounds N] [--json FILE]

Of each bundled model and a copy of it without its statistics, the first test case of the model's own data goes through a
worker process of one thread each, as the panel's clicks do: in turn, after a first job that does not count. Told are the mean
of the processor's time, which other work on the computer changes less than the clock's, and the median of the clock's.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from fit import OWN, parser_of

from prosma.benchmarking.click import WorkerProcess
from prosma.files import write_json
from prosma.learning.data.dataset import LabelledFolder, read_case
from prosma.package import ModelPackage, bundled_models_folder

STATISTICS = ("fit.npz", "quality.json", "presence.npz")
ROUNDS = 7
CLOCKS = {"processor": np.mean, "wall": np.median}


def main() -> int:
    parser = parser_of(__doc__.splitlines()[0], ("measure",))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"jobs of each that count; {ROUNDS}")
    options = parser.parse_args(["measure", *sys.argv[1:]])
    rows = [measure(name, options.data, options.rounds) for name in options.models or OWN]
    if options.json:
        write_json(options.json, rows)
    return 0


def measure(name: str, data: Path, rounds: int) -> dict:
    """Median seconds with and without statistics, and what they add, of one model."""
    package = ModelPackage.open(bundled_models_folder() / name)
    folder = LabelledFolder.open(data / OWN[name])
    image, _ = read_case(folder.cases[folder.splits["test"][0]], package.model)
    with tempfile.TemporaryDirectory() as place:
        bare = Path(place) / "bare"
        shutil.copytree(package.folder, bare, ignore=shutil.ignore_patterns(*STATISTICS))
        channels = []
        for number, channel in enumerate(image.array):
            np.save(Path(place) / f"{number}.npy", np.ascontiguousarray(channel.T))
            channels.append({"file": f"{number}.npy", "ijk_to_ras": image.ijk_to_ras.tolist()})
        workers = {True: WorkerProcess(threads=1), False: WorkerProcess(threads=1)}
        seconds: dict = {True: [], False: []}
        try:
            for number in range(2 * (1 + rounds)):
                judged = number % 2 == 0
                request = {"id": str(number), "do": "segment", "model": str(package.folder if judged else bare)}
                request |= {"folder": place, "channels": channels, "device": "cpu", "force": True}
                seconds[judged].append(workers[judged].do(request)[1])
        finally:
            for worker in workers.values():
                worker.end()
    row = {"model": name, "rounds": rounds}
    for clock, middle in CLOCKS.items():
        found, bare = (np.array([each[clock] for each in seconds[judged][1:]]) for judged in (True, False))
        row |= {
            f"{clock}_seconds": round(float(middle(found)), 4),
            f"{clock}_added": round(float(middle(found - bare)), 4),
        }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
