"""Cancel: how work is stopped in the middle, so that nothing of it is left. The way of a click:

| station | file | what it does |
| --- | --- | --- |
| button | `Panel/RunSection`, `Batch`, `Learn` and `Outputs` sections of Slicer's side | calls the job's `cancel` |
| job | `Engine/SegmentationJob` | ends at once for the person; the scene stays as it was |
| request | `Engine/EngineClient` -> `door/worker` | `{"do": "cancel"}` sets the job's `cancelled` event |
| Ctrl+C | `cli/app` | the same for commands, by a signal |
| here | `stop_if`, `cancelled_between_stages` | long work asks again and again, and raises Cancelled |

Who does long work takes a function `cancelled` that says whether to stop, and asks it at least every few seconds: before each
tile and each stage of the network, with each megabyte of a copy, after each step of a training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .errors import UserFacingError


class Cancelled(UserFacingError):
    """The caller's `cancelled()` said so; nothing was written."""

    code = "cancelled"

    def __init__(self) -> None:
        super().__init__("The job was cancelled.")


def never() -> bool:
    """What is asked where nobody can stop the work."""
    return False


def stop_if(cancelled: Callable[[], bool]) -> None:
    """Raise Cancelled where `cancelled` says so."""
    if cancelled():
        raise Cancelled


@contextlib.contextmanager
def cancelled_between_stages(networks: Sequence[Any], cancelled: Callable[[], bool]) -> Iterator[None]:
    """Inside, each stage of these ProSMAUNets asks `cancelled` before it runs, and raises Cancelled where it says so."""
    asked = [] if cancelled is never else networks
    stages = [stage for network in asked for blocks in (network.encoder, network.decoder) for stage in blocks]
    hooks = [stage.register_forward_pre_hook(lambda *_: stop_if(cancelled)) for stage in stages]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
