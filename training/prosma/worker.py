"""`python -m prosma.worker`: the engine as a child process; the room behind this door is `prosma.door`."""

import os

os.environ.pop("ITK_AUTOLOAD_PATH", None)  # Slicer's image plug-ins, which would crash SimpleITK here

from .door.worker import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
