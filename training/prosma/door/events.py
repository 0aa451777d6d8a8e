"""What the worker tells: a dataclass for each event. docs/door.md describes them, and a test compares the two."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import UserFacingError
from ..inference.fit import DoesNotFit


@dataclass(frozen=True, kw_only=True)
class Event:
    """What all events have: a name, which `content` gives as the field `event`."""

    NAME: ClassVar[str] = "result"

    def content(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return {"event": self.NAME, **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)}}


@dataclass(frozen=True, kw_only=True)
class Ready(Event):
    """The worker has started; `problem` says what keeps it from segmenting."""

    NAME = "ready"

    pid: int
    prosma: str
    python: str
    torch: str | None
    devices: list[dict[str, Any]]
    model: str | None
    problem: dict[str, str] | None


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """How far a job is."""

    NAME = "progress"

    stage: str
    fraction: float
    seconds_left: float | None


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """A job that ended without a result, or a line that is no request."""

    NAME = "error"

    code: str
    message: str
    remedy: str
    fit: dict[str, Any] | None = None

    @classmethod
    def of(cls, error: UserFacingError) -> Failed:
        fit = error.fit.as_dict() if isinstance(error, DoesNotFit) else None
        return cls(code=error.code, message=error.message, remedy=error.remedy, fit=fit)


@dataclass(frozen=True, kw_only=True)
class Described(Event):
    """A model that is loaded."""

    model: str
    device: str
    seconds: float
    notices: list[str]


@dataclass(frozen=True, kw_only=True)
class Run(Event):
    """What is told of every run of a model."""

    segments: list[dict[str, Any]]
    statistics: dict[str, Any]
    seconds: dict[str, float]
    device: str
    notices: list[str]
    device_notices: list[str]
    fit: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Segmented(Run):
    """A run whose results are arrays in the job's folder."""

    labels: dict[str, Any]
    volumes: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Written(Run):
    """A run whose result is a file, as `batch.run_case` tells of it."""

    output: str
    removed_share: float


@dataclass(frozen=True, kw_only=True)
class Prompted(Event):
    """Strokes that were answered."""

    mask: dict[str, Any]
    seconds: float
    device: str
    notices: list[str]


@dataclass(frozen=True, kw_only=True)
class Skipped(Event):
    """A result that is there already."""

    output: str
    skipped: str


@dataclass(frozen=True, kw_only=True)
class Listed(Event):
    """The cases in a folder."""

    cases: list[dict[str, Any]]
