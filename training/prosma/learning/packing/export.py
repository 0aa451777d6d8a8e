"""From runs to a model package: averaged weights in 8 bits, model card and preview from the runs' own records."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save

from ...files import working_folder, write_json
from ...inference.segmenter import Segmenter
from ...package import ModelPackage, write_package
from ...package.folders import WRITING
from ...package.schema import least_schema
from ...package.weights import joined, packed
from ..data.dataset import Case, LabelledFolder, read_case
from ..data.pictures import SliceView
from ..judge.evaluation import evaluate
from ..recipe import RecipeError
from .card import model_card, results
from .fit_statistics import fit_statistics
from .icon import icon
from .presence_statistics import presence_statistics
from .quality_statistics import quality_statistics
from .runs import Run, counted_cases, never_seen, open_folders, read_runs, refuse_seen_cases

PREVIEW_SIZE = 256


def export(
    run: str | os.PathLike | Sequence[str | os.PathLike],
    package: str | os.PathLike,
    data: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    split: str = "test",
    progress=lambda done, total, case: None,
    finder: ModelPackage | None = None,
    device: str = "auto",
) -> ModelPackage:
    """Write the package of a run, or one of several runs of the same recipe, whose answers are averaged.

    With ``data``, whose `train` and `val` splits are those of the run (of several, of each one's fold), it is evaluated on
    ``split``, the card says how it did, and the package can tell whether an image looks like those of the training and how
    good a result is likely to be.

    ``finder`` is the package of the network that a recipe with ``finder`` asks for. ``device``: to evaluate on.

    A model whose licence has to be accepted shows a drawn icon instead of an image of its data. Raises RecipeError when
    a folder holds no finished run, and for runs that do not belong together; DatasetError where they are to be evaluated on
    cases that one of them has learnt from.
    """
    runs = read_runs([run] if isinstance(run, (str, os.PathLike)) else run)
    recipes = [run.recipe for run in runs]
    if recipes[0].strokes and data is not None:
        raise RecipeError(
            "A network for strokes has no labels of its own that could be compared with those of a data set.",
            "Export it without --data.",
        )
    content, model = save(joined([packed(run.weights) for run in runs])), description(runs)
    preview = icon(model) if model["accept_licence"] else None
    if data is None:
        return write_package(package, model, content, model_card(model, recipes), preview, finder)
    folders = open_folders(runs, data)
    refuse_seen_cases(runs, folders, split)
    package = Path(os.path.abspath(package))
    with contextlib.ExitStack() as stack:
        place = runs[0].folder
        if len(runs) > 1:  # what lies in a run is about this run alone
            package.parent.mkdir(parents=True, exist_ok=True)
            place = stack.enter_context(working_folder(package.parent, WRITING))
        draft = write_package(place / "package", model, content, "", finder=finder)
        report = evaluate(draft, data, split, fold=runs[0].fold, device=device, progress=progress)
        write_json(place / f"{split}.json", report)
        add_results(model, report, counted_cases(runs, folders))
        segmenter = Segmenter(draft, "cpu")
        preview = preview or preview_picture(segmenter, median_case(folders[0], report))
        statistics = statistics_of(segmenter, folders)
        return write_package(package, model, content, model_card(model, recipes), preview, finder, *statistics)


def description(runs: Sequence[Run]) -> dict:
    """The content of model.json that is known before an evaluation."""
    recipe, count = runs[0].recipe, sum(tensor.numel() for run in runs for tensor in run.weights.values())
    model = {
        **recipe.model,
        "network": recipe.network_arguments,
        "weights": {"dtype": "int8", "parameters": count, **({"sets": len(runs)} if len(runs) > 1 else {})},
    }
    hardware = list(dict.fromkeys(run.history["hardware"] for run in runs))
    model["training"] = {
        **model["training"],
        "seconds": sum(run.history["seconds"] for run in runs),
        "hardware": hardware[0] if len(hardware) == 1 else f"{hardware[0]}, and others",
        "cases": counted_cases(runs),
    }
    return {"schema": least_schema(model), **model}


def add_results(model: dict, report: dict, cases: dict[str, int]) -> None:
    """What an evaluation found, put into the content of model.json."""
    model["training"]["cases"] = {**cases, report["split"]: report["cases"]}
    model["results"] = results(report)
    kind = report["device"].partition(":")[0]
    seconds = {"cpu": None, "cuda": None, kind: report["seconds"]["per_case"]}
    model["seconds"] = {**seconds, "hardware": report["hardware"]}


def statistics_of(segmenter: Segmenter, folders: Sequence[LabelledFolder]) -> tuple[bytes | None, ...]:
    """The contents of `fit.npz`, `quality.json` and `presence.npz`, None for each that cannot be made.

    Of several runs, whose data in their folds are the ``folders``: features of images are those of the first network, so
    they are compared by the cases of the first fold. The quality is that of the averaged answer, on validation cases that no
    run has learnt from; folds that have none in common leave it unknown.
    """
    first, unseen = folders[0], never_seen(folders)
    knows = len(folders) == 1 or bool(unseen.splits["val"])
    quality = quality_statistics(segmenter, unseen) if knows else None
    return fit_statistics(segmenter, first), quality, presence_statistics(segmenter, first)


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
