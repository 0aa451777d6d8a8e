"""Labels by region: what a model's labels are called in each region that its finder names. Standard library alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Labels = list[dict[str, Any]]


def region_labels(model: Mapping[str, Any], number: int) -> Labels:
    """The labels of a model.json in the region `number` (1, 2, ...): own values, names, colours and codes."""
    labels: Sequence[dict[str, Any]] = model["labels"]
    return [region_label(label, model["finder"]["regions"][number - 1], number * len(labels)) for label in labels]


def result_labels(model: Mapping[str, Any]) -> Labels:
    """All labels that a result may hold: the model's own, then those of each region that its finder names."""
    regions = (model.get("finder") or {}).get("regions", [])
    return [*model["labels"], *(label for n in range(len(regions)) for label in region_labels(model, n + 1))]


def region_label(label: dict[str, Any], region: Mapping[str, Any], offset: int) -> dict[str, Any]:
    """A label as it is called in one region, such as `left anterior hippocampus`."""
    shade = region.get("shade", 1.0)
    described = {
        **label,
        "value": label["value"] + offset,
        "name": f"{region['name']} {label['name']}",
        "color": [round(part * shade) for part in label["color"]],
    }
    terminology = label.get("terminology")
    if terminology and region.get("modifier") and not terminology.get("modifier"):
        described["terminology"] = {**terminology, "modifier": region["modifier"]}
    return described


def labels_in(model: Mapping[str, Any], labels: Any) -> Labels:
    """The labels that a label map (an array) of a model may hold: those by region where it has any, else the model's own."""
    count = len(model["labels"])
    return [label for label in result_labels(model) if (label["value"] > count) == bool((labels > count).any())]
