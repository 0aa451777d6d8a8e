"""The page of a cohort: how far it has come, its segments, the cases that the model was least sure of, all rows."""

from __future__ import annotations

import base64
import html
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..files import as_utf8, replaced_when_whole
from ..image.tags import quality_in_words
from .least_sure import Shown, pictures_of, uncertainty
from .report import EDITED
from .tables import Rows, spread

MOST_ROWS = 5000  # of a table on the page: what a browser shows without waiting
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 2em } th, td { padding: .2em .7em; text-align: left }
th { border-bottom: 2px solid #888 } td { border-bottom: 1px solid #ddd } td.n { text-align: right }
tr.failed td { background: #fdecea } tr.edited td { background: #fff6dd } tr.missing td { background: #eee }
figure { display: inline-block; margin: 0 1.5em 1.5em 0; vertical-align: top; max-width: 45em }
figure img { display: block; max-width: 100% } figcaption { margin: .3em 0 } b.mark { padding: 0 .6em; margin: 0 .4em 0 1em }
"""


def write_html(path: Path, title: str, summary: str, rows: Rows, failures: Rows, doubtful: Sequence[dict]) -> None:
    """One page that needs nothing else; whole or not at all. `doubtful`: the cases to show with pictures."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    parts = itertools.chain(
        [f"<!DOCTYPE html>\n<html><head>{head}</head><body>", f"<h1>{html.escape(title)}</h1>"],
        [f"<p>{html.escape(summary)}</p>"],
        _table("Segments", spread(rows)),
        _long_table("Failed", failures),
        _figures(pictures_of(doubtful)),
        _long_table("Cases", rows, lambda row: row["state"]),
        ["</body></html>"],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{as_utf8(part)}\n" for part in parts)


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


def _long_table(title: str, rows: Rows, kind: Callable[[dict], str] = lambda row: "") -> Iterator[str]:
    yield from _table(title, itertools.islice(rows, MOST_ROWS), kind)
    if len(rows) > MOST_ROWS:
        yield f"<p>The first {MOST_ROWS} of {len(rows)} rows; all of them are in the table that --csv writes.</p>"


def _table(title: str, rows: Iterable[dict], kind: Callable[[dict], str] = lambda row: "") -> Iterator[str]:
    count = 0
    for count, row in enumerate(rows, start=1):
        if count == 1:
            head = "".join(f"<th>{html.escape(column.replace('_', ' '))}</th>" for column in row)
            yield f"<h2>{title}</h2>\n<table><tr>{head}</tr>"
        yield f'<tr class="{kind(row)}">{"".join(map(_cell, row.values()))}</tr>'
    if count:
        yield "</table>"


def _cell(value) -> str:
    if isinstance(value, (int, float)):
        return f'<td class="n">{value:.6g}</td>' if isinstance(value, float) else f'<td class="n">{value}</td>'
    return f"<td>{html.escape('' if value is None else str(value))}</td>"
