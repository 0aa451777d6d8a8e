"""`python -m prosma.worker`: the engine as a child process; the room behind this door is `prosma.door`."""

import sys

from .door.worker import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
