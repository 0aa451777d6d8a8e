"""Files that are whole or not there, folders that outlive no process, and the folder that holds a user's own."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import json
import os
import platform
import re
import shutil
import stat
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

OWNER = ".owner"  # ends the name of a file that the process that works in a folder keeps locked
ASIDE = ".prosma-replaced-"  # begins the name of a folder while another one takes its place
REMOVED = ".prosma-removed-"  # begins the name of a folder of which parts may be gone already
TRIES = 5
LISTING_COUNTS = 50  # times as long as it took
FOLDERS = 16  # whose listings are kept
COMPUTER = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}

_LISTED: dict[Path, tuple[float, list[str]]] = {}  # hidden names in folders, and until when they count


@contextlib.contextmanager
def replaced_when_whole(path: Path, suffix: str = "") -> Iterator[Path]:
    """Gives a name in the folder of `path` to write to; moves that file to `path`, or removes it after an error.

    Such files that killed processes of this computer left are removed. IsADirectoryError where a folder has that name.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{COMPUTER}-{os.getpid()}{suffix}")
    for other, computer, process in temporaries(path, suffix):
        if computer == COMPUTER and not is_alive(process):
            with contextlib.suppress(OSError):  # another process does the same
                other.unlink()
    try:
        with where_no_room_is(path):
            yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def where_no_room_is(path: Path) -> Iterator[None]:
    """Errors for want of room, which come from bytes and name no file, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:
            error.filename = str(path)
        raise


def temporaries(path: Path, suffix: str = "") -> Iterator[tuple[Path, str, int]]:
    """The files of `replaced_when_whole` for `path` that are there, with the computer and the process that each is of."""
    start = f".{path.name}."
    for name in _hidden_names(path.parent):
        if not (name.startswith(start) and name.endswith(suffix)):
            continue
        if owner := re.fullmatch(r"([0-9a-f]{8})-([0-9]+)", name[len(start) : len(name) - len(suffix)]):
            yield path.with_name(name), owner[1], int(owner[2])


def _hidden_names(folder: Path) -> list[str]:
    """Names in a folder that begin with a dot, as they were a moment ago.

    A listing counts for some times as long as it took, so that looking takes a fiftieth of the time in folders of any size.
    """
    began = time.monotonic()
    until, names = _LISTED.pop(folder, (began, []))
    if began >= until:
        try:
            names = [name for name in os.listdir(folder) if name.startswith(".")]
        except OSError:
            names = []
        ended = time.monotonic()
        until = ended + LISTING_COUNTS * (ended - began)
    _LISTED[folder] = until, names
    for oldest in list(_LISTED)[:-FOLDERS]:
        _LISTED.pop(oldest, None)
    return names


def is_alive(process: int) -> bool:
    """Whether a process of this computer runs."""
    if sys.platform == "win32":
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, process)  # PROCESS_QUERY_LIMITED_INFORMATION
        return bool(handle and ctypes.windll.kernel32.CloseHandle(handle))
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def locked(file: BinaryIO) -> Iterator[None]:
    """Keeps other processes that ask for the same out of an open file; waits for them.

    Over a network it also makes this computer see what others wrote. Where the file system knows no locks there is none:
    what is written at once at a file's end stays together there too, as far as that file system goes.
    """
    lock = _lock_of(file)
    try:
        yield
    finally:
        if lock:
            lock()


def _lock_of(file: BinaryIO) -> Callable[[], None] | None:
    """Lock an open file; the function that unlocks it, or None where that is not possible."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)

            def unlock() -> None:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

            return unlock
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX)
        return lambda: fcntl.lockf(file, fcntl.LOCK_UN)
    return None


def write_json(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write whole or not at all, lists of plain values on one line; NaN is refused rather than written."""
    write_text(path, with_short_lists(json.dumps(content, indent=1, allow_nan=False)) + "\n")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write whole or not at all; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def as_utf8(value: Any) -> Any:
    """Texts as UTF-8 can hold them: bytes of a file's name that are none become escapes such as `\\udce9`."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def with_short_lists(text: str) -> str:
    """Indented JSON with its innermost lists on one line each. No string is touched: JSON strings hold no line breaks."""
    return re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda match: "[" + re.sub(r",\n\s*", ", ", match[1]) + "]", text)


