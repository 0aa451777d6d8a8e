"""The file with a package's weights, checked without torch: safetensors, whole, unchanged, finite, of this network."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..files import opened_regular
from .rules import along_axes
from .schema import PackageError

LARGEST_HEADER = 1 << 20
LARGEST_WEIGHTS = 2 << 30
BLOCK = 1 << 20  # bytes that are read at once, whole numbers of every type
# Bytes of each type, and what its highest byte is in a number that is infinite, none, or above 1e38.
TYPES = {
    "F64": (8, b"\x7f\xff"),
    "F32": (4, b"\x7f\xff"),
    "BF16": (2, b"\x7f\xff"),
    "F16": (2, b"\x7c\x7d\x7e\x7f\xfc\xfd\xfe\xff"),
    "I8": (1, b""),  # always finite; what they are multiplied with has a type of those above
}


class Tensor(NamedTuple):
    """One entry of a safetensors header; `end` counts from the header's end."""

    name: str
    kind: str
    shape: tuple[int, ...]
    end: int


def check_weights(folder: Path, model: Any) -> None:
    """The weights in a package's folder are what its description says. Raises PackageError."""
    path = folder / model.weights.file
    try:
        with opened_regular(path) as file:
            tensors, digest, not_finite = read_tensors(file, path)
    except FileNotFoundError:
        raise PackageError(f"The package has no '{path.name}'.", "Export or download it again.") from None
    if digest != model.weights.sha256:
        raise PackageError(
            f"The weights '{path.name}' are not those the package was made with (their sha256 differs): the file was "
            "damaged or changed.",
            "Export or download the package again.",
        )
    if not_finite:
        raise PackageError(
            f"The weights '{not_finite}' hold infinite numbers, or none: no network can work with them.",
            "Train or download the model again.",
        )
    check_sets({tensor.name: tensor.shape for tensor in tensors}, model)


def read_tensors(file: BinaryIO, path: Path) -> tuple[list[Tensor], str, str]:
    """The tensors of a safetensors file, its sha256, and the name of the first one that is not finite, or "".

    Raises PackageError for a file that is none.
    """
    size = path.stat().st_size
    if size > LARGEST_WEIGHTS:
        raise PackageError(f"'{path.name}' has more than {LARGEST_WEIGHTS >> 30} GB.", "Choose a smaller model.")
    start = file.read(8)
    try:
        (length,) = struct.unpack("<Q", start)
        if length > size:
            raise ValueError("its header is longer than the file")
        if length > LARGEST_HEADER:
            raise ValueError("its header is longer than any network needs")
        header = file.read(length)
        tensors = list(listed(json.loads(header)))
        if 8 + length + (tensors[-1].end if tensors else 0) != size:
            raise ValueError("it is cut off or has bytes too many")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PackageError(
            f"'{path.name}' is not a valid safetensors file ({error}). Other formats, pickles above all, are refused "
            "because they can run code.",
            "Export or download the package again.",
        ) from error
    digest, not_finite, done = hashlib.sha256(start + header), "", 0
    for tensor in tensors:
        while done < tensor.end and (block := file.read(min(BLOCK, tensor.end - done))):
            digest.update(block)
            done += len(block)
            if not not_finite and has_no_numbers(block, tensor.kind):
                not_finite = tensor.name
    return tensors, digest.hexdigest(), not_finite


def listed(header: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors of a header in the order of their bytes. ValueError for gaps and for sizes that no type has."""
    entries = sorted((entry["data_offsets"], name) for name, entry in header.items() if name != "__metadata__")
    end = 0
    for (first, last), name in entries:
        kind, shape = header[name]["dtype"], tuple(header[name]["shape"])
        if kind not in TYPES:
            raise ValueError(f"it holds numbers of the type {kind}")
        if any(type(side) is not int or side < 0 for side in (*shape, first, last)):
            raise ValueError(f"the size of '{name}' is none")
        if first != end or last != first + math.prod(shape) * TYPES[kind][0]:
            raise ValueError(f"the place of '{name}' is not that of its {shape} numbers")
        end = last
        yield Tensor(name, kind, shape, end)


def has_no_numbers(block: bytes, kind: str) -> bool:
    """Whether some of the numbers in a block (little endian) are infinite, no numbers, or above 1e38."""
    size, wrong = TYPES[kind]
    highest = block[size - 1 :: size]
    return len(highest.translate(None, wrong)) < len(highest)


def set_prefix(number: int, sets: int) -> str:
    """What the names of the tensors of a package's set of weights begin with, of `sets` counted from 1."""
    return f"{number}." if sets > 1 else ""


def check_sets(shapes: dict[str, tuple[int, ...]], model: Any) -> None:
    """Each set of weights is one of the description's network, and there is no other. Raises PackageError."""
    prefixes = [set_prefix(number, model.weights.sets) for number in range(1, model.weights.sets + 1)]
    for prefix in prefixes:
        of_set = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        if not of_set and prefix:
            raise PackageError(
                f"The package should have {len(prefixes)} sets of weights, and number {prefix[:-1]} is missing: it was put "
                "together wrongly.",
                "Export it again.",
            )
        check_shapes(of_set, model, prefix)
    odd = next((name for name in shapes if not name.startswith(tuple(prefixes))), None)
    if odd is not None:
        raise PackageError(
            f"The weights hold '{odd}', which belongs to none of the {len(prefixes)} sets that the package names: it was put "
            "together wrongly.",
            "Export it again.",
        )


def check_shapes(shapes: dict[str, tuple[int, ...]], model: Any, prefix: str = "") -> None:
    """The encoder, the bottleneck and the head are those of the description's network. Raises PackageError.

    That suffices to know that the description asks for no larger network than the file has weights for. `prefix`: what the
    names have before them in the file.
    """
    network = model.network
    head = shapes.get("head.weight", (1,))
    if head[0] != network.out_channels:
        raise PackageError(
            f"The weights separate {head[0] - 1 or 'no'} structures, but the package names {len(model.labels)} labels: "
            "it was put together wrongly.",
            "Export it again.",
        )
    for name, wanted in expected_shapes(network, model.dimension):
        if shapes.get(name) != wanted:
            raise PackageError(
                f"The weights do not fit the network: '{prefix}{name}' is {shapes.get(name, 'missing')}, and the description "
                f"asks for {wanted}. The package is damaged or was put together wrongly.",
                "Export or install it again.",
            )


def expected_shapes(network: Any, dimension: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of those weights that make up most of a network's size."""
    before = network.in_channels
    kernels = network.kernel_sizes or [3] * len(network.features)
    for stage, (features, kernel) in enumerate(zip(network.features, kernels, strict=True)):
        yield f"encoder.{stage}.0.weight", (features, before, *along_axes(kernel, dimension))
        before = features
    for block in range(network.bottleneck_blocks if network.bottleneck == "attention" else 0):
        yield f"bottleneck.{block}.query_key_value.weight", (3 * before, before)
