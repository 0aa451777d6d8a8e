"""Wrong values for every place of a JSON document: what a hand, or another program, may have written there."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

WRONG = (None, True, 0, -1, 1.5, math.nan, "", "x", [], {})


def places(document: Any, place: tuple = ()) -> Iterator[tuple]:
    """The path of every value in a document, objects and lists included."""
    entries = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for name, value in entries:
        yield (*place, name)
        yield from places(value, (*place, name))


def changed(document: Any, place: tuple, value: Any) -> Any:
    """A copy with another value at a place."""
    result = copy.deepcopy(document)
    parent = result
    for step in place[:-1]:
        parent = parent[step]
    parent[place[-1]] = copy.deepcopy(value)
    return result


def mutants(document: Any) -> Iterator[tuple[tuple, Any, Any]]:
    """Every document with one wrong value: its place, the wrong value, and the document."""
    for place in places(document):
        for wrong in WRONG:
            yield place, wrong, changed(document, place, wrong)
