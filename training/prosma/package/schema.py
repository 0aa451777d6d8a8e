"""What model.json says: dataclasses from which the checks, the error texts and docs/model.schema.json come.

`make schema` writes the JSON schema. Needs the standard library alone, for Slicer's process reads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from ..contracts import Items, Mismatch, Numbers, Text, check, json_schema
from ..errors import UserFacingError
from .rules import rules_broken

SCHEMA = 3  # 1: weights in floating point; 2: also in 8 bits; 3: also several sets of them, and attention
MOST_SETS = 10  # of weights in a package
DESCRIPTION = "model.json"
EXPORT = "Correct it, or export or download the package again."
LEFT_OUT: Any = None  # of an entry that may be left out and is never null

WRITTEN = r"[^\x00-\x1f\x7f-\x9f]"  # no control characters: texts are shown in terminals
Line = Annotated[str, Text(200, rf"^{WRITTEN}*[^\s\x00-\x1f\x7f-\x9f]{WRITTEN}*$", "a line of text")]
Prose = Annotated[str, Text(20_000, r"^(?=[\s\S]*\S)[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$", "a text")]
Word = Annotated[str, Text(200, r"^[^\x00-\x1f\x7f-\x9f~^]+$", "a text without ~ and ^")]  # these part Slicer's codes
Digest = Annotated[str, Text(64, r"^[0-9a-f]{64}$", "64 hexadecimal digits")]
Id = Annotated[
    str,
    Text(
        100,
        r"^(?!(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$))[a-z0-9]([a-z0-9._-]*[a-z0-9_-])?$",
        "a name of lower-case letters, digits, '.', '-' and '_'",
    ),
    "Of the model; also the name of its folder among the user's models.",
]
Orientation = Annotated[
    str,
    Text(3, r"^(?=.*[RL])(?=.*[AP])(?=.*[SI])[RLAPSI]{3}$", "three letters such as RAS"),
    "The patient directions that the model's axes run to.",
]
Count = Annotated[int, Numbers(0, 1e9)]
Share = Annotated[float, Numbers(0, 1)]
Seconds = Annotated[float, Numbers(0, 1e9)]
Mm = Annotated[float, Numbers(0, 1e6)]
Intensity = Annotated[float, Numbers(-1e9, 1e9)]
Spacing = Annotated[float, Numbers(1e-5, 1000)]
Patch = Annotated[int, Numbers(1, 1024)]
Picture = Annotated[int, Numbers(1, 4096)]
Colour = Annotated[list[Annotated[int, Numbers(0, 255)]], Items(3, 3), "Red, green and blue."]
Stride = Annotated[int, Numbers(1, 8)]
Kernel = Literal[1, 3, 5, 7, 9, 11]
Features = Annotated[
    list[Annotated[int, Numbers(1, 2048)]], Items(2, 8), "Channels of each stage, full resolution first."
]


class PackageError(UserFacingError):
    """A package that cannot be used."""

    code = "bad_model"
    remedy = "Choose another model or install this one again."


@dataclass(frozen=True)
class Channel:
    """One image that the model takes."""

    name: Line


Code = Annotated[list[Word], Items(3, 3), "Coding scheme, code value and meaning."]


@dataclass(frozen=True)
class Terminology:
    """Standard codes for a label, as Slicer and DICOM segmentations take them."""

    category: Code | None = None
    type: Code | None = None
    modifier: Code | None = None


@dataclass(frozen=True)
class Label:
    """One structure that the model segments. Values are 1, 2, 3, ... in their order."""

    value: Annotated[int, Numbers(1, 1000)]
    name: Line
    color: Colour
    terminology: Terminology | None = None


@dataclass(frozen=True)
class ZScore:
    """Mean 0 and standard deviation 1 in each channel."""

    rule: Literal["zscore"]
    foreground: bool = False


@dataclass(frozen=True)
class ClippedZScore:
    """As zscore, after clipping to percentiles."""

    rule: Literal["clip-zscore"]
    percentiles: Annotated[list[Annotated[float, Numbers(0, 100)]], Items(2, 2, True), "Low and high."]
    foreground: bool = False
    power: Annotated[float, Numbers(0, 4, above=True), "Clipped values, scaled to 0 to 1, are raised to it."] = 1.0


@dataclass(frozen=True)
class Hounsfield:
    """Clipped to a window, then minus the mean and by the deviation of the training set."""

    rule: Literal["ct"]
    clip: Annotated[list[Intensity], Items(2, 2, True), "Low and high."]
    mean: Intensity
    std: Annotated[float, Numbers(0, 1e9, above=True)]


@dataclass(frozen=True)
class Range:
    """`low` to `high` become 0 to 1; what lies outside is clipped."""

    rule: Literal["range"]
    low: Intensity
    high: Intensity


@dataclass(frozen=True, kw_only=True)
class Network:
    """Arguments of ProSMAUNet."""

    OTHERS: ClassVar[Any] = None

    in_channels: Annotated[int, Numbers(1, 64)]
    out_channels: Annotated[int, Numbers(2, 1001)]
    features: Features = field(default_factory=lambda: [16, 32, 64, 128, 256])
    skip: Literal["prosma", "attention", "plain"] = "prosma"
    gate: Literal["box", "soft", "shrink", "sigmoid", "none"] = "box"
    dilations: Annotated[list[Annotated[int, Numbers(1, 64)]], Items(1, 8)] = field(default_factory=lambda: [1, 2, 3])
    channel_gate: bool = True
    field_grid: Literal["skip", "decoder"] = "skip"
    threshold_init: Annotated[float, Numbers(0, 100, above=True)] = 0.25
    gain_init: Annotated[float, Numbers(-100, 100)] = 0.5
    bottleneck: Literal["none", "attention"] = "none"
    bottleneck_blocks: Annotated[int, Numbers(1, 12)] = 2
    bottleneck_heads: Annotated[int, Numbers(1, 64)] = 4


Stages = Items(2, 8)
Pair = Items(2, 2)
Triple = Items(3, 3)


@dataclass(frozen=True, kw_only=True)
class Network2D(Network):
    """Arguments of ProSMAUNet for images."""

    spatial_dims: Literal[2]
    strides: Annotated[list[Stride | Annotated[list[Stride], Pair]], Stages] | None = None
    kernel_sizes: Annotated[list[Kernel | Annotated[list[Kernel], Pair]], Stages] | None = None


@dataclass(frozen=True, kw_only=True)
class Network3D(Network):
    """Arguments of ProSMAUNet for volumes."""

    spatial_dims: Literal[3]
    strides: Annotated[list[Stride | Annotated[list[Stride], Triple]], Stages] | None = None
    kernel_sizes: Annotated[list[Kernel | Annotated[list[Kernel], Triple]], Stages] | None = None


@dataclass(frozen=True)
class FieldOfView:
    """Extents beyond which the panel warns, in mm along the model's axes."""

    min_mm: Annotated[list[Mm], Triple] | None = None
    max_mm: Annotated[list[Mm], Triple] | None = None


