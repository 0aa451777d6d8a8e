"""Which of the system's libraries for Qt are missing, and how to get them. Standard library only.

Without them PySide6 cannot be imported, so there is no panel. Whether pictures can be made besides (a driver behind EGL,
fonts) is known to `headless_slicer.views.available()`.
"""

import ctypes
import sys

LIBRARIES = (
    "libGL.so.1",
    "libEGL.so.1",
    "libxkbcommon.so.0",
    "libdbus-1.so.3",
    "libfontconfig.so.1",
    "libglib-2.0.so.0",
    "libgssapi_krb5.so.2",
)
PACKAGES = (
    "libegl1 libegl-mesa0 libgl1-mesa-dri libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 "
    "libglib2.0-0 libgssapi-krb5-2 fonts-dejavu-core"
)


def missing() -> list[str]:
    """Names of the libraries that cannot be loaded; empty elsewhere than on Linux, where PySide6 needs none of them."""
    return [] if sys.platform != "linux" else [name for name in LIBRARIES if not _loads(name)]


def notice() -> str:
    """What is missing, what follows from it and what to install; empty when nothing is missing."""
    if not missing():
        return ""
    return (
        f"Notice: this machine lacks {', '.join(missing())}. So the panel cannot be shown and no picture is made.\n"
        f"        On Debian and Ubuntu: apt-get install {PACKAGES}"
    )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    if notice():
        print(notice())