@contextlib.contextmanager
def opened_regular(path: Path, follow: bool = True) -> Iterator[BinaryIO]:
    """A regular file, open for reading. OSError for folders, pipes and devices, and for links where none are followed.

    None of these is waited for or read: a pipe would block for ever, a device might never end.
    """
    if not follow and path.is_symlink():  # not every system refuses links by itself
        raise OSError(errno.ELOOP, "it is a link", str(path))
    flags = os.O_RDONLY
    for name in ("O_BINARY", "O_CLOEXEC", "O_NONBLOCK", *(() if follow else ("O_NOFOLLOW",))):
        flags |= getattr(os, name, 0)
    number = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    with os.fdopen(number, "rb") as file:
        yield file


def read_regular(path: Path, most: int, follow: bool = True) -> bytes:
    """The content of a regular file, as of `opened_regular`. OSError for one of more than `most` bytes."""
    with opened_regular(path, follow) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return content


def check_unfolding(content: bytes, most: int) -> None:
    """ValueError where the members of a zip (an .npz is one) say that they unfold to more than `most` bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > most:
            raise ValueError("it would unfold to too much")


@contextlib.contextmanager
def working_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, removed at the end. If this process is killed, `sweep` or the next process removes it.

    A file beside it, which this process keeps locked, says whose it is; it is there before the folder and after it.
    """
    _sweep_once(parent, prefix)
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(_owned_file(parent, prefix))
        folder = owner.with_name(owner.name.removesuffix(OWNER))
        folder.mkdir()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(where_no_room_is(parent))
        yield folder


@contextlib.contextmanager
def _owned_file(parent: Path, prefix: str) -> Iterator[Path]:
    """A new file that this process keeps locked."""
    for _ in range(TRIES):
        owner = parent / f"{prefix}{os.getpid()}-{time.monotonic_ns()}{OWNER}"
        try:
            with owner.open("xb") as file:
                if not lock(file):  # `sweep` of another process may have been quicker, and then removes it
                    time.sleep(0.1)
                if owner.exists():
                    yield owner
                    return
        finally:
            owner.unlink(missing_ok=True)
    raise OSError(errno.EAGAIN, "other programs tidy it up at the same time", str(parent))


def sweep(parent: Path, prefix: str) -> None:
    """Remove the folders that a `working_folder` of a process that is gone left in `parent`."""
    for folder in {path.with_name(path.name.removesuffix(OWNER)) for path in parent.glob(f"{prefix}*")}:
        owner = folder.with_name(folder.name + OWNER)
        with contextlib.suppress(OSError):  # another process does the same
            if is_abandoned(owner):
                shutil.rmtree(folder, ignore_errors=True)
                owner.unlink(missing_ok=True)


_sweep_once = functools.cache(sweep)


def is_abandoned(owner: Path) -> bool:
    """Whether the process that kept this file locked is gone."""
    try:
        with owner.open("r+b") as file:
            return lock(file)
    except FileNotFoundError:
        return True


def lock(file: BinaryIO) -> bool:
    """Lock an open file until it is closed; False where another process or thread has it, or where nobody can."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def replace_folder(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`. Killed at any moment, the one or the other is there after `recover`."""
    aside = folder.with_name(f"{ASIDE}{folder.name}")
    for _ in range(TRIES):
        recover(folder.parent)
        if folder.exists():
            os.replace(folder, aside)
        try:
            os.replace(new, folder)
        except OSError:
            if folder.exists():  # another process was quicker: its folder gives way to ours
                continue
            recover(folder.parent)
            raise
        recover(folder.parent)
        return
    raise OSError(errno.EBUSY, "other programs write to it at the same time", str(folder))


def recover(parent: Path) -> None:
    """Undo or complete what a killed `replace_folder` left in `parent`."""
    for aside in parent.glob(f"{ASIDE}*"):
        folder = parent / aside.name.removeprefix(ASIDE)
        with contextlib.suppress(OSError):  # another process does the same
            if folder.exists():
                os.replace(aside, parent / f"{REMOVED}{aside.name}.{os.getpid()}.{time.monotonic_ns()}")
            else:
                os.replace(aside, folder)
    for removed in parent.glob(f"{REMOVED}*"):
        if removed.is_symlink() or removed.is_file():
            removed.unlink(missing_ok=True)
        else:
            shutil.rmtree(removed, ignore_errors=True)


def user_folder() -> Path:
    """Where imported models and unpacked archives are kept: $PROSMA_HOME, or ~/.prosma."""
    return Path(os.environ.get("PROSMA_HOME") or Path.home() / ".prosma")
