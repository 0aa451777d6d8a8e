"""The one family of errors that are told to a person as they are. Whatever is none of it is a fault of ProSMA."""

from __future__ import annotations

from typing import Any

# In lower case: words of C++, of PyTorch on Linux and Windows and on a card, of oneDNN for its arrays and its code, of
# Python and of the system.
MEMORY_SIGNS = (
    "bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "could not create a memory object",
    "could not create a primitive",
    "memoryerror",
)
ISSUES = "https://github.com/ProSMA/SlicerProSMA/issues"


class UserFacingError(Exception):
    """What happened and why (`message`), what to do (`remedy`), and the kind for programs (`code`).

    `code` is one of `no_torch`, `no_device`, `out_of_memory`, `bad_model`, `bad_input`, `does_not_fit`, `bad_output`,
    `cancelled` and `internal`; a class may have its usual one, and a usual remedy.
    """

    code = "bad_input"
    remedy = ""

    def __init__(self, message: str, remedy: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy or self.remedy
        self.code = code or self.code

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled whole, whatever arguments a class takes: data loaders send errors from one process to another."""
        return Exception.__new__, (type(self), self.message), dict(vars(self))


class EngineError(UserFacingError):
    """A run that cannot begin or go on. `code` is its kind, see `UserFacingError`."""

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy, code)


def bad_request(message: str) -> EngineError:
    """For requests to the worker that make no sense, which no person can write by hand."""
    return EngineError("bad_input", message, "This is a fault of the program that talks to the engine.")


def fault_of_ours(error: BaseException) -> str:
    """One sentence about an error that is no advice: what to do about it is for those who write ProSMA."""
    return f"This is a fault of ProSMA ({type(error).__name__}: {error})."


def explained(error: BaseException) -> UserFacingError:
    """Any error as one that can be told: itself where it is meant for a person, else with a remedy by its kind."""
    if isinstance(error, UserFacingError):
        return error
    if isinstance(error, MemoryError):
        why = "The computer's memory did not suffice."
        return EngineError("out_of_memory", why, "Limit the work to an ROI or close other programs.")
    if isinstance(error, OSError):
        reason = f"{error.filename or 'A file'} could not be read or written: {error.strerror or error}."
        return EngineError("internal", reason, "Check its name, whether you may use it, and the free space there.")
    return EngineError("internal", fault_of_ours(error), f"Report it with the log: {ISSUES}")
