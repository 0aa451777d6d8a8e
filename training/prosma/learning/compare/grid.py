"""The plan of a comparison: one YAML file with a base recipe, variants of the skip, seeds and degraded test images."""

from __future__ import annotations

import copy
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from ...errors import UserFacingError
from ...network.unet import ProSMAUNet
from ..recipe import Recipe, RecipeError
from .degrading import KINDS

SKIP_ENTRIES = ("skip", "gate", "dilations", "channel_gate", "field_grid", "threshold_init", "gain_init")
BOTTLENECK_ENTRIES = ("bottleneck", "bottleneck_blocks", "bottleneck_heads")
SECTIONS = ("model", "network", "augmentation", "fitting")


class GridError(UserFacingError):
    """A comparison that cannot be run; the message names the entry."""


@dataclass(frozen=True)
class Grid:
    """Variants of one recipe that differ in the skip and the bottleneck alone, each trained with every seed.

    A seed fixes the patches, their random changes, and the initial weights of everything but the skips' gates and the
    bottleneck, which is the same for all variants; these start from random weights of their own.
    """

    name: str
    title: str
    base: dict  # content of a recipe: the base recipe with the changes that all variants share
    variants: dict[str, dict]  # name -> network entries about the skip or the bottleneck
    seeds: list[int]
    reference: str
    pairs: list[list[str]] = field(default_factory=list)  # further [variant, variant it is compared with]
    degradations: dict[str, list[float]] = field(default_factory=dict)  # kind -> rising levels
    split: str = "test"

    @classmethod
    def read(cls, path: str | os.PathLike) -> Grid:
        """Read and check a comparison's file. Raises GridError with the file and the entry."""
        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls.from_dict(content, path.parent)
        except (OSError, ValueError, yaml.YAMLError, GridError, RecipeError) as error:
            raise GridError(f"The comparison '{path}' cannot be run: {error}") from error

    @classmethod
    def from_dict(cls, content: object, folder: Path) -> Grid:
        """``content`` of a file in ``folder``. Raises GridError or RecipeError."""
        if not isinstance(content, dict):
            raise GridError("it should be a YAML mapping with 'name', 'recipe', 'variants', 'seeds' and 'reference'.")
        known = {"recipe", "changes", *(entry.name for entry in fields(cls))} - {"base"}
        missing = [name for name in ("name", "recipe", "variants", "seeds", "reference") if name not in content]
        unknown = [name for name in content if name not in known]
        if missing or unknown:
            raise GridError(f"'{(missing + unknown)[0]}' is {'missing' if missing else 'no entry of a comparison'}.")
        entries = {name: value for name, value in content.items() if name not in ("recipe", "changes")}
        base = changed(Recipe.read(folder / str(content["recipe"])).to_dict(), content.get("changes") or {})
        base["model"].pop(
            "finder", None
        )  # a network of its own, which the variants of the skip have nothing to do with
        grid = cls(**{"title": str(content["name"]), **entries, "base": base})
        grid.check()
        return grid

    def check(self) -> None:
        """Raise GridError with the first entry that is wrong; every variant's network is laid out once."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", str(self.name)):
            raise GridError(f"'name' should be of lower-case letters, digits, '-' and '_', not '{self.name}'.")
        if not isinstance(self.variants, dict) or len(self.variants) < 2:
            raise GridError("'variants' should name at least two variants.")
        if not are_different_numbers(self.seeds):
            raise GridError(f"'seeds' should be a list of different whole numbers, not {self.seeds}.")
        for entry, names in (("reference", [self.reference]), *(("pairs", pair) for pair in self.pairs)):
            absent = [name for name in names if name not in self.variants]
            if absent or (entry == "pairs" and len(names) != 2):
                raise GridError(f"'{entry}' should name variants ({', '.join(self.variants)}), not {names}.")
        self.check_degradations()
        for variant in self.variants:
            self.check_variant(variant)

    def check_degradations(self) -> None:
        if not isinstance(self.degradations, dict):
            raise GridError(f"'degradations' should be a mapping of kinds and levels, not {self.degradations!r}.")
        for kind, levels in self.degradations.items():
            if kind not in KINDS:
                raise GridError(f"'degradations' has no kind '{kind}'; there are {', '.join(KINDS)}.")
            numbers = isinstance(levels, list) and all(isinstance(level, (int, float)) for level in levels)
            if not (numbers and levels and levels[0] > 0 and levels == sorted(set(levels))):
                raise GridError(f"'degradations: {kind}' should be rising positive numbers, not {levels}.")

    def check_variant(self, variant: str) -> None:
        entries = self.variants[variant]
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", str(variant)):
            raise GridError(f"The variant '{variant}' should be of lower-case letters, digits, '-' and '_'.")
        known = (*SKIP_ENTRIES, *BOTTLENECK_ENTRIES)
        wrong = [name for name in entries or {} if name not in known]
        if wrong or not isinstance(entries, dict):
            raise GridError(
                f"'variants: {variant}' may change the skip and the bottleneck alone ({', '.join(known)}), "
                f"not {wrong[0] if wrong else entries!r}."
            )
        try:
            ProSMAUNet(**self.recipe(variant, self.seeds[0]).network_arguments)
        except (TypeError, ValueError) as error:
            raise GridError(f"'variants: {variant}' describes no network: {error}.") from error

    def recipe(self, variant: str, seed: int) -> Recipe:
        """The recipe of one run. Raises RecipeError."""
        content = changed(self.base, {"network": self.variants[variant], "fitting": {"seed": seed}})
        return Recipe.from_dict(content)

    @property
    def comparisons(self) -> list[tuple[str, str]]:
        """Pairs (variant, what it is compared with): all others with the reference, then ``pairs``."""
        others = [(name, self.reference) for name in self.variants if name != self.reference]
        pairs = [(one, other) for one, other in self.pairs]
        return others + [pair for pair in pairs if pair not in others]

    @property
    def conditions(self) -> list[tuple[str, float]]:
        """What the test images go through: (kind, level) for each degradation."""
        return [(kind, level) for kind, levels in self.degradations.items() for level in levels]


def changed(recipe: dict, changes: dict) -> dict:
    """A recipe's content with entries replaced section by section. Raises GridError for unknown sections."""
    if not isinstance(changes, dict):
        raise GridError(f"'changes' should hold sections of a recipe, not {changes!r}.")
    result = copy.deepcopy(recipe)
    for section, entries in changes.items():
        if section not in SECTIONS or not isinstance(entries, dict):
            raise GridError(f"'changes: {section}' should be a mapping and one of {', '.join(SECTIONS)}.")
        result[section].update(copy.deepcopy(entries))
    return result


def are_different_numbers(seeds: object) -> bool:
    if not (isinstance(seeds, list) and seeds and all(isinstance(seed, int) for seed in seeds)):
        return False
    return len(set(seeds)) == len(seeds)
