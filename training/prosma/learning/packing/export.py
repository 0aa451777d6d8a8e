"""From a run to a model package: averaged weights in 8 bits, model card and preview from the run's own records."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from ...files import write_json
from ...inference.segmenter import Segmenter
from ...package import ModelPackage, write_package
from ...package.schema import SCHEMA
from ...package.weights import packed
from ..checkpoints import read_checkpoint
from ..data.dataset import Case, LabelledFolder, read_case
from ..data.pictures import SliceView
from ..judge.evaluation import evaluate
from ..recipe import Recipe, RecipeError
from .card import model_card, results
from .fit_statistics import fit_statistics
from .icon import icon
from .presence_statistics import presence_statistics
from .quality_statistics import quality_statistics

PREVIEW_SIZE = 256
PREFIX = "average.module."


def averaged_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The moving average in a checkpoint, without the heads that only training needs."""
    state = read_checkpoint(checkpoint)["state_dict"]
    return {
        name.removeprefix(PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}auxiliary_heads.")
    }


def export(
    run: str | os.PathLike,
    package: str | os.PathLike,
    data: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    split: str = "test",
    progress=lambda done, total, case: None,
    finder: ModelPackage | None = None,
    device: str = "auto",
) -> ModelPackage:
    """Write the package of a run. With ``data``, whose `train` and `val` splits are those of the run, it is evaluated on
    ``split``, the card says how it did, and the package can tell whether an image looks like those of the training and how
    good a result is likely to be.

    ``finder`` is the package of the network that a recipe with ``finder`` asks for. ``device``: to evaluate on.

    A model whose licence has to be accepted shows a drawn icon instead of an image of its data. Raises RecipeError when
    the folder holds no finished run.
    """
    run = Path(run)
    checkpoint = run / "last.ckpt"
    if not checkpoint.is_file() or not (run / "recipe.json").is_file():
        raise RecipeError(f"'{run}' holds no run: train one first (prosma train RECIPE --data DIR --out {run}).")
    recipe = Recipe.from_dict(json.loads((run / "recipe.json").read_text(encoding="utf-8")))
    if recipe.strokes and data is not None:
        raise RecipeError(
            "A network for strokes has no labels of its own that could be compared with those of a data set.",
            "Export it without --data.",
        )
    weights = averaged_weights(checkpoint)
    content = save(packed(weights))
    model = {
        "schema": SCHEMA,
        **recipe.model,
        "network": recipe.network_arguments,
        "weights": {"dtype": "int8", "parameters": sum(tensor.numel() for tensor in weights.values())},
    }
    history = json.loads((run / "history.json").read_text(encoding="utf-8"))
    model["training"] = {**model["training"], "seconds": history["seconds"], "hardware": history["hardware"]}
    model["training"]["cases"] = dict(history.get("cases", {}))
    preview = icon(model) if model["accept_licence"] else None
    statistics: tuple[bytes | None, ...] = ()
    if data is not None:
        folder = LabelledFolder.open(data, recipe.fitting.fold)
        draft = write_package(run / "package", model, content, "", finder=finder)
        report = evaluate(draft, data, split, fold=recipe.fitting.fold, device=device, progress=progress)
        write_json(run / f"{split}.json", report)
        counts = {name: len(ids) for name, ids in folder.splits.items()}
        model["training"]["cases"] = {**counts, **model["training"]["cases"], split: report["cases"]}
        model["results"] = results(report)
        kind = report["device"].partition(":")[0]
        seconds = {"cpu": None, "cuda": None, kind: report["seconds"]["per_case"]}
        model["seconds"] = {**seconds, "hardware": report["hardware"]}
        segmenter = Segmenter(draft, "cpu")
        preview = preview or preview_picture(segmenter, median_case(folder, report))
        statistics = statistics_of(segmenter, folder)
    return write_package(package, model, content, model_card(model, recipe), preview, finder, *statistics)


def statistics_of(segmenter: Segmenter, folder: LabelledFolder) -> tuple[bytes | None, ...]:
    """The contents of `fit.npz`, `quality.json` and `presence.npz`, None for each that cannot be made."""
    return tuple(make(segmenter, folder) for make in (fit_statistics, quality_statistics, presence_statistics))


def median_case(folder: LabelledFolder, report: dict) -> Case:
    rows = sorted(report["per_case"], key=lambda row: row["mean"]["dice"] or 0.0)
    return folder.cases[rows[len(rows) // 2]["case"]]


def preview_picture(segmenter: Segmenter, case: Case) -> bytes:
    """PNG of the slice with most labels, with the model's labels painted over it."""
    model = segmenter.package.model
    image, _ = read_case(case, model)
    labels = segmenter.segment(image, refuse_unfit=False).labels
    view = SliceView.of_most_labels(image, labels, model["dimension"])
    stream = io.BytesIO()
    view.picture(PREVIEW_SIZE, labels, [label["color"] for label in model["labels"]]).save(stream, "PNG", optimize=True)
    return stream.getvalue()
