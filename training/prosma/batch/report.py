"""What has become of a batch, from the records of its folder: also of one that was killed, or that is still at work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..errors import EngineError
from ..image.tags import quality_word
from ..steps import finish
from .records import RECORDS, Records, file_digest

OF_THE_RUN = ("expected_dice", "presence")  # of a segment, what measuring the result afterwards cannot tell

DONE, EDITED, MISSING, FAILED = "done", "edited", "missing", "failed"


class Report:
    """The cases of a folder of results, read one after the other: a cohort has a million of them, and none is kept.

    `states`: how many of those that were read are in which state. EngineError bad_input where there are no records.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states: Counter[str] = Counter()
        self._records = Records(folder)
        if not self._records.count():
            raise EngineError(
                "bad_input", f"There is no {RECORDS} in {folder}.", "Give the folder that segment -o named."
            )

    def cases(self) -> Iterator[dict]:
        """All cases by name, once.

        Each has `case`, `output`, `state` (done, edited since, missing: done but gone since, failed), `written`, and what is
        known: `inputs`, `segments`, `seconds`, `device`, `notices`, `error`, `model`, `options`, `input` and `sha256` (the
        digests of the image and of the result). Of an edited result the segments are those that were measured since, if any.
        """
        for name in sorted(self._records.all_names()):
            lines = [line for line in self._records.about(name) if "beside" not in line]
            if lines:
                case = case_of(self.folder, name, lines)
                self.states[case["state"]] += 1
                yield case

    @property
    def not_tried(self) -> int:
        """How many cases of the last batch have no line, when all have been read."""
        return max(0, self._records.cases_begun() - self.states.total())


def case_of(folder: Path, name: str, lines: list[dict]) -> dict:
    """One case, by its lines, oldest first."""
    results = [line for line in lines if "sha256" in line]
    last = lines[-1]
    file = folder / name
    case = {"case": name, "written": last["written"]}
    if not results:
        return {**case, **last.get("report", {}), "output": str(file), "state": FAILED, "error": last.get("error")}
    digest = finish(file_digest([file])) if file.exists() else None
    ours = next((line for line in reversed(results) if line["sha256"] == digest), None)
    made = ours or results[-1]
    origin = made["origin"]
    case |= {**made.get("report", {}), "output": str(file), "written": made["written"], "sha256": digest}
    case |= {"model": origin["model"], "options": origin["options"], "input": origin["input"]}
    case["state"] = DONE if ours else MISSING if digest is None else EDITED
    measured = [line["segments"] for line in lines if digest is not None and line.get("measured") == digest]
    if measured:
        told = {each["value"]: each for each in case.get("segments", ())} if ours else {}
        case["segments"] = [
            {**each, **{name: told.get(each["value"], {}).get(name) for name in OF_THE_RUN}} for each in measured[-1]
        ]
    elif case["state"] == EDITED:
        case["segments"] = []
    if "error" in last:  # what was there before stays, but the last attempt failed
        case["error"] = last["error"]
    return case


def rows_of(case: dict) -> Iterator[dict]:
    """A flat row for each segment of a case, for tables; one for a case without segments."""
    facts = facts_of(case)
    for segment in case.get("segments") or [{}]:
        yield {**{key: facts[key] for key in ("case", "state")}, **numbers_of(segment), **facts}


def facts_of(case: dict) -> dict:
    """What all rows of a case share."""
    model, fit = case.get("model") or {}, case.get("fit") or {}
    return {
        "case": case["case"],
        "state": case["state"],
        "error": (case.get("error") or {}).get("message"),
        "notices": " ".join(case.get("notices", [])) or None,
        "fit": fit.get("verdict"),
        "fit_score": fit.get("score"),
        "fit_reasons": " ".join(fit.get("reasons", [])) or None,
        "seconds": (case.get("seconds") or {}).get("total"),
        "device": case.get("device"),
        "model": model.get("id"),
        "version": model.get("version"),
        "model_sha256": model.get("sha256"),
        "input_sha256": case.get("input"),
        "result_sha256": case.get("sha256"),
        "written": case["written"],
        "output": case["output"],
        "inputs": " ".join(case.get("inputs", [])) or None,
    }


def numbers_of(segment: dict) -> dict:
    """The measures of one segment in columns of plain numbers."""
    row = {"segment": segment.get("name"), "label": segment.get("value"), "voxels": segment.get("voxels")}
    row["ml"] = segment.get("ml")
    dice = segment.get("expected_dice") or {}
    row |= {
        "quality": quality_word(dice) or None,
        "expected_dice": dice.get("mean"),
        "expected_dice_from": dice.get("low"),
        "expected_dice_to": dice.get("high"),
        "presence": segment.get("presence"),
    }
    for key in ("surface_mm2", "boundary_mm", "boundary_pixels"):
        if key in segment:
            row[key] = segment[key]
    for key, letters in (("centroid_ras", "ras"), ("centroid_ij", "ij")):
        if key in segment:
            row |= {f"centroid_{letter}": n for letter, n in zip(letters, segment[key] or [None] * 3, strict=False)}
    if "box" in segment:
        for axis, (low, high) in zip("ijk", segment["box"] or [(None, None)] * 3, strict=True):
            row |= {f"{axis}_low": low, f"{axis}_high": high}
    if "uncertainty" in segment:
        row["uncertainty"] = segment["uncertainty"]
    for key in ("mean", "deviation"):
        values = segment.get(key) or []
        row |= {key if len(values) == 1 else f"{key}_{number}": value for number, value in enumerate(values, start=1)}
    return row
