"""Rules of model.json that no JSON schema can tell, for they concern several values. Needs the standard library alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

MOST_VOXELS = 1 << 26  # of a patch
MOST_ATTENDED = 1 << 12  # voxels of the coarsest stage: attention looks at all pairs of them
KEPT_NAMES = ("mean", "interval")  # in the results, beside the names of labels


def rules_broken(model: Any) -> Iterator[tuple[str, str, object]]:
    """Each rule that a model breaks: path, what it should be, what it is."""
    for number, label in enumerate(model.labels):
        if label.value != number + 1:
            yield (
                f"labels[{number}].value",
                f"{number + 1}, for labels are numbered 1, 2, 3, ... without gaps",
                label.value,
            )
        if label.name in KEPT_NAMES:
            yield f"labels[{number}].name", f"another name than {' and '.join(KEPT_NAMES)}", label.name
    regions = model.finder.regions if getattr(model, "finder", None) else []
    for kind, entries in (("channels", model.channels), ("labels", model.labels), ("finder.regions", regions)):
        names = [entry.name for entry in entries]
        for number, name in enumerate(names):
            if name in names[:number]:
                yield f"{kind}[{number}].name", "another name than those before it", name
    if math.prod(model.patch_size) > MOST_VOXELS:
        yield "patch_size", f"at most {MOST_VOXELS} voxels", model.patch_size
    if model.weights.sets > 1 and model.schema < 3:
        yield "schema", "3 where there are several sets of weights", model.schema
    for number, group in enumerate(model.one_piece or []):
        if max(group) > len(model.labels):
            yield f"one_piece[{number}]", f"values of labels, 1 to {len(model.labels)}", group
    if model.resize and model.spacing:
        yield "spacing", "null where there is a 'resize'", model.spacing
    yield from _network_rules(model)
    if model.network.bottleneck == "attention":
        yield from _attention_rules(model)
    yield from _rising_rules(model)


def _network_rules(model: Any) -> Iterator[tuple[str, str, object]]:
    network, stages = model.network, len(model.network.features)
    channels = len(model.channels) + (len(model.prompt.channels) if model.prompt else 0)
    if model.prompt and len(model.labels) != 1:
        yield "labels", "one label, for strokes mean one object at a time", model.labels
    for name, wanted in (("in_channels", channels), ("out_channels", len(model.labels) + 1)):
        if getattr(network, name) != wanted:
            why = "for that many channels" if name == "in_channels" else "for the labels and the background"
            yield f"network.{name}", f"{wanted}, {why}", getattr(network, name)
    for name in ("strides", "kernel_sizes"):
        found = getattr(network, name)
        if found is not None and len(found) != stages:
            yield f"network.{name}", f"a list of {stages}, as many as there are features", found
    first = network.strides[0] if network.strides else 1
    if first not in (1, [1] * model.dimension):
        yield "network.strides[0]", "1, for the first stage has full resolution", first


def _attention_rules(model: Any) -> Iterator[tuple[str, str, object]]:
    network = model.network
    if model.schema < 3:
        yield "schema", "3 for a network with attention", model.schema
    if network.features[-1] % network.bottleneck_heads:
        channels = f"a divisor of {network.features[-1]}, the channels of the coarsest stage"
        yield "network.bottleneck_heads", channels, network.bottleneck_heads
    strides = network.strides or [1, *[2] * (len(network.features) - 1)]
    steps = [math.prod(axis) for axis in zip(*(along_axes(stride, model.dimension) for stride in strides), strict=True)]
    voxels = math.prod(-(-side // step) for side, step in zip(model.patch_size, steps, strict=True))
    if voxels > MOST_ATTENDED:
        why = f"so small that at most {MOST_ATTENDED} voxels reach the attention (these make {voxels})"
        yield "patch_size", why, model.patch_size


def along_axes(size: int | Sequence[int], dimension: int) -> tuple[int, ...]:
    """A kernel's size, or a stride, along each axis."""
    return (size,) * dimension if isinstance(size, int) else tuple(size)


def _rising_rules(model: Any) -> Iterator[tuple[str, str, object]]:
    rule, field_of_view = model.intensity, model.field_of_view
    pairs = [(f"intensity.{name}", getattr(rule, name, None)) for name in ("percentiles", "clip")]
    if rule.rule == "range":
        pairs.append(("intensity.high", [rule.low, rule.high]))
    for path, pair in pairs:
        if pair is not None and not pair[0] < pair[1]:
            yield path, "the low value before a higher one", pair
    if field_of_view is not None and field_of_view.min_mm and field_of_view.max_mm:
        axes = zip(field_of_view.min_mm, field_of_view.max_mm, strict=True)
        if any(low > high for low, high in axes):
            yield "field_of_view.max_mm", "at least min_mm along each axis", field_of_view.max_mm
