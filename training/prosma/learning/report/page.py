"""The results page: models, bundled or only recipes, comparisons and published figures, from JSON; findings in words."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserFacingError
from ...files import write_text
from ...package import BrokenPackage, ModelPackage, find_packages
from .tables import comparison_text, percent, table, with_interval

FINDINGS = "findings.md"


class PageError(UserFacingError):
    """A folder of results that no page can be made from."""


def write_page(results: str | os.PathLike, models: str | os.PathLike, output: str | os.PathLike) -> None:
    """Write the page from ``results`` and ``models``.

    ``results`` holds comparisons (JSON with figures), evaluations of models that are not bundled, as `prosma evaluate -o`
    writes them, published.json and findings.md.

    Raises PageError with the file that cannot be used.
    """
    results, output = Path(results), Path(output)
    found = find_packages([Path(models)])
    packages = [package for package in found if isinstance(package, ModelPackage)]
    broken = [package for package in found if isinstance(package, BrokenPackage)]
    if broken:
        raise PageError(f"The model '{broken[0].folder}' cannot be used: {broken[0].reason}")
    contents = {path: read(path) for path in sorted(results.glob("*.json"))}
    parts = [
        "# Results",
        "Written by `prosma results` from the JSON files in `results/` and the descriptions of the bundled models; "
        f"`results/{FINDINGS}` holds the words. Change those and write the page again.",
        findings(results),
        "## Bundled models",
        models_text(packages),
    ]
    evaluations = [content for content in contents.values() if content["kind"] == "evaluation"]
    if evaluations:
        parts += ["## Recipes whose models are not bundled", evaluations_text(evaluations)]
    for path, content in contents.items():
        if content["kind"] == "comparison":
            parts += [f"## Comparison: {content['title']}", comparison_text(content), figure(path, output)]
    for content in contents.values():
        if content["kind"] == "published":
            parts += ["## Next to published figures", published_text(content, packages)]
    write_text(output, "\n\n".join(part for part in parts if part) + "\n")


def read(path: Path) -> dict:
    """Content of a comparison.json, an evaluation or published.json, with its `kind`. Raises PageError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PageError(f"'{path}' is not valid JSON ({error}).") from error
    if isinstance(content, dict) and {"model", "version", "split", "mean", "labels", "gate"} <= set(content):
        return {"kind": "evaluation", **content}
    if not isinstance(content, dict) or content.get("kind") not in ("comparison", "published"):
        raise PageError(
            f"'{path}' is neither a comparison.json of `prosma compare`, nor a report of `prosma evaluate`, nor a list of "
            "published figures."
        )
    return content


def findings(results: Path) -> str:
    path = results / FINDINGS
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def figure(path: Path, output: Path) -> str:
    """A link to the picture of the same name as a comparison's JSON, if there is one."""
    picture = path.with_suffix(".png")
    if not picture.is_file():
        return ""
    return f"![Differences and degradations]({Path(os.path.relpath(picture, output.parent)).as_posix()})"


def models_text(packages: Sequence[ModelPackage]) -> str:
    """One row for each model that has test results."""
    rows = []
    for package in packages:
        model = package.model
        if "results" not in model:
            continue
        found, training, weights = model["results"], model["training"], model["weights"]
        absent = [name for name in ("cases", "split", "dice", "iou", "gate") if name not in found]
        if absent or "seconds" not in model:
            raise PageError(
                f"The results of the model '{package.id}' lack '{(absent or ['seconds'])[0]}'.", "Export it again."
            )
        zeros = ", ".join(percent(level["zeros"]) for level in found["gate"]["levels"])
        seconds = next((model["seconds"][kind] for kind in ("cpu", "cuda") if model["seconds"][kind] is not None), None)
        rows.append(
            [
                package.id,
                f"{found['cases']} ({found['split']})",
                with_interval(found["dice"]),
                iou_cell(found),
                zeros or "no gate",
                f"{weights['parameters']:,}" if "parameters" in weights else "",
                f"{training['seconds'] / 60:.0f} min, {training['hardware']}" if "seconds" in training else "",
                "" if seconds is None else f"{seconds:.2f} s, {model['seconds']['hardware']}",
            ]
        )
    heads = ["model", "cases", "Dice (95 %)", "IoU", "exact zeros, coarse to fine", "weights", "training", "a case"]
    return (
        "On test cases that neither training nor any choice has seen; mean over cases, interval from resampling cases. "
        "Each model's card tells more.\n\n" + table(heads, rows)
    )


def evaluations_text(evaluations: Sequence[dict]) -> str:
    """One row for each label of each evaluation, after that of all labels together."""
    rows = []
    for content in evaluations:
        zeros = ", ".join(percent(level["zeros"]) for level in content["gate"]["levels"])
        name = f"{content['model']} {content['version']}"
        for number, (label, found) in enumerate([("mean over labels", content["mean"]), *content["labels"].items()]):
            values = {"mean": found["dice"], "interval": found["dice_interval"]}
            cases = f"{found['dice_cases']} ({content['split']})"
            rows.append([name if not number else "", label, cases, with_interval(values), "" if number else zeros])
    heads = ["recipe", "label", "cases", "Dice (95 %)", "exact zeros, coarse to fine"]
    return (
        "`prosma train recipes/NAME.yaml --data DATA -o RUN` and `prosma export RUN -o PACKAGE` make them. Cases and "
        "intervals as above.\n\n" + table(heads, rows)
    )


def iou_cell(found: dict) -> str:
    """Over all cases, and over those with a label where some have none."""
    parts = [f"{found['iou']['mean']:.4f}"] if "iou" in found else []
    for name, values in found.get("presence", {}).items():
        parts.append(f"{values['iou']:.4f} on the {values['cases']} with {name}")
    return ", ".join(parts)


def published_text(content: dict, packages: Sequence[ModelPackage]) -> str:
    """Published figures set by set, each with the bundled model that was tested on the same set, and the protocols."""
    known = {package.id: package.model for package in packages if "results" in package.model}
    rows = []
    for data in content["sets"]:
        for row in data["rows"]:
            cells = [published_number(row, metric) for metric in ("iou", "f1", "dice")]
            rows.append([data["name"], row["method"], *cells, row["protocol"]])
        if data["model"] in known:
            rows.append(
                [data["name"], f"**{data['model']}** (this project)", *own_numbers(known[data["model"]]), "own"]
            )
    protocols = [f"- **{name}**: {text}" for name, text in content["protocols"].items()]
    heads = ["data", "method", "IoU", "F1", "Dice", "protocol"]
    return "\n\n".join([content["introduction"], table(heads, rows), "\n".join(protocols)])


def published_number(row: dict, metric: str) -> str:
    """As printed, with the deviation over seeds where it was printed."""
    if metric not in row:
        return ""
    deviation = row.get(f"{metric}_deviation")
    return f"{row[metric]:g}" + ("" if deviation is None else f" +- {deviation:g}")


def own_numbers(model: dict) -> list[str]:
    """IoU and F1 over all pixels together where the model is 2D, and the mean Dice over cases, in per cent."""
    found = model["results"]
    pooled = [f"{100 * found['pooled'][name]:.2f}" if "pooled" in found else "" for name in ("iou", "f1")]
    return [*pooled, f"{100 * found['dice']['mean']:.2f}"]
