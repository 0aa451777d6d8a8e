"""The exit codes of the command `prosma`, of all its commands; this is the one place that lists them."""

DONE = 0
FAILED = 1
MISUSED = 2
SOME_FAILED = 3
UNSUITABLE = 4
STOPPED = 130

MEANINGS = {
    DONE: "all done",
    FAILED: "nothing done: one sentence on stderr says why and what to do",
    MISUSED: "the command line itself is wrong",
    SOME_FAILED: "some cases failed, which are listed; the rest is done",
    UNSUITABLE: "nothing done: the image does not suit the model; --force runs it all the same",
    STOPPED: "stopped by Ctrl+C",
}


def as_text() -> str:
    """A line for each code, for `prosma --help`."""
    return "exit codes:\n" + "\n".join(f"  {code:<4}{meaning}" for code, meaning in MEANINGS.items())


def exit_code(done: int, failed: int) -> int:
    """Of a batch in which so many cases were done and failed."""
    return DONE if not failed else SOME_FAILED if done else FAILED
