"""The page of a cohort: how far it has come, its segments, the cases that the model was least sure of, all rows."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path

from ..files import write_text
from ..image.tags import quality_in_words
from .least_sure import Shown, least_sure, pictures_of, uncertainty
from .report import EDITED, rows_of
from .tables import spread, summary

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 2em } th, td { padding: .2em .7em; text-align: left }
th { border-bottom: 2px solid #888 } td { border-bottom: 1px solid #ddd } td.n { text-align: right }
tr.failed td { background: #fdecea } tr.edited td { background: #fff6dd } tr.missing td { background: #eee }
figure { display: inline-block; margin: 0 1.5em 1.5em 0; vertical-align: top; max-width: 45em }
figure img { display: block; max-width: 100% } figcaption { margin: .3em 0 } b.mark { padding: 0 .6em; margin: 0 .4em 0 1em }
"""


def write_html(path: Path, report: dict, pictures: int = 0) -> None:
    """One page that needs nothing else; with pictures of so many cases at most."""
    rows = rows_of(report)
    parts = [
        f"<h1>{html.escape(report['folder'])}</h1>",
        f"<p>{html.escape(summary(report))}</p>",
        *_table("Segments", spread(rows)),
        *_table("Failed", [failure_row(case) for case in report["cases"] if "error" in case]),
        *_figures(pictures_of(least_sure(report["cases"], pictures))),
        *_table("Cases", rows, lambda row: row["state"]),
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(report["folder"])}</title><style>{STYLE}</style>'
    write_text(path, f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n" + "\n".join(parts) + "\n</body></html>\n")


def failure_row(case: dict) -> dict:
    return {"case": case["case"], "why": case["error"]["message"]}


def _figures(shown: Sequence[Shown]) -> list[str]:
    if not shown:
        return []
    known = any(uncertainty(each.case) is not None for each in shown)
    how = "" if known else "<p>How uncertain the model was is noted by prosma segment --statistics.</p>"
    return ["<h2>Least sure</h2>", how, *map(_figure, shown)]


def _figure(shown: Shown) -> str:
    name, caption = html.escape(shown.case["case"]), html.escape(" ".join(reasons(shown.case)))
    if shown.picture is None:
        return f"<figure><figcaption>{name}: {caption} No picture: {html.escape(shown.reason)}</figcaption></figure>"
    data = base64.b64encode(shown.picture).decode()
    marks = "".join(_mark(label) for label in shown.labels)
    return (
        f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{name}: {caption}{marks}</figcaption>'
        "</figure>"
    )


def _mark(label: dict) -> str:
    red, green, blue = label["color"]
    return f'<b class="mark" style="background: rgb({red}, {green}, {blue})"></b>{html.escape(label["name"])}'


def reasons(case: dict) -> list[str]:
    """Sentences on how sure the model was of a case."""
    fit, unsure = case.get("fit") or {}, uncertainty(case)
    told = [f"Expected Dice of {segment['name']}: {words}." for segment, words in expectations(case)]
    told += [] if unsure is None else [f"Mean uncertainty {unsure:.3f}."]
    if fit.get("score") is not None:
        told.append(f"Fit of the image: {fit['verdict']} ({fit['score']:.2f}).")
    told += fit.get("reasons", [])
    if case["state"] == EDITED:
        told.append("The result was edited since.")
    return told


def expectations(case: dict) -> list[tuple[dict, str]]:
    """The segments whose quality is known, worst first, with the words for it."""
    known = [segment for segment in case.get("segments") or () if segment.get("expected_dice")]
    known.sort(key=lambda segment: segment["expected_dice"]["mean"])
    return [(segment, quality_in_words(segment["expected_dice"])) for segment in known]


def _table(title: str, rows: list[dict], kind: Callable[[dict], str] = lambda row: "") -> list[str]:
    if not rows:
        return []
    head = "".join(f"<th>{html.escape(column.replace('_', ' '))}</th>" for column in rows[0])
    body = [f'<tr class="{kind(row)}">{"".join(map(_cell, row.values()))}</tr>' for row in rows]
    return [f"<h2>{title}</h2>", f"<table><tr>{head}</tr>", *body, "</table>"]


def _cell(value) -> str:
    if isinstance(value, (int, float)):
        return f'<td class="n">{value:.6g}</td>' if isinstance(value, float) else f'<td class="n">{value}</td>'
    return f"<td>{html.escape('' if value is None else str(value))}</td>"
