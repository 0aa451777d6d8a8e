"""Comparisons as Markdown: what was trained, how it scored, how it differs, how it stands degraded images."""

from __future__ import annotations

from collections.abc import Sequence

METRICS = {"dice": "Dice", "iou": "IoU"}


def comparison_text(content: dict) -> str:
    """The Markdown of a comparison (content of comparison.json), without a heading."""
    parts = [setting_text(content), variants_table(content), differences_table(content)]
    if content["degradations"]:
        parts.append(degradations_table(content))
    return "\n\n".join(parts)


def measure_name(measure: str) -> str:
    """'iou_labelled' -> 'IoU, images with a label'."""
    metric, _, labelled = measure.partition("_")
    return METRICS[metric] + (", images with a label" if labelled else "")


def setting_text(content: dict) -> str:
    """What all variants share, in a paragraph."""
    settings, cases = content["settings"], content["cases"]
    grid = f"images resized to {times(settings['resize'])}, " if settings["resize"] else ""
    text = (
        f"{content['title']}: {' and '.join(content['data'])}, {cases} cases of the {content['split']} split"
        + (f", {content['labelled']} of them with a label" if content["labelled"] < cases else "")
        + f". Every variant: stages of {', '.join(map(str, settings['features']))} channels, {grid}patches of "
        f"{times(settings['patch_size'])}, {settings['steps']} steps of {settings['batch_size']} patches, "
        f"{settings['optimizer']} at {settings['learning_rate']:g}; trained on {', '.join(content['hardware'])}. "
        f"{differing(content)}. Intervals are 95 %, from resampling seeds and cases."
    )
    if content["missing"]:
        text += f" Not finished: {', '.join(content['missing'])}."
    if content["labelled"] < cases:
        text += " On images without a label, finding nothing counts as 1 and finding anything as 0."
    return text


def differing(content: dict) -> str:
    """What tells the variants' networks apart, and what is alike."""
    named = {entry for found in content["variants"].values() for entry in found["network"]}
    parts, own = ("skip and bottleneck", "gates and bottleneck") if "bottleneck" in named else ("skip", "gates")
    same = f"one seed means the same patches and the same initial weights outside the {own}"
    return f"Variants differ in the {parts} alone; {same}"


def variants_table(content: dict) -> str:
    measures = [measure for measure in content["variants"][content["reference"]] if measure.split("_")[0] in METRICS]
    alarms = content["labelled"] < content["cases"]
    late = any(found.get("late_gain") is not None for found in content["variants"].values())
    heads = ["variant", "seeds", "weights", "s of training", *map(measure_name, measures)]
    heads += ["val Dice gained in the last third"] * late
    heads += ["false alarms"] * alarms + ["exact zeros, coarse to fine"]
    rows = []
    for name, found in content["variants"].items():
        row = [name, len(found["seeds"]), f"{found['parameters']:,}", found["seconds"]]
        row += [with_interval(found[measure]) for measure in measures]
        row += ["" if found["late_gain"] is None else signed(found["late_gain"])] if late else []
        row += [percent(found["false_alarms"])] if alarms else []
        row.append(", ".join(percent(share) for share in found["zeros"]) or "no gate")
        rows.append(row)
    return table(heads, rows)


def differences_table(content: dict) -> str:
    rows = []
    for row in content["differences"]:
        for measure, found in row.items():
            if measure.split("_")[0] in METRICS:
                seeds = ", ".join(signed(mean) for mean in found["seeds"])
                pair = f"{row['variant']} - {row['reference']}"
                rows.append([pair, measure_name(measure), difference(found), seeds, percent(found["better"])])
    return table(["paired difference", "of", "mean (interval)", "by seed", "cases where it is higher"], rows)


def degradations_table(content: dict) -> str:
    """Means of each variant, and in brackets what it differs from the reference."""
    measure, reference = content["measure"], content["reference"]
    rows = []
    for row in content["degradations"]:
        differences = {d["variant"]: d[measure] for d in row["differences"] if d["reference"] == reference}
        cells = [f"{row['kind']} {row['level']:g}"]
        for name, found in row["variants"].items():
            cell = f"{found[measure]['mean']:.4f}"
            if name in differences:
                low, high = differences[name]["interval"]
                cell += f" ({signed(differences[name]['mean'])}, {signed(low)} to {signed(high)})"
            cells.append(cell)
        rows.append(cells)
    return table([f"{measure_name(measure)} (difference to {reference})", *content["variants"]], rows)


def table(heads: Sequence[str], rows: Sequence[Sequence]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def with_interval(found: dict) -> str:
    return f"{found['mean']:.4f} ({found['interval'][0]:.4f} to {found['interval'][1]:.4f})"


def difference(found: dict) -> str:
    return f"{signed(found['mean'])} ({signed(found['interval'][0])} to {signed(found['interval'][1])})"


def signed(value: float) -> str:
    return f"{value:+.4f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
