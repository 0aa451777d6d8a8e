"""Which series are wanted: what a server is asked, and what of its answer is kept.

Servers differ in what they match: some ignore a key, some do not decode what an address encodes. So they are asked
coarsely, and every series that they name is compared here as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import EngineError

STUDY_KEYS = ("PatientID", "StudyInstanceUID", "StudyDate", "StudyDescription", "AccessionNumber")
SERIES_KEYS = ("Modality", "SeriesDescription", "BodyPartExamined", "SeriesInstanceUID")
UNSAFE = re.compile(r"[^A-Za-z0-9.*_-]+")
DATE = re.compile(r"(\d{8})?(-(\d{8})?)?")


@dataclass(frozen=True)
class Series:
    """One series on a server; `images`: how many it has there, 0 where that is not told."""

    study: str
    uid: str
    modality: str = ""
    description: str = ""
    study_description: str = ""
    date: str = ""
    images: int = 0

    @property
    def path(self) -> str:
        """Its place below the server's address."""
        return f"studies/{self.study}/series/{self.uid}"


class Query:
    """Wanted values by DICOM keyword: of STUDY_KEYS and SERIES_KEYS, with `*` and `?`; a date is one or a range A-B."""

    def __init__(self, wanted: Mapping[str, str]) -> None:
        self.wanted = {key: value for key, value in wanted.items() if value}
        date = self.wanted.get("StudyDate", "")
        if date and (not DATE.fullmatch(date) or date == "-"):
            reason = f"'{date}' is no date."
            raise EngineError(
                "bad_input", reason, "Say YYYYMMDD, or a range: YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD."
            )

    def for_server(self, keys: tuple[str, ...]) -> dict[str, str]:
        """The keys as a server is asked: whatever an address would have to encode is a wildcard."""
        asked = {key: UNSAFE.sub("*", self.wanted[key]) for key in keys if key in self.wanted}
        return {key: value for key, value in asked.items() if value.strip("*")}

    def matches(self, found: Mapping[str, str | None]) -> bool | None:
        """Whether a series' values, by keyword, are wanted; None where one that decides is not told."""
        unknown = False
        for key, value in self.wanted.items():
            told = found.get(key)
            if told is None:
                unknown = True
            elif not (in_range(told, value) if key == "StudyDate" else like(told, value)):
                return False
        return None if unknown else True


def like(value: str, pattern: str) -> bool:
    """DICOM's matching with `*` and `?`, whatever the case of letters."""
    expression = "".join({"*": ".*", "?": "."}.get(letter) or re.escape(letter) for letter in pattern.strip())
    return re.fullmatch(expression, value.strip(), re.IGNORECASE | re.DOTALL) is not None


def in_range(date: str, wanted: str) -> bool:
    """Whether a date YYYYMMDD is the one wanted, or in the range A-B, both included, of which one may be missing."""
    low, dash, high = wanted.partition("-")
    return bool(date) and (low or "0") <= date <= ((high or "9") if dash else low)


def values_of(answer: Mapping[str, dict], keys: Mapping[str, str]) -> dict[str, str | None]:
    """Values by keyword, of DICOM JSON by tag; `keys`: the tag of each keyword. None for what is not told."""
    found: dict[str, str | None] = {}
    for keyword, tag in keys.items():
        values = answer[tag].get("Value", [""]) if tag in answer else [None]
        found[keyword] = None if values[:1] in ([None], []) else str(values[0])
    return found
