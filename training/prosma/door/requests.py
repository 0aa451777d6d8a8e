"""What the worker can be asked: a dataclass for each request, from which its checks and its errors come.

docs/door.md describes them. A line on stdin is one request; a request with a field that it does not have is refused, because
a misspelt option would go unnoticed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from ..contracts import Items, Mismatch, Missing, Numbers, Text, check
from ..errors import bad_request

JobId = Annotated[str, Text(200)] | Annotated[int, Numbers(-(2**53), 2**53)]
PathText = Annotated[str, Text(4096, r"^[^\x00]+$", "a path", any_bytes=True)]
FileName = Annotated[str, Text(255, r"^(?!\.{1,2}$)[^/\\\x00]+$", "the name of a file in the job's folder")]
Voxel = Annotated[int, Numbers(-(2**31), 2**31)]
Matrix = Annotated[list[Annotated[list[float], Items(4, 4)]], Items(4, 4)]
Box = Annotated[list[Annotated[list[Voxel], Items(2, 2)]], Items(3, 3)]


@dataclass(frozen=True)
class ChannelFile:
    """A channel of the image: a `.npy` file in the job's folder, (K, J, I) or (K, J, I, components), and its place in mm.

    `modality`: what its DICOM header calls its kind, such as "CT"; empty where that is not known.
    """

    OTHERS: ClassVar[Any] = None

    file: FileName
    ijk_to_ras: Matrix
    modality: Annotated[str, Text(16)] = ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What all requests have."""

    OTHERS: ClassVar[Any] = None

    id: JobId


@dataclass(frozen=True, kw_only=True)
class Describe(Request):
    """Load the package at this path and keep it loaded."""

    do: Literal["describe"]
    model: PathText
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Segment(Request):
    """Segment one case."""

    do: Literal["segment"]
    model: PathText
    device: str = "auto"
    folder: PathText | None = None
    channels: Annotated[list[ChannelFile], Items(0, 64)] | None = None
    images: Annotated[list[PathText], Items(1, 64)] | None = None
    series: list[str] | None = None
    output: PathText | None = None
    input: str | None = None
    roi: Box | None = None
    overlap: Annotated[float, Numbers(0, 0.9)] | None = None
    mirror: bool = False
    force: bool = False
    outputs: Annotated[list[Literal["probabilities", "uncertainty", "gate_map"]], Items(0, 3, True)] | None = None


@dataclass(frozen=True)
class PartFile:
    """An array (K, J, I) of a part of the image's grid: a `.npy` file in the job's folder, and its first voxel's i, j, k.

    `elsewhere`: the value outside of it.
    """

    OTHERS: ClassVar[Any] = None

    file: FileName
    offset: Annotated[list[Voxel], Items(3, 3)]
    elsewhere: Annotated[float, Numbers(-100, 100)] = 0.0


@dataclass(frozen=True, kw_only=True)
class Prompt(Request):
    """Answer strokes."""

    do: Literal["prompt"]
    model: PathText
    device: str = "auto"
    folder: PathText
    channels: Annotated[list[ChannelFile], Items(1, 64)]
    number: Annotated[int, Numbers(0, 2**53)] = 0
    add: PartFile | None = None
    remove: PartFile | None = None
    region: PartFile | None = None
    box: Box | None = None
    earlier_add: PartFile | None = None
    earlier_remove: PartFile | None = None
    mask: PartFile | None = None
    log_odds: PartFile | None = None
    fine: bool = True


@dataclass(frozen=True, kw_only=True)
class Cases(Request):
    """List the cases in a folder."""

    do: Literal["cases"]
    images: PathText
    output: PathText
    format: str = ".seg.nrrd"
    channels: Annotated[int, Numbers(1, 64)] = 1
    colours: bool = False


@dataclass(frozen=True, kw_only=True)
class Cancel(Request):
    """Drop a queued job, or stop the running one."""

    do: Literal["cancel"]
    job: JobId


@dataclass(frozen=True, kw_only=True)
class Shutdown(Request):
    """End."""

    do: Literal["shutdown"]


AnyRequest = Describe | Segment | Prompt | Cases | Cancel | Shutdown


def parsed(line: bytes) -> AnyRequest:
    """The request in a line. EngineError `bad_input` that names what is wrong with it."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise bad_request("A line on stdin is not JSON.") from None
    if not isinstance(content, dict):
        raise bad_request('A request is a JSON object with "id" and "do".')
    try:
        request: AnyRequest = check(AnyRequest, content)
        if isinstance(request, Segment):
            check_segment(request)
    except Mismatch as error:
        raise bad_request(f"The request cannot be done: {error.message}") from None
    return request


def check_segment(request: Segment) -> None:
    """Mismatch where a request to segment says neither what, nor where to."""
    if request.images is None and not request.channels:
        raise Missing("channels", "a list of the image's channels, unless there are 'images'")
    if request.folder is None and (request.images is None or request.output is None):
        raise Missing("folder", "a path, unless there are 'images' and 'output'")
    if request.output is not None and request.images is None and request.input is None:
        raise Missing("input", "the digest of the image, for it is no file")


def id_of(line: bytes) -> str | int | None:
    """The id in a malformed request, if it has one that can be read."""
    try:
        content = json.loads(line)
        return check(JobId, content["id"]) if isinstance(content, dict) else None
    except (ValueError, KeyError, RecursionError, Mismatch):
        return None
