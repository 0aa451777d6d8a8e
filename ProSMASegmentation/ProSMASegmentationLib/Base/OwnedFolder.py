"""Folders for work that is under way. Their names tell whose they are, so that what a killed Slicer leaves is recognised.

A name is ``<prefix><computer>-<process>-<start of the process>-<random>``: process ids are given again, but not at the
same time. It is complete from the first moment, where a file inside would come a moment later.
"""

import functools
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

OWNER = re.compile(r"(?P<computer>[0-9a-f]{8})-(?P<process>\d+)-(?P<start>[0-9a-f]{8})-")
_stillInUse = []  # folders that could not be removed
JOB, KEPT, FINE_TUNING = "prosma-job-", "prosma-kept-", "prosma-finetune-"  # prefixes in Slicer's temporary folder


def newFolder(prefix, parent=None):
    """A new folder of this process; in Slicer's temporary folder if no other is given."""
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{_ownName()}-", dir=parent or slicer.app.temporaryPath))


def remove(folder):
    """Remove a folder of this process and all that is in it.

    Windows does not remove files that are still mapped by numpy. What stays for that reason goes with the next folder, or
    at the latest when the next Slicer starts.
    """
    staying = [*_stillInUse, folder]
    for each in staying:
        shutil.rmtree(each, ignore_errors=True)
    _stillInUse[:] = [each for each in staying if each.exists()]


def unusable(error):
    """The ProSMAError about a file in such a folder. :param error: the OSError."""
    return ProSMAError(
        "internal",
        _("A temporary file could not be written or read: {error}.").format(error=error),
        _("Free some space in '{folder}' and try again.").format(folder=slicer.app.temporaryPath),
    )


def removeAbandoned():
    """Remove from Slicer's temporary folder what processes left that are gone. What a living one uses stays."""
    for prefix in (JOB, KEPT, FINE_TUNING):
        for folder in Path(slicer.app.temporaryPath).glob(f"{prefix}*"):
            if isAbandoned(folder, prefix):
                logging.info("ProSMA: removing %s, which a Slicer that was killed has left", folder)
                shutil.rmtree(folder, ignore_errors=True)


def isAbandoned(folder, prefix):
    """Whether the process that a folder belongs to is gone; None if that cannot be known, as on another computer."""
    owner = OWNER.match(folder.name.removeprefix(prefix))
    if owner is None or owner["computer"] != _short(platform.node()):
        return None
    return _short(startOf(int(owner["process"]))) != owner["start"]


def startOf(processId):
    """A text that tells when a process was started; empty if there is none."""
    if Path("/proc/self/stat").exists():
        return _startOnLinux(processId)
    return _startOnWindows(processId) if sys.platform == "win32" else _startOnUnix(processId)


@functools.cache
def _ownName():
    return f"{_short(platform.node())}-{os.getpid()}-{_short(startOf(os.getpid()))}"


def _short(text):
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _startOnLinux(processId):
    try:
        state, *rest = Path(f"/proc/{processId}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else f"{boot} {rest[18]}"  # rest[18]: clock ticks from the boot to the start


def _startOnUnix(processId):
    command = ["ps", "-o", "lstart=", "-p", str(processId)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _startOnWindows(processId):
    import ctypes
    from ctypes import wintypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = wintypes.HANDLE
    handle = kernel.OpenProcess(0x1000, False, processId)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return ""
    try:
        times, code = [wintypes.FILETIME() for _number in range(4)], wintypes.DWORD()
        if (
            not kernel.GetExitCodeProcess(wintypes.HANDLE(handle), ctypes.byref(code)) or code.value != 259
        ):  # STILL_ACTIVE
            return ""
        kernel.GetProcessTimes(wintypes.HANDLE(handle), *map(ctypes.byref, times))
        return f"{times[0].dwHighDateTime} {times[0].dwLowDateTime}"
    finally:
        kernel.CloseHandle(wintypes.HANDLE(handle))
