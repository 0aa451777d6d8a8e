"""What can go wrong in the engine, with a code for programs and two sentences for people."""

CODES = ("no_torch", "no_device", "out_of_memory", "bad_model", "bad_input", "bad_output", "cancelled", "internal")


class EngineError(RuntimeError):
    """`code` is one of CODES, `message` says what happened and why, `remedy` what to do."""

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class Cancelled(EngineError):
    """The caller's `cancelled()` said so; nothing was written."""

    def __init__(self) -> None:
        super().__init__("cancelled", "The job was cancelled.", "")


def bad_request(message: str) -> EngineError:
    """For requests to the worker that make no sense, which no person can write by hand."""
    return EngineError("bad_input", message, "This is a fault of the program that talks to the engine.")
