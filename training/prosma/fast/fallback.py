"""The log line that says, once per process and reason, why a fast way was not taken."""

from __future__ import annotations

import functools
import logging

log = logging.getLogger("prosma.fast")


@functools.cache
def note_fallback(what_instead: str, reason: str, level: int = logging.WARNING) -> None:
    """Log ``what_instead`` is done and the ``reason``; a second time nothing.

    Args:
        what_instead: a clause, such as "The network runs without its fast ways".
        level: WARNING where speed is lost that the computer could give, INFO where that is the plan.
    """
    log.log(level, "%s: %s.", what_instead, reason)
