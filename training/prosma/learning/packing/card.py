"""The model card: what a package says about itself, from the records of its run and its evaluation alone."""

from __future__ import annotations

from collections.abc import Sequence

from ...network.unet import SMALL
from ..recipe import Recipe

LIMITS = (
    "## Limits",
    "",
    "For research. Not a medical device: a person has to check every result. Images unlike the training data "
    "(other sequences, fields of view, pathology) can give wrong results without any warning.",
)
SEEN = {
    "train": "which it was trained on",
    "val": "by which settings may have been chosen",
    "test": "which neither training nor any choice has seen",
}


def results(report: dict) -> dict:
    """The part of an evaluation that belongs in model.json. Distances only where voxel sizes in mm are real."""
    found = {name: report[name] for name in ("data", "split", "cases")}
    metrics = ("dice", "iou", "hd95", "nsd") if report["surface"]["unit"] == "mm" else ("dice", "iou")
    for metric in metrics:
        found[metric] = {
            "mean": report["mean"][metric],
            "interval": report["mean"][f"{metric}_interval"],
            **{name: values[metric] for name, values in report["labels"].items()},
        }
    if "nsd" in found:
        found["nsd_tolerance_mm"] = report["surface"]["nsd_tolerance"]
    if report["pooled"]:
        found["pooled"] = report["pooled"]["mean"]
    presence = {name: values for name, values in report["presence"].items() if values["cases_without"]}
    if presence:
        found["presence"] = presence
    return {**found, "gate": report["gate"]}


def model_card(model: dict, recipes: Sequence[Recipe]) -> str:
    """README.md of a package that runs of these recipes made."""
    lines = [
        *description_lines(model),
        *training_lines(model["training"], recipes),
        "",
        *licence_lines(model),
        *(results_text(model) if "results" in model else []),
        *LIMITS,
    ]
    return "\n".join(lines) + "\n"


def training_lines(training: dict, recipes: Sequence[Recipe]) -> list[str]:
    """How long each set of weights was trained, and what tells it from the others."""
    lengths = [f"{recipe.fitting.epochs} epochs of {recipe.fitting.iterations} steps" for recipe in recipes]
    time = f"{training['seconds'] / 60:.0f} minutes on {training['hardware']}"
    if len(recipes) == 1:
        return [f"- Trained for {lengths[0]}, {time}"]
    return [
        f"- Trained for {time} in all",
        *(
            f"- Set {number}: fold {recipe.fitting.fold}, seed {recipe.fitting.seed}, {length}"
            for number, (recipe, length) in enumerate(zip(recipes, lengths, strict=True), start=1)
        ),
        "- Whether an image fits is told, if at all, by features of the first set, and the expected quality by the averaged "
        "answer",
    ]


def tuned_card(model: dict) -> str:
    """README.md of a package that fine-tuning made. It has no results: its parent's were measured with other weights."""
    lines = [
        *description_lines(model),
        "",
        "## Fine-tuning",
        "",
        *(tuning_line(record) for record in model["fine_tuning"]),
        "",
        "This model has no test results. Those of the model that it was made from were measured with other weights and do "
        "not hold for it; the preview picture is that model's too. Measure it on labelled cases of your own: "
        "`prosma evaluate PACKAGE --data DIR`.",
        "",
        *licence_lines(model),
        *LIMITS,
    ]
    return "\n".join(lines) + "\n"


def tuning_line(record: dict) -> str:
    """From what, on what and how a package was fine-tuned."""
    parent = record["parent"]
    replayed = f" and {record['replayed_cases']} of the original ones" if record["replayed_cases"] else ""
    return (
        f"- From `{parent['id']}` {parent['version']} (sha256 of its weights {parent['sha256']}) on {record['cases']} "
        f"corrected cases{replayed}: {record['steps']} steps of {record['batch_size']} patches, learning rate "
        f"{record['learning_rate']:g}, seed {record['seed']}, {record['seconds']} s on {record['hardware']}. "
        f"The weights are {100 * record['keep']:.0f} % those of `{parent['id']}` and {100 - 100 * record['keep']:.0f} % "
        "what became of them."
    )


def description_lines(model: dict) -> list[str]:
    """What a model is, what it takes and what it finds."""
    network, weights = model["network"], model["weights"]
    return [
        f"# {model['name']}, version {model['version']}",
        "",
        model["description"].strip(),
        "",
        f"- Segments: {', '.join(label['name'] for label in model['labels'])}",
        f"- Input: {model['modality']}, {model['dimension']}D, channels: "
        f"{', '.join(channel['name'] for channel in model['channels'])}",
        f"- Network: ProSMA-UNet, stages of {', '.join(map(str, network.get('features', SMALL)))} channels, skip "
        f"'{network.get('skip', 'prosma')}', gate '{network.get('gate', 'box')}', field on the "
        f"{network.get('field_grid', 'skip')}'s grid" + bottleneck_text(network) + weights_text(weights),
        *one_piece_lines(model),
    ]


