"""Who works on which case: claims, files beside the results that are there as long as somebody works on one.

Several processes, on one or on many computers, share the cases of one output folder by them. A claim is made by creating a
file that must not exist (atomic on local and network file systems), `.NAME.claim-0`. It says whose it is, and its time of
change shows that its owner lives. A claim whose owner is dead is never removed by another: whoever creates
`.NAME.claim-1` has the case from then on, and so on; of several that try only one can. Whoever ends with a case removes all
its claims. So after a claim has been made its owner looks again: whether the claims before it are those that it saw, and
whether the result is there by now.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path

BEAT_S = 10.0  # between two signs of life
SILENCE_S = 180.0  # after which an owner on another computer counts as dead: a network's file times may be a minute old
LOOKS, BETWEEN_LOOKS_S = 5, 0.1
LINUX_PLACE = ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid")


class Claims:
    """The claims of this process on the results in one folder, which exists. Use it in a `with` statement."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._owner = {
            "host": socket.gethostname(),
            "place": place(),
            "pid": os.getpid(),
            "started": started(os.getpid()),
        }
        self._mine: dict[str, int] = {}  # the number of each claim that this process has
        self._seen: dict[Path, tuple[int, float]] = {}  # claims of others: time of change, and when it was first seen
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="claims", daemon=True)

    def __enter__(self) -> Claims:
        self._heart.start()
        return self

    def __exit__(self, *_exception) -> None:
        self._over.set()
        self._heart.join()
        for name in list(self._mine):
            self.release(name)

    def take(self, name: str) -> bool:
        """Whether the result `name` is this process's from now on: nobody else works on it who is alive."""
        last = self._last(name)
        before = self._path(name, last) if last >= 0 else None
        try:
            seen = identity(before)
            if before is not None and self._lives(before):
                return False
        except FileNotFoundError:  # has ended just now: ask again
            return False
        path = self._path(name, last + 1)
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(self._owner, file)
        except FileExistsError:
            return False
        except OSError:  # a full disk: an empty claim would keep everybody off for minutes
            path.unlink(missing_ok=True)
            raise
        try:
            still_so = identity(before) == seen
        except FileNotFoundError:
            still_so = False
        if not still_so:  # the dead owner's case was ended by another meanwhile, and perhaps begun by a third
            path.unlink(missing_ok=True)
            return False
        with self._lock:
            self._mine[name] = last + 1
        return True

    def tidy(self, name: str) -> None:
        """Remove what dead owners left at a result that is finished."""
        if self._last(name) >= 0 and self.take(name):
            self.release(name)

    def holder(self, name: str) -> dict:
        """Who else works on the result `name`: host and pid as far as they are known; empty if nobody who is alive."""
        number = self._last(name)
        path = self._path(name, number)
        try:
            if number < 0 or self._mine.get(name) == number or not self._lives(path):
                return {}
            return read_owner(path) or {"host": "?", "pid": "?"}
        except FileNotFoundError:  # has ended just now
            return {}

    def is_mine(self, name: str) -> bool:
        """Whether nobody has taken the result over meanwhile, as happens to a process that was stopped for minutes."""
        for _look in range(LOOKS):  # one who tries to take it and cannot is seen for a moment
            if name not in self._mine or self._last(name) == self._mine[name]:
                break
            time.sleep(BETWEEN_LOOKS_S)
        return name in self._mine and self._last(name) == self._mine[name]

    def release(self, name: str) -> None:
        """Give a result up, done or not; claims of dead owners before this one go with it."""
        with self._lock:
            number = self._mine.pop(name, -1)
        if number >= 0 and self._last(name) <= number:
            for each in range(number, -1, -1):
                self._path(name, each).unlink(missing_ok=True)

    def _path(self, name: str, number: int) -> Path:
        return self.folder / f".{name}.claim-{number}"

    def _last(self, name: str) -> int:
        """The number of the claim that counts; -1 for none."""
        number = 0
        while self._path(name, number).exists():
            number += 1
        return number - 1

    def _lives(self, path: Path) -> bool:
        """Whether a claim's owner is alive: looked up on this computer, else by the claim's time of change."""
        owner = read_owner(path)
        if owner.get("place") == self._owner["place"] and owner["place"]:
            return started(owner.get("pid", 0)) == owner.get("started")
        changed = path.stat().st_mtime_ns
        before, since = self._seen.get(path, (None, 0.0))
        if changed != before:
            self._seen[path] = changed, time.monotonic()
            return True
        return time.monotonic() - since < SILENCE_S

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with self._lock:
                mine = list(self._mine.items())
            for name, number in mine:
                with contextlib.suppress(
                    OSError
                ):  # released meanwhile, or the network is away: the next one may succeed
                    os.utime(self._path(name, number))


def identity(claim: Path | None) -> tuple | None:
    """What tells a claim from another one under the same name, and a living owner's from how it was before."""
    return None if claim is None else (claim.stat().st_mtime_ns, read_owner(claim))


def read_owner(claim: Path) -> dict:
    """What a claim says about its owner; empty where it is being written."""
    try:
        owner = json.loads(claim.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def place() -> str:
    """A text for the running system and its space of process numbers, where Linux tells them; else an empty one."""
    try:
        return f"{Path(LINUX_PLACE[0]).read_text().strip()} {os.readlink(LINUX_PLACE[1])}"
    except OSError:
        return ""


def started(pid: int) -> int:
    """When a process of this computer was started, in ticks of Linux's clock; 0 where there is none."""
    try:
        fields = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