@dataclass(frozen=True)
class Training:
    """Where the weights come from."""

    data: Prose
    licence: Prose
    citation: Prose
    seconds: Seconds | None = None
    hardware: Line | None = None
    cases: Annotated[dict[str, Count], Items(0, 20), "How many for train, val and test."] | None = None


@dataclass(frozen=True)
class Weights:
    """The file with the weights, inside the package."""

    file: Annotated[str, Text(100, r"^[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors$", "the name of a .safetensors file")]
    sha256: Digest
    dtype: Literal["int8", "float16", "bfloat16", "float32"] | None = None
    parameters: Annotated[int, Numbers(0, 1e12), "In all sets together."] | None = None
    sets: Annotated[
        int, Numbers(1, MOST_SETS), "Networks whose answers are averaged; the tensors of the n-th are called n.NAME."
    ] = 1


@dataclass(frozen=True)
class Overlap:
    """A share of 0 to 1: the mean over cases with its 95 % interval, and the mean of each label by its name."""

    OTHERS: ClassVar[Any] = Share | None

    mean: Share | None = None
    interval: Annotated[list[Share], Pair] | None = None


@dataclass(frozen=True)
class Distance:
    """In mm: the mean over cases with its 95 % interval, and the mean of each label by its name."""

    OTHERS: ClassVar[Any] = Mm | None

    mean: Mm | None = None
    interval: Annotated[list[Mm], Pair] | None = None


@dataclass(frozen=True)
class Level:
    """The gate's values at one skip."""

    zeros: Share
    ones: Share
    mean: Share


@dataclass(frozen=True)
class Gate:
    """What the gates removed; `levels` coarse to fine."""

    removed_share: Share
    levels: Annotated[list[Level], Items(0, 8)]


@dataclass(frozen=True)
class Pooled:
    """Over all pixels of all images together."""

    iou: Share | None
    f1: Share | None


@dataclass(frozen=True)
class Presence:
    """Cases with a label and cases without it."""

    cases: Count
    cases_without: Count
    false_alarms: Count
    dice: Share | None = None
    iou: Share | None = None
    iou_interval: Annotated[list[Share], Pair] | None = None


@dataclass(frozen=True)
class Results:
    """What an evaluation found."""

    data: Line = LEFT_OUT
    split: Line = LEFT_OUT
    cases: Count = LEFT_OUT
    dice: Overlap = LEFT_OUT
    iou: Overlap = LEFT_OUT
    gate: Gate = LEFT_OUT
    hd95: Distance | None = None
    nsd: Overlap | None = None
    nsd_tolerance_mm: Mm | None = None
    pooled: Pooled | None = None
    presence: dict[str, Presence] | None = None


@dataclass(frozen=True)
class Duration:
    """Seconds for one case, and on what they were measured."""

    cpu: Seconds | None
    cuda: Seconds | None
    hardware: Line


@dataclass(frozen=True)
class Parent:
    """The model that fine-tuning began with."""

    id: Id
    version: Line
    sha256: Digest


@dataclass(frozen=True)
class FineTuning:
    """How a model was made from its parent."""

    parent: Parent
    cases: Count
    replayed_cases: Count
    steps: Count
    batch_size: Count
    learning_rate: Annotated[float, Numbers(0, 1000)]
    keep: Share
    seed: Annotated[int, Numbers(0, 2**64)]
    seconds: Seconds
    hardware: Line


