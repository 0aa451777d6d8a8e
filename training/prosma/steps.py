"""Work in steps: generators that a user interface takes one by one, and everybody else all at once."""

from __future__ import annotations

from collections.abc import Generator


def finish(steps: Generator):
    """Take all steps at once; what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
