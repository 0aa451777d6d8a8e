#!/usr/bin/env bash
# When dask-jobqueue asks for a job in place of one that the queue has ended, seen with the versions pinned below. Needs
# Linux, Python 3.10 to 3.13 and a package index, and takes four minutes. A stand-in for `sbatch` runs the job scripts of
# dask-jobqueue as they are on this computer; a job is ended with signal 9, as SLURM does at the limit of time or memory.
# Fails if a behaviour changes.
#
# 1. After scale(jobs=1) no job is asked for in place of one that ended.
# 2. After adapt(minimum_jobs=1, maximum_jobs=1) one is, where a job has one process,
# 3. and none where it has two, although `minimum_jobs` says that one must be there.
set -euo pipefail
work=$(mktemp -d)
export JOBS="$work/jobs"
finish() {
    for job in $(cat "$JOBS" 2>/dev/null); do kill -KILL -- "-$job" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check \
    dask-jobqueue==0.9.0 dask==2026.8.0 distributed==2026.8.0
mkdir bin
cat > bin/sbatch <<'EOS'
#!/usr/bin/env bash
script=$(mktemp "$JOBS.XXXXXX")
cp "$1" "$script"
setsid bash "$script" > /dev/null 2>&1 &
echo $! >> "$JOBS"
echo "Submitted batch job $!"
EOS
cat > bin/scancel <<'EOS'
#!/usr/bin/env bash
kill -TERM -- "-$1" 2> /dev/null
EOS
chmod +x bin/sbatch bin/scancel
cat > facts.py <<'EOS'
import os
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

from dask_jobqueue import SLURMCluster
from distributed import Client

PATIENCE_S = 60  # the first one that is asked for comes after some 15 s


def jobs():
    return [int(line) for line in Path(os.environ["JOBS"]).read_text().split()]


def new_jobs(ask, processes):
    """Jobs that are asked for, and workers there, PATIENCE_S after the only job was ended."""
    Path(os.environ["JOBS"]).write_text("")
    job = {"cores": processes, "processes": processes, "memory": "1GB", "interface": "lo"}
    with SLURMCluster(**job, scheduler_options={"dashboard_address": ":0"}) as cluster, Client(cluster) as client:
        ask(cluster)
        client.wait_for_workers(processes, timeout=120)
        (job,) = jobs()
        os.killpg(job, signal.SIGKILL)
        time.sleep(PATIENCE_S)
        return len(jobs()) - 1, len(client.nthreads())


def scale(cluster):
    cluster.scale(jobs=1)


def adapt(cluster):
    cluster.adapt(minimum_jobs=1, maximum_jobs=1)


if __name__ == "__main__":
    print(", ".join(f"{name} {version(name)}" for name in ("dask-jobqueue", "distributed")))
    changed = []
    for what, ask, processes, expected in (
        ("1. scale, one process a job", scale, 1, (0, 0)),
        ("2. adapt, one process a job", adapt, 1, (1, 1)),
        ("3. adapt, two processes a job", adapt, 2, (0, 0)),
    ):
        seen = new_jobs(ask, processes)
        print(f"{what}: new jobs and workers {PATIENCE_S} s after it ended: {seen}", flush=True)
        if seen != expected:
            print(f"    changed; it was {expected}")
            changed.append(what)
    sys.exit(f"changed: {changed}" if changed else 0)
EOS
PATH="$work/bin:$PATH" env/bin/python facts.py 2> log.txt || { tail -20 log.txt; exit 1; }