PromptChannel = Literal["likeness", "mask", "belongs", "does not belong", "region", "log odds"]


@dataclass(frozen=True)
class Prompt:
    """Marks a network that segments what strokes mean: its input's channels after those of the image, in this order."""

    channels: Annotated[list[PromptChannel], Items(1, 6, True)]


OnePiece = Annotated[
    list[Annotated[list[Annotated[int, Numbers(1, 1000)]], Items(1, 1000, True)]],
    Items(1, 1000),
    "Values of labels that together are one piece; of each group, in this order, only the largest connected part is kept.",
]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model package's model.json. Entries that are not named here are let through."""

    schema: Literal[1, 2, 3]
    id: Id
    name: Line
    version: Line
    description: Prose
    modality: Line
    channels: Annotated[list[Channel], Items(1, 64), "The images that the model takes, in this order."]
    labels: Annotated[list[Label], Items(1, 1000)]
    intensity: Annotated[ZScore | ClippedZScore | Hounsfield | Range, "How voxels are prepared."]
    training: Training
    weights: Weights
    accept_licence: Annotated[bool, "Whether a person has to accept the licence before the model runs."]
    results: Results = LEFT_OUT
    seconds: Duration = LEFT_OUT
    prompt: Prompt = LEFT_OUT
    one_piece: OnePiece = LEFT_OUT
    fine_tuning: Annotated[list[FineTuning], Items(1, 1000), "One record for each time, the last one last."] = LEFT_OUT


@dataclass(frozen=True, kw_only=True)
class Model2D(Model):
    """A model that takes single images, or the slices of a volume as they are."""

    dimension: Literal[2]
    network: Network2D
    patch_size: Annotated[list[Picture], Pair, "Pixels of a tile along I and J."]
    resize: Annotated[list[Picture], Pair, "Images are resampled to this size."] | None = None
    spacing: Annotated[list[Spacing], Pair, "Images are resampled to pixels of this size in mm."] | None = None
    orientation: None = None
    mirror_axes: Annotated[list[Literal[0, 1]], Items(0, 2, True), "Trained with flips along these."] | None = None
    field_of_view: FieldOfView | None = None


@dataclass(frozen=True)
class Region:
    """What the finder's label of this number stands for."""

    name: Annotated[Line, "Goes before the names of the labels: left."]
    modifier: Code | None = None
    shade: Annotated[float, Numbers(0, 1, above=True), "Makes the labels' colours darker."] = 1.0


@dataclass(frozen=True)
class Finder:
    """Where the structures lie in a larger volume says a second network, in finder.json and finder.safetensors."""

    region_mm: Annotated[
        list[Annotated[float, Numbers(1, 2000)]], Triple, "Size of the box around each, along the axes."
    ]
    regions: Annotated[list[Region], Items(1, 16), "One for each label of the finder, in its order."]


@dataclass(frozen=True, kw_only=True)
class Model3D(Model):
    """A model that takes volumes."""

    dimension: Literal[3]
    network: Network3D
    patch_size: Annotated[list[Patch], Triple, "Voxels of a tile along the model's axes."]
    resize: None = None
    spacing: Annotated[list[Spacing], Triple, "Volumes are resampled to voxels of this size in mm."] | None = None
    orientation: Orientation
    mirror_axes: Annotated[list[Literal[0, 1, 2]], Items(0, 3, True), "Trained with flips along these."] | None = None
    field_of_view: FieldOfView | None = None
    finder: Finder = LEFT_OUT


AnyModel = Annotated[Model2D | Model3D, "A ProSMA model package's model.json."]


def check_description(content: object, name: str = DESCRIPTION) -> Model:
    """What a model.json, or a file of another name, says. Raises PackageError with the first thing that is wrong."""
    if not isinstance(content, dict) or type(content.get("schema")) is not int:
        raise PackageError(f"{name} does not describe a ProSMA model: it names no schema.", EXPORT)
    if content["schema"] > SCHEMA:
        raise PackageError(
            f"The package was made for a newer ProSMA (schema {content['schema']}, this one reads up to {SCHEMA}).",
            "Update ProSMA to use it.",
        )
    try:
        model: Model = check(AnyModel, content)
        for path, wanted, found in rules_broken(model):
            raise Mismatch(path, wanted, found)
    except Mismatch as error:
        raise PackageError(f"In {name} {error.message}", EXPORT) from None
    return model


def least_schema(content: dict[str, Any]) -> int:
    """The lowest schema that can say this, so that older versions of ProSMA read what they can."""
    weights = content.get("weights", {})
    if weights.get("sets", 1) > 1 or any(name.startswith("bottleneck") for name in content.get("network", {})):
        return 3
    return 2 if weights.get("dtype") == "int8" else 1


def published_schema() -> str:
    """The text of docs/model.schema.json."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"model.json of a ProSMA model package, schema {SCHEMA}",
    }
    return json.dumps({**head, **json_schema(AnyModel)}, indent=1) + "\n"
