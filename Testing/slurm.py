"""A real SLURM for tests: controller, one node and munge on loopback ports, all in one folder and without root's cgroups."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
WHERE = os.pathsep.join(["/usr/sbin", "/usr/local/sbin", os.environ.get("PATH", "")])
TIMEOUT = 300  # seconds; the machine may be busy
CPUS, MEMORY_MB = 4, 8000  # that SLURM believes the node to have; more CPUs than some machines have
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=tests Nodes={host} Default=YES MaxTime=INFINITE DefMemPerCPU=1000 State=UP
"""


def installed() -> dict[str, str]:
    """The programs of SLURM and munge; the test is skipped without."""
    found = {name: shutil.which(name, path=WHERE) for name in PROGRAMS}
    missing = [name for name, program in found.items() if not program]
    if missing:
        pytest.skip(f"SLURM is not installed: no {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)")
    return {name: str(program) for name, program in found.items()}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Slurm:
    """A cluster of one node. Its commands need `environment`. Use it in a `with` statement."""

    def __init__(self, folder: Path) -> None:
        self.programs = installed()
        self.folder = folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        text = CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname().split(".")[0],
            user=getpass.getuser(),
            controller_port=free_port(),
            node_port=free_port(),
            cpus=CPUS,
            memory=MEMORY_MB,
        )
        self.configuration = folder / "slurm.conf"
        self.configuration.write_text(text, encoding="utf-8")
        self.environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        self.log = (folder / "log.txt").open("wb")
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> Slurm:
        try:
            self._start_all()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_exception) -> None:
        try:
            self.says("scancel", "--me")
            self._wait(lambda: not self.jobs())
        finally:
            self._end()

    def _start_all(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        names = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        places = [f"--{option}={self.folder / name}" for option, name in names.items()]
        self._start("munged", "--foreground", "--force", f"--key-file={key}", *places)
        self._wait((self.folder / "munge.socket").exists)
        self._start("slurmctld", "-D", "-i", "-f", self.configuration)
        self._start("slurmd", "-D", "-f", self.configuration)
        self._wait(lambda: "idle" in self.says("sinfo", "--noheader", "--format=%t"))

    def _end(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        self.log.close()

    def _start(self, program: str, *words: object) -> None:
        command = [self.programs[program], *map(str, words)]
        # a session of its own: slurmd ends its process group when it ends
        options = {"env": self.environment, "stdout": self.log, "stderr": self.log, "start_new_session": True}
        self.processes.append(subprocess.Popen(command, **options))

    def _wait(self, until) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not until():
            for process in self.processes:
                assert process.poll() is None, self.told()
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.2)

    def told(self) -> str:
        """The end of what the daemons said."""
        return (self.folder / "log.txt").read_text(errors="replace")[-4000:]

    def says(self, *command: object) -> str:
        """What a command of SLURM prints."""
        words = list(map(str, command))
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """The jobs that are not over, with their states."""
        lines = self.says("squeue", "--noheader", "--array", "--format=%A %T").splitlines()
        return dict(line.split() for line in lines)
