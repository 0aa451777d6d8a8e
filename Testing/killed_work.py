"""Work that is started, killed at random moments and done to its end, with what is checked then; see kills.py."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 600  # for work that nobody kills, on a busy machine
ORPHANS_S = 20  # that children have to notice that they are alone
MARK = "PROSMA_KILLS"  # in the environment of all processes of one run
LIBRARIES = [
    "prosma.cli.app",
    "prosma.learning.fit.fitting",
    "prosma.learning.fit.finetuning",
    "prosma.learning.packing.export",
]


class Fault(Exception):
    """What a kill has broken."""


class Work:
    """One kind of work in a folder of its own. `seconds`: how long it took when it was done to its end last."""

    kind = ""
    resumes = True  # kills may follow one another before the work is done to its end

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder, self.draw = folder, draw
        self.temporary, self.home = folder / "tmp", folder / "home"
        self.mark = f"{os.getpid()}-{self.kind}"
        for each in (self.temporary, self.home):
            each.mkdir(parents=True)
        environment = {"TMPDIR": str(self.temporary), "PROSMA_HOME": str(self.home), MARK: self.mark}
        paths = os.pathsep.join(map(str, (ROOT / "training", ROOT / "Testing", ROOT / "Testing" / "module")))
        self.environment = {**os.environ, **environment, "PYTHONPATH": paths, "QT_QPA_PLATFORM": "offscreen"}
        self.prepare()
        self.timed_finish()  # the first time the libraries are imported
        self.begin()
        self.timed_finish()
        self.clean = self.names()

    # --- what each kind says

    def prepare(self) -> None:
        """Make what the work needs."""

    def command(self) -> list[str]:
        """The arguments of `prosma` that do the work, or go on with it."""
        raise AssertionError

    def begin(self) -> None:
        """Put things as they are before the work."""

    def check(self) -> None:
        """After a kill and before the next start: nothing at its final name is half, nothing is lost."""

    def check_done(self) -> None:
        """After the work was done to its end: the result is right."""

    # --- what all do

    def timed_finish(self) -> None:
        began = time.monotonic()
        self.finish()
        self.seconds = time.monotonic() - began

    def start(self) -> multiprocessing.process.BaseProcess:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LIBRARIES)
        process = context.Process(target=prosma, args=(self.command(), self.environment, self.folder))
        process.start()
        return process

    def finish(self) -> None:
        """Do the work to its end. Fault where that is not possible."""
        process = self.start()
        process.join(LIMIT_S)
        if process.exitcode != 0:
            process.kill()
            raise Fault(f"blocked: exit code {process.exitcode}: {(self.folder / 'log.txt').read_text()[-800:]}")

    def kill(self) -> bool:
        """Start the work and kill it at a random moment; False where it had ended before."""
        process = self.start()
        late = self.draw.random() < 0.5  # where files are written
        process.join(self.seconds * (self.draw.uniform(0.6, 1.0) if late else self.draw.uniform(0.1, 1.0)))
        running = process.exitcode is None
        if running and self.draw.random() < 0.5:
            with contextlib.suppress(ProcessLookupError):  # it has no group yet
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        return running

    def names(self) -> set[str]:
        """All files and folders; what the work makes for later (the fastest ways to compute) is no leftover."""
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
        return {name for name in found if not name.startswith(("home/fastest-ways.json", "log.txt"))}

    def check_leftovers(self) -> None:
        end_by = time.monotonic() + ORPHANS_S
        while (alive := processes(self.mark)) and time.monotonic() < end_by:
            time.sleep(0.2)
        if alive:
            raise Fault(f"leftover: processes {alive}")
        if more := sorted(self.names() - self.clean):
            raise Fault(f"leftover: {more[:6]}")

    def round(self, kills: int) -> int:
        """Up to so many kills, then the work to its end and all checks. The number of kills."""
        self.begin()
        done = 0
        for _ in range(min(kills, self.draw.randint(1, 3) if self.resumes else 1)):
            if not self.kill():
                break
            done += 1
            self.check()
        self.timed_finish()
        self.check_done()
        self.check_leftovers()
        return done


def prosma(arguments: list[str], environment: dict[str, str], folder: Path) -> None:
    """What runs in a process that is to be killed."""
    os.setsid()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None  # by the environment
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from prosma.cli import main

    sys.exit(main(arguments))


def program(command: list[str], work: Work, **options) -> subprocess.Popen:
    """A program with pipes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True, "text": True}
    return subprocess.Popen(command, env=work.environment, cwd=work.folder, **pipes, **options)


def end(process: subprocess.Popen) -> bool:
    """Kill a program and its children; whether it still ran."""
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def processes(mark: str) -> list[int]:
    """Those with this mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if f"{MARK}={mark}".encode() in (path / "environ").read_bytes().split(b"\0") and state != "Z":
                found.append(int(path.name))
    return found
