"""The command `prosma`; app.py is where it starts."""

from .app import main

__all__ = ["main"]
