"""The figure of a comparison: differences from the reference, and scores over the strength of each degradation."""

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
    figure = Figure(figsize=(3.6 + 2.6 * len(kinds), 3.0), layout="constrained")
    widths = [1.4, *(1 for _ in kinds)]
    first, *rest = figure.subplots(1, 1 + len(kinds), width_ratios=widths, squeeze=False)[0]
    styles = {
        name: {"color": COLORS[n % len(COLORS)], "marker": MARKERS[n % len(MARKERS)]}
        for n, name in enumerate(content["variants"])
    }
    draw_differences(first, content, styles)
    for axes, kind in zip(rest, kinds, strict=True):
        draw_curves(axes, content, kind, styles)
        axes.sharey(rest[0])
    if rest:
        rest[0].set_ylabel(measure_name(content["measure"]))
        rest[0].legend(fontsize=6, frameon=False)
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


def draw_curves(axes, content: dict, kind: str, styles: dict) -> None:
    """Mean scores with 95 % intervals over the levels of one degradation, beginning with the clean images."""
    rows = [row for row in content["degradations"] if row["kind"] == kind]
    levels = [0, *(row["level"] for row in rows)]
    for name, style in styles.items():
        found = [values[name][content["measure"]] for values in (content["variants"], *(r["variants"] for r in rows))]
        axes.plot(levels, [value["mean"] for value in found], label=name, markersize=3, linewidth=1, **style)
        low, high = zip(*(value["interval"] for value in found), strict=True)
        axes.fill_between(levels, low, high, color=style["color"], alpha=0.12, linewidth=0)
    axes.set_xlabel(DEGRADATIONS[kind], fontsize=7)
    axes.tick_params(labelsize=7)


def save(figure: Figure, path: Path) -> None:
    """With few colours: a third of the size."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    picture = Picture.open(stream).convert("RGB").quantize(64, dither=Picture.Dither.NONE)
    picture.save(path, "PNG", optimize=True)
