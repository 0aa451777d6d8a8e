"""Which of the system's libraries for Qt and for pictures are missing, and how to get them. Standard library only."""

import ctypes
import glob
import sys

# Without one of these PySide6.QtGui cannot be imported: no panel.
PANEL_LIBRARIES = (
    "libGL.so.1",
    "libEGL.so.1",
    "libxkbcommon.so.0",
    "libdbus-1.so.3",
    "libfontconfig.so.1",
    "libglib-2.0.so.0",
    "libgssapi_krb5.so.2",
)
# One of these drivers behind libEGL draws the views where there is no display.
DRIVERS = ("libEGL_mesa.so.0", "libEGL_nvidia.so.0")
FONTS = "/usr/share/fonts/**/*.[to]tf"
PACKAGES = (
    "libegl1 libegl-mesa0 libgl1-mesa-dri libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 "
    "libglib2.0-0 libgssapi-krb5-2 fonts-dejavu-core"
)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing_for_panel() -> list[str]:
    """Names of the missing libraries without which Qt's widgets cannot be imported; empty elsewhere than on Linux."""
    return [] if sys.platform != "linux" else [name for name in PANEL_LIBRARIES if not _loads(name)]


def missing_for_pictures() -> list[str]:
    """Names of what is missing to draw panel and views without a display; empty elsewhere than on Linux."""
    if sys.platform != "linux":
        return []
    missing = missing_for_panel()
    if not any(map(_loads, DRIVERS)):
        missing.append(" or ".join(DRIVERS))
    if not glob.glob(FONTS, recursive=True):
        missing.append("fonts")
    return missing


def notice() -> str:
    """What is missing, what follows from it and what to install; empty when nothing is missing."""
    missing = missing_for_pictures()
    if not missing:
        return ""
    effect = "the panel cannot be shown and no picture is made" if missing_for_panel() else "no picture is made"
    return (
        f"Notice: missing on this machine: {', '.join(missing)}. So {effect}.\n"
        f"        On Debian and Ubuntu: apt-get install {PACKAGES}"
    )


if __name__ == "__main__":
    if notice():
        print(notice())