def one_piece_lines(model: dict) -> list[str]:
    """Of which structures parts that lie apart are left out."""
    names = {label["value"]: label["name"] for label in model["labels"]}
    groups = [" with ".join(names[value] for value in group) for group in model.get("one_piece") or []]
    return [f"- Only the largest connected part is kept of: {', '.join(groups)}"] if groups else []


def bottleneck_text(network: dict) -> str:
    """What stands between encoder and decoder, if anything does."""
    if network.get("bottleneck", "none") == "none":
        return ""
    return f", {network.get('bottleneck_blocks', 2)} attention blocks at the coarsest stage"


def weights_text(weights: dict) -> str:
    """How many weights a package has, and in how many sets."""
    kind = "in 8 bits" if weights.get("dtype") == "int8" else "in half precision"
    count = f"; {weights['parameters']:,} weights {kind}" if weights.get("parameters") else ""
    sets = weights.get("sets", 1)
    return count + (f"; {sets} sets of weights, whose class probabilities are averaged" if sets > 1 else "")


def licence_lines(model: dict) -> list[str]:
    training = model["training"]
    return [
        "## Training data, licence, citation",
        "",
        f"- Data: {training['data']}" + cases_text(training.get("cases")),
        f"- Licence of the data and of these weights: {training['licence']}",
        *(["- The licence has to be accepted before use."] if model["accept_licence"] else []),
        f"- Cite: {training['citation'].strip()}",
        "",
    ]


def cases_text(cases: dict | None) -> str:
    if not cases:
        return ""
    return " (" + ", ".join(f"{count} cases for {name}" for name, count in cases.items()) + ")"


def results_text(model: dict) -> list[str]:
    """The section with what an evaluation found."""
    found, gate = model["results"], model["results"]["gate"]
    seen = f", {SEEN[found['split']]}" if found["split"] in SEEN else ""
    lines = [
        "## Results",
        "",
        f"On the {found['cases']} cases of the {found['split']} split of {found['data']}{seen}. Mean over cases, in "
        "brackets its 95 % interval (bootstrap).",
        "",
        *table(found, [label["name"] for label in model["labels"]]),
        "",
    ]
    if "pooled" in found:
        pooled = found["pooled"]
        lines += [
            f"Over all pixels of all images together: IoU {number(pooled['iou'])}, F1 {number(pooled['f1'])}.",
            "",
        ]
    for name, values in found.get("presence", {}).items():
        lines += [presence_text(name, values), ""]
    seconds = next(model["seconds"][kind] for kind in ("cpu", "cuda") if model["seconds"][kind] is not None)
    lines += [f"Seconds per case: {seconds:.2f} ({model['seconds']['hardware']}).", ""]
    if gate["levels"]:
        shares = ", ".join(f"{100 * level['zeros']:.1f} %" for level in gate["levels"])
        lines += [
            f"The gates set {100 * gate['removed_share']:.1f} % of the skip features to exactly zero "
            f"(per level, coarse to fine: {shares}).",
            "",
        ]
    return lines


def table(found: dict, names: list[str]) -> list[str]:
    """Markdown: a row for the mean over labels where there are several, and for each label; a column for each metric."""
    heads = {"dice": "Dice", "iou": "IoU", "hd95": "HD95 (mm)", "nsd": f"NSD at {found.get('nsd_tolerance_mm')} mm"}
    columns = [metric for metric in heads if metric in found]
    lines = ["| | " + " | ".join(heads[metric] for metric in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    means = [with_interval(found[metric]["mean"], found[metric]["interval"], metric) for metric in columns]
    if len(names) == 1:
        return [*lines, "| " + " | ".join([names[0], *means]) + " |"]
    rows = {name: [number(found[metric][name], metric) for metric in columns] for name in names}
    return [
        *lines,
        *("| " + " | ".join([name, *row]) + " |" for name, row in {"mean over labels": means, **rows}.items()),
    ]


def number(value: float | None, metric: str = "") -> str:
    if value is None:
        return "undefined"
    return f"{value:.2f}" if metric == "hd95" else f"{value:.4f}"


def with_interval(value: float | None, interval: list[float] | None, metric: str = "") -> str:
    if interval is None:
        return number(value, metric)
    return f"{number(value, metric)} ({number(interval[0], metric)} to {number(interval[1], metric)})"


def presence_text(name: str, values: dict) -> str:
    """How it did on cases that have a label, and how often it found one where there is none."""
    alarms = (
        f"In {values['cases_without']} cases without {name}: {values['false_alarms']} false alarms, which count as Dice 0 "
        "above; the others have no Dice."
    )
    if not values["cases"]:
        return alarms
    iou = with_interval(values["iou"], values["iou_interval"])
    return f"In {values['cases']} cases with {name}: Dice {number(values['dice'])}, IoU {iou}. {alarms}"
