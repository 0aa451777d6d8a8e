"""From a run to a model package: averaged half-precision weights, model card and preview from the run's own records."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import torch
from safetensors.torch import save

from ..bundle import ModelPackage, write_package
from ..segmenter import Segmenter
from .dataset import Case, LabelledFolder, read_case
from .evaluation import evaluate
from .files import write_json
from .pictures import SliceView
from .recipe import Recipe, RecipeError

PREVIEW_SIZE = 256
PREFIX = "average.module."


def averaged_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The moving average in a checkpoint, half precision, without the heads that only training needs."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)["state_dict"]
    return {
        name.removeprefix(PREFIX): tensor.half().contiguous()
        for name, tensor in state.items()
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}auxiliary_heads.")
    }


def export(
    run: str | os.PathLike,
    package: str | os.PathLike,
    data: str | os.PathLike | None = None,
    split: str = "test",
    progress=lambda done, total, case: None,
) -> ModelPackage:
    """Write the package of a run. With ``data`` it is evaluated on ``split`` and the card says how it did.

    Raises RecipeError when the folder holds no finished run.
    """
    run = Path(run)
    checkpoint = run / "last.ckpt"
    if not checkpoint.is_file() or not (run / "recipe.json").is_file():
        raise RecipeError(f"'{run}' holds no run: train one first (prosma train RECIPE --data DIR --out {run}).")
    recipe = Recipe.from_dict(json.loads((run / "recipe.json").read_text(encoding="utf-8")))
    weights = averaged_weights(checkpoint)
    model = {
        "schema": 1,
        **recipe.model,
        "network": recipe.network_arguments,
        "weights": {"dtype": "float16", "parameters": sum(tensor.numel() for tensor in weights.values())},
    }
    history = json.loads((run / "history.json").read_text(encoding="utf-8"))
    model["training"] = {**model["training"], "seconds": history["seconds"], "hardware": history["hardware"]}
    preview = None
    if data is not None:
        folder = LabelledFolder.open(data)
        model["training"]["cases"] = {name: len(ids) for name, ids in folder.splits.items()}
        draft = write_package(run / "package", model, save(weights), "")
        report = evaluate(draft, data, split, progress=progress)
        write_json(run / f"{split}.json", report)
        model["results"] = results(report)
        model["seconds"] = {"cpu": report["seconds"]["per_case"], "cuda": None, "hardware": report["hardware"]}
        preview = preview_picture(Segmenter(draft, "cpu"), median_case(folder, report))
    return write_package(package, model, save(weights), model_card(model, recipe), preview)


def results(report: dict) -> dict:
    """The part of an evaluation that belongs in model.json."""
    return {
        "split": report["split"],
        "cases": report["cases"],
        "dice": {
            "mean": report["mean"]["dice"],
            "interval": report["mean"]["dice_interval"],
            **{name: values["dice"] for name, values in report["labels"].items()},
        },
        "gate": report["gate"],
    }


def median_case(folder: LabelledFolder, report: dict) -> Case:
    rows = sorted(report["per_case"], key=lambda row: row["mean"]["dice"] or 0.0)
    return folder.cases[rows[len(rows) // 2]["case"]]


def preview_picture(segmenter: Segmenter, case: Case) -> bytes:
    """PNG of the slice with most labels, with the model's labels painted over it."""
    model = segmenter.package.model
    image, _ = read_case(case, model)
    labels = segmenter.segment(image).labels
    view = SliceView.of_most_labels(image, labels, model["dimension"])
    stream = io.BytesIO()
    view.picture(PREVIEW_SIZE, labels, [label["color"] for label in model["labels"]]).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def model_card(model: dict, recipe: Recipe) -> str:
    """README.md of a package, from the run's records alone."""
    training, labels = model["training"], model["labels"]
    lines = [
        f"# {model['name']}, version {model['version']}",
        "",
        model["description"].strip(),
        "",
        f"- Segments: {', '.join(label['name'] for label in labels)}",
        f"- Input: {model['modality']}, {model['dimension']}D, channels: "
        f"{', '.join(channel['name'] for channel in model['channels'])}",
        f"- Network: ProSMA-UNet, stages of {', '.join(map(str, recipe.network['features']))} channels, skip "
        f"'{recipe.network.get('skip', 'prosma')}', gate '{recipe.network.get('gate', 'box')}', field on the "
        f"{recipe.network.get('field_grid', 'skip')}'s grid; {model['weights']['parameters']:,} weights in half precision",
        f"- Trained for {recipe.fitting.epochs} epochs of {recipe.fitting.iterations} steps, "
        f"{training['seconds'] / 60:.0f} minutes on {training['hardware']}",
        "",
        "## Training data, licence, citation",
        "",
        f"- Data: {training['data']}" + cases_text(training.get("cases")),
        f"- Licence of the data and of these weights: {training['licence']}",
        f"- Cite: {training['citation'].strip()}",
        "",
        *results_text(model),
        "## Limits",
        "",
        "For research. Not a medical device: a person has to check every result. Images unlike the training data "
        "(other sequences, fields of view, pathology) can give wrong results without any warning.",
    ]
    return "\n".join(lines) + "\n"


def cases_text(cases: dict | None) -> str:
    if not cases:
        return ""
    return " (" + ", ".join(f"{count} cases for {name}" for name, count in cases.items()) + ")"


def results_text(model: dict) -> list[str]:
    if "results" not in model:
        return []
    found = model["results"]
    dice, gate = found["dice"], found["gate"]
    lines = [
        "## Results",
        "",
        f"On the {found['cases']} cases of the {found['split']} split, which neither training nor any choice has seen. "
        "Mean over cases.",
        "",
        "| | Dice |",
        "|---|---|",
        f"| mean over labels | {dice['mean']:.4f} (95 % interval {dice['interval'][0]:.4f} to {dice['interval'][1]:.4f}) |",
        *(f"| {label['name']} | {dice[label['name']]:.4f} |" for label in model["labels"]),
        "",
        f"Seconds per case: {model['seconds']['cpu']:.2f} ({model['seconds']['hardware']}).",
        "",
    ]
    if gate["levels"]:
        shares = ", ".join(f"{100 * level['zeros']:.1f} %" for level in gate["levels"])
        lines += [
            f"The gates set {100 * gate['removed_share']:.1f} % of the skip features to exactly zero "
            f"(per level, coarse to fine: {shares}).",
            "",
        ]
    return lines
