"""Work in steps: generators that a user interface takes one by one, and everybody else all at once."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

Result = TypeVar("Result")


def finish(steps: Generator[Any, None, Result]) -> Result:
    """Take all steps at once; what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
