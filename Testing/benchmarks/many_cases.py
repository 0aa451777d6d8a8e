"""Many cases: throughput, memory and overhead, the scheduler's cost, the first line in a pipe, how soon commands answer.

    python Testing/benchmarks/many_cases.py throughput --images DIR [-n 60] [--rounds 3]   interleaved rounds
    python Testing/benchmarks/many_cases.py scheduler [-n 300]                             cases that are done, on Dask
    python Testing/benchmarks/many_cases.py pipe | answers | records | report [-n 1000000]

Each prints one JSON object with what it measured and the load of the machine before and after. Times are of the wall clock
unless their name has `cpu`, which other work on the machine changes less.
"""
# ruff: noqa: E402

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "Testing/benchmarks"), str(ROOT / "training")]

from batch_kills import Trials, command_of, descendants

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "training")}
ARRANGEMENTS = {  # name: (options, threads in the environment)
    "1 worker, 1 thread": ([], "1"),
    "2 workers, 1 thread": (["--workers", "2"], "1"),
    "1 worker, 2 threads": ([], "2"),
}
TICKS = os.sysconf("SC_CLK_TCK")


def prosma(*words, threads: str = "1", **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "prosma.cli", *map(str, words)]
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": threads}
    return subprocess.Popen(command, cwd=ROOT / "training", env=environment, text=True, **options)


# --- throughput, overhead, memory -------------------------------------------------------------------------------------


def throughput(options: argparse.Namespace) -> dict:
    """Wall and processor time a case from the first case that ended to the last, and the largest PSS of one worker."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        for file in sorted(options.images.iterdir())[: options.number]:
            (images / file.name).symlink_to(file)
        rows: dict[str, list[dict]] = {name: [] for name in ARRANGEMENTS}
        for number in range(options.rounds):
            for name in ARRANGEMENTS:
                rows[name].append(one_batch(images, Path(folder, f"{number} {name}"), name, options.model))
                print(name, rows[name][-1], file=sys.stderr, flush=True)
    names = list(ARRANGEMENTS)
    ratios = {
        f"{names[1]} to {other}": [
            round(slow["wall_s_a_case"] / fast["wall_s_a_case"], 3)
            for fast, slow in zip(rows[names[1]], rows[other], strict=True)
        ]
        for other in (names[0], names[2])
    }
    return {"rows": rows, "ratios": ratios, "medians": {name: statistics.median(each) for name, each in ratios.items()}}


def one_batch(images: Path, out: Path, name: str, model: str) -> dict:
    words, threads = ARRANGEMENTS[name]
    process = prosma(
        *("segment", images, "-m", model, "-o", out, "--device", "cpu", "--json", *words),
        threads=threads,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    watch = Watch(process.pid)
    ends, cpu, network, last = [], [], [], ""
    for line in process.stdout:
        last = line
        event = json.loads(line)
        if event["event"] == "case":
            ends.append(time.monotonic())
            cpu.append(watch.cpu())
            network.append(event["seconds"]["network"])
    most = watch.stop()
    assert process.wait() == 0 and json.loads(last)["failed"] == 0
    count = len(ends) - 1
    wall = (ends[-1] - ends[0]) / count
    return {
        "cases": len(ends),
        "wall_s_a_case": round(wall, 4),
        "cpu_s_a_case": round((cpu[-1] - cpu[0]) / count, 4),
        "network_s_a_case": round(statistics.mean(network[1:]), 4),
        "share_outside_the_network": round(1 - statistics.mean(network[1:]) / wall, 3),
        "pss_mb_of_a_worker": round(most / 2**20),
        "load": os.getloadavg()[0],
    }


class Watch:
    """The processor time of a command with all its processes, and the largest PSS of one of its workers (with its reader)."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most, self._over = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self._most

    def cpu(self) -> float:
        return sum(map(cpu_of, (self._pid, *descendants(self._pid))))

    def _look(self) -> None:
        while not self._over.wait(0.1):
            workers = [pid for pid in descendants(self._pid) if "prosma.batch.pool" in command_of(pid)] or [self._pid]
            for pid in workers:
                self._most = max(self._most, sum(map(pss_of, (pid, *descendants(pid)))))


def cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def pss_of(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


# --- the scheduler ----------------------------------------------------------------------------------------------------


def scheduler(options: argparse.Namespace) -> dict:
    """Cases that are there already: what scheduler, command and worker need for each, and without a cluster."""
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), options.number)
        try:
            trials.start_cluster()
            found = {}
            for name, more in (("one process", []), ("on the cluster", ["--scheduler", str(trials.scheduler)])):
                before = cpu_of(trials.cluster[0].pid)
                words = ("segment", trials.images, "-m", trials.model, "-o", trials.folder / "alone", "--json", *more)
                process = prosma(*words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                ends, own = [], []
                for line in process.stdout:
                    if json.loads(line)["event"] == "case":
                        assert json.loads(line)["skipped"] == "finished"
                        ends.append(time.monotonic())
                        own.append(cpu_of(process.pid))
                assert process.wait() == 0
                count = len(ends) - 1
                found[name] = {
                    "wall_ms_a_case": round(1000 * (ends[-1] - ends[0]) / count, 2),
                    "cpu_ms_a_case_of_the_command": round(1000 * (own[-1] - own[0]) / count, 2),
                    "cpu_ms_a_case_of_the_scheduler": round(1000 * (cpu_of(trials.cluster[0].pid) - before) / count, 2),
                }
            return {"cases": options.number, **found}
        finally:
            trials.close()


# --- signs of life ----------------------------------------------------------------------------------------------------


def pipe(options: argparse.Namespace) -> dict:
    """Seconds from the time of change of a result's file to its line, read from a pipe."""
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), 6)
        rows = {}
        for name, more in (("one process", []), ("2 workers", ["--workers", "2"])):
            out = trials.folder / name
            words = ("segment", trials.images, "-m", trials.model, "-o", out, *more)
            process = prosma(*words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            line = process.stdout.readline()
            now = time.time()
            rows[name] = round(now - Path(line.split("  (")[0]).stat().st_mtime, 3)
            process.communicate()
        return {"first line after first result, s": rows}


def answers(options: argparse.Namespace) -> dict:
    """Processor seconds, the least of three, of --help and of wrong paths with every command."""
    from prosma.cli.app import make_parser
    from prosma.cli.completion import parsers_of

    wrong = {
        "segment": ["nosuch", "-m", "hippocampus-mr", "-o", "out"],
        "report": ["nosuch"],
        "dicomweb": ["nosuch", "-m", "hippocampus-mr", "-o", "out"],
        "plan": ["--data", "nosuch", "-o", "recipe.yaml"],
        "train": ["--data", "nosuch", "-o", "run"],
        "evaluate": ["hippocampus-mr", "--data", "nosuch"],
        "export": ["nosuch", "-o", "package"],
        "finetune": ["hippocampus-mr", "--data", "nosuch", "-o", "package"],
        "compare": ["nosuch", "--data", "nosuch", "-o", "runs"],
        "results": ["nosuch", "-o", "page.md"],
    }
    commands = {"prosma --help": ["--help"]}
    for name in parsers_of(make_parser()):
        commands[f"prosma {name} --help"] = [name, "--help"]
        if name in wrong:
            commands[f"prosma {name} {' '.join(wrong[name])}"] = [name, *wrong[name]]
    found = {text: min(cpu_of_command(words) for _ in range(3)) for text, words in commands.items()}
    return {"cpu_s": found, "most": max(found.values())}


def cpu_of_command(words: list[str]) -> float:
    process = prosma(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0
    return round(used.ru_utime + used.ru_stime, 3)


# --- records ----------------------------------------------------------------------------------------------------------

READ = """
import json, resource, sys, time
from prosma.batch.records import Records
records = Records(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
count = records.count()
first = time.process_time() - began
began = time.process_time()
for number in range(1000):
    assert records.of(f"case{number * 7:07d}.seg.nrrd")
each = (time.process_time() - began) / 1000
began = time.process_time()
for number in range(100):
    records.append({"output": f"more{number}", "error": {}})
adding = (time.process_time() - began) / 100
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"lines": count, "cpu_s_to_know_them": round(first, 2), "rss_mb_more": (most - before) // 1024,
                  "cpu_ms_to_find_one": round(1000 * each, 3), "cpu_ms_to_add_one": round(1000 * adding, 3)}))
"""


REPORT = """
import json, sys, time
from pathlib import Path
from prosma.cli import main
assert main(sys.argv[1:]) == 0
(most,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(json.dumps({"cpu_s": round(time.process_time(), 1), "most_mb": int(most) // 1024}), file=sys.stderr)
"""


def records(options: argparse.Namespace) -> dict:
    """Records of so many cases, with lines as long as real ones, in one process."""
    with tempfile.TemporaryDirectory() as folder:
        size = write_records(Path(folder), options.number)
        done = subprocess.run([sys.executable, "-c", READ, folder], env=ENVIRONMENT, capture_output=True, check=True)
        return {"bytes": size, **json.loads(done.stdout)}


def write_records(folder: Path, number: int) -> int:
    """Records of so many cases; their size in bytes."""
    path = folder / "prosma-results.jsonl"
    origin = {
        "model": {"id": "m", "version": "1.0.0", "sha256": "a" * 64},
        "options": {"overlap": None, "roi": None},
    }
    segments = [{"value": value, "voxels": 1234, "ml": 1.234, "name": f"structure {value}"} for value in (1, 2)]
    report = {
        "segments": segments,
        "seconds": {"total": 1.2, "preparing": 0.1, "network": 1.0},
        "notices": [""] * 8,
    }
    with path.open("w") as file:
        for case in range(number):
            name = f"case{case:07d}"
            report |= {
                "case": name,
                "inputs": [f"/data/images/{name}.nii.gz"],
                "output": f"/data/out/{name}.seg.nrrd",
            }
            line = {
                "output": f"{name}.seg.nrrd",
                "sha256": f"{case:064x}",
                "origin": {**origin, "input": "b" * 64},
            }
            files = [{"name": f"{name}.nii.gz", "bytes": 123456, "mtime_ns": 1790000000000000000}]
            file.write(json.dumps({**line, "files": files, "written": "2026-01-01", "report": report}) + "\n")
    return path.stat().st_size


def report(options: argparse.Namespace) -> dict:
    """`prosma report` of so many cases, whose results are gone, as all kinds of tables, and as JSON."""
    with tempfile.TemporaryDirectory() as place:
        folder, found = Path(place, "results"), {}
        folder.mkdir()
        found["bytes"] = write_records(folder, options.number)
        tables = [word for kind in ("csv", "parquet", "html") for word in (f"--{kind}", Path(place, f"t.{kind}"))]
        for name, more in (("sentence", []), ("tables", tables), ("json", ["--json"])):
            command = [sys.executable, "-c", REPORT, "report", str(folder), *map(str, more)]
            done = subprocess.run(
                command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
            )
            found[name] = json.loads(done.stderr)
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = {part.__name__: part for part in (throughput, scheduler, pipe, answers, records, report)}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--images", type=Path, help="folder of images")
    parser.add_argument("-m", "--model", default="hippocampus-mr")
    parser.add_argument("-n", "--number", type=int, default=60, help="of cases, or of lines")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    before = os.getloadavg()[0]
    found = parts[options.part](options)
    print(
        json.dumps(
            {"part": options.part, "cores": os.cpu_count(), "load": [before, os.getloadavg()[0]], **found}, indent=1
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
