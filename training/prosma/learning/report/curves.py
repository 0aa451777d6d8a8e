"""The figure of a comparison: paired differences, and scores and differences over the strength of each degradation."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image as Picture

from .tables import measure_name

COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2")  # Okabe and Ito's, for all eyes
MARKERS = "osD^vPX"
DEGRADATIONS = {
    "noise": "Gaussian noise, share of the range",
    "speckle": "speckle, share of the intensity",
    "contrast": "lost contrast, share",
}


def draw(content: dict, path: Path) -> None:
    """Draw a comparison (content of comparison.json) as PNG."""
    kinds = list(dict.fromkeys(row["kind"] for row in content["degradations"]))
    figure = Figure(figsize=(3.8 + 2.5 * len(kinds), 4.6 if kinds else 2.6), layout="constrained")
    grid = figure.add_gridspec(2, 1 + len(kinds), width_ratios=[1.4, *(1 for _ in kinds)])
    styles = {
        name: {"color": COLORS[n % len(COLORS)], "marker": MARKERS[n % len(MARKERS)]}
        for n, name in enumerate(content["variants"])
    }
    draw_differences(figure.add_subplot(grid[:, 0]), content, styles)
    upper = lower = None
    for column, kind in enumerate(kinds, start=1):
        upper = figure.add_subplot(grid[0, column], sharey=upper)
        lower = figure.add_subplot(grid[1, column], sharey=lower, sharex=upper)
        draw_scores(upper, content, kind, styles)
        draw_curves_of_differences(lower, content, kind, styles)
        lower.set_xlabel(DEGRADATIONS[kind], fontsize=7)
        if column == 1:
            upper.set_ylabel(measure_name(content["measure"]), fontsize=7)
            lower.set_ylabel(f"difference to {content['reference']}", fontsize=7)
            upper.legend(fontsize=6, frameon=False)
    save(figure, path)


def draw_differences(axes, content: dict, styles: dict) -> None:
    """One point with its 95 % interval for each pair, the first one on top."""
    rows = content["differences"]
    for place, row in enumerate(rows):
        found = row[content["measure"]]
        low, high = found["interval"]
        reach = [[max(0, found["mean"] - low)], [max(0, high - found["mean"])]]
        axes.errorbar(found["mean"], -place, xerr=reach, capsize=2, **styles[row["variant"]])
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_yticks([-place for place in range(len(rows))])
    axes.set_yticklabels([f"{row['variant']}\n- {row['reference']}" for row in rows], fontsize=7)
    axes.set_ylim(-max(1, len(rows)) + 0.5, 0.5)
    axes.set_xlabel(f"difference in {measure_name(content['measure'])}", fontsize=7)
    axes.tick_params(axis="x", labelsize=7)


def draw_scores(axes, content: dict, kind: str, styles: dict) -> None:
    """Mean scores over the levels of one degradation, beginning with the clean images."""
    rows = [row for row in content["degradations"] if row["kind"] == kind]
    for name in content["variants"]:
        found = [values[name][content["measure"]] for values in (content["variants"], *(r["variants"] for r in rows))]
        draw_curve(axes, rows, found, styles[name], name, band=False)


def draw_curves_of_differences(axes, content: dict, kind: str, styles: dict) -> None:
    """Paired differences to the reference over the same levels, with their 95 % intervals."""
    rows = [row for row in content["degradations"] if row["kind"] == kind]
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    for place, pair in enumerate(content["differences"]):
        if pair["reference"] == content["reference"]:
            lists = (content["differences"], *(row["differences"] for row in rows))
            found = [differences[place][content["measure"]] for differences in lists]
            draw_curve(axes, rows, found, styles[pair["variant"]], pair["variant"], band=True)


def draw_curve(axes, rows: list[dict], found: list[dict], style: dict, label: str, band: bool) -> None:
    """``found`` holds mean and interval on clean images and for each of ``rows``."""
    levels = [0, *(row["level"] for row in rows)]
    axes.plot(levels, [value["mean"] for value in found], label=label, markersize=3, linewidth=1, **style)
    if band:
        low, high = zip(*(value["interval"] for value in found), strict=True)
        axes.fill_between(levels, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.tick_params(labelsize=7)


def save(figure: Figure, path: Path) -> None:
    """With few colours: a third of the size."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    picture = Picture.open(stream).convert("RGB").quantize(64, dither=Picture.Dither.NONE)
    picture.save(path, "PNG", optimize=True)
