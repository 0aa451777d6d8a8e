"""Contracts: dataclasses whose types say which JSON values are right. Checks, error texts and JSON schemas come from them.

A type may be bool, int, float, str, None, Any, a Literal, list[X], dict[str, X], a dataclass, a union of these, or
Annotated[X, ...] with limits (`Numbers`, `Text`, `Items`) and a sentence for the schema. A field with a default may be left
out. Entries of an object that no field names are let through, unless the dataclass says otherwise with
`OTHERS: ClassVar[Any]`: None forbids them, a type is what they have to be. Dataclasses in a union are told apart by a Literal
field that all have. Needs the standard library alone.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import re
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union

from .errors import UserFacingError

SHOWN = 60  # characters of a wrong value in an error


@dataclass(frozen=True)
class Numbers:
    """Limits of a number; with `above`, `least` itself is too small."""

    least: float = -1e30
    most: float = 1e30
    above: bool = False

    def __str__(self) -> str:
        least, most = f"{self.least:.15g}", f"{self.most:.15g}"
        return f"above {least} and at most {most}" if self.above else f"from {least} to {most}"


@dataclass(frozen=True)
class Text:
    """Limits of a text. The whole text matches `pattern`, which begins with ^ and ends in $; `words` say what that means."""

    longest: int = 1000
    pattern: str = r"^[\s\S]*$"
    words: str = "a text"
    any_bytes: bool = False  # names of files may hold bytes that are no text, as Python writes them


@dataclass(frozen=True)
class Items:
    """How many items a list has (or entries an object), and whether all are different."""

    least: int = 0
    most: int = 1000
    distinct: bool = False

    def __str__(self) -> str:
        return f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"


class Mismatch(UserFacingError):
    """A value that its type does not allow. `path` names it, such as "labels[0].color"."""

    def __init__(self, path: str, wanted: str, found: object) -> None:
        super().__init__(f"{f'{path!r}' if path else 'This'} should be {wanted}, not {shown(found)}.")
        self.path = path


class Missing(Mismatch):
    """An entry that is not there."""

    def __init__(self, path: str, wanted: str) -> None:
        super().__init__(path, wanted, None)
        self.message = f"'{path}' is missing; it should be {wanted}."


def check(kind: Any, value: Any, path: str = "") -> Any:
    """`value` if the type `kind` allows it, with objects as dataclasses; raises `Mismatch` for the first wrong thing."""
    return rule_of(kind).check(value, path)


def json_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema (2020-12) of a type: it allows what `check` allows, as far as such a schema can tell.

    It cannot tell 1.0 from 1, for JSON has one kind of number.
    """
    rule = rule_of(kind)
    objects = {each.name: each.schema() for each in all_parts(rule) if isinstance(each, Object)}
    return {**rule.described(), "$defs": objects}


class Rule(ABC):
    """What one type allows: `check` a value, `words` for an error, `schema` for JSON schema with a `sentence` about it."""

    words: str
    sentence = ""
    choices: Sequence[Any] = ()  # of a Literal
    parts: Sequence[Rule] = ()

    @abstractmethod
    def check(self, value: Any, path: str) -> Any:
        """The value, objects as dataclasses. Raises Mismatch."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """The JSON schema without the sentence."""

    def described(self) -> dict[str, Any]:
        return {"description": self.sentence, **self.schema()} if self.sentence else self.schema()


class Plain(Rule):
    """A value without parts."""

    def __init__(self, words: str, allows: Callable[[Any], bool], schema: dict[str, Any]) -> None:
        self.words, self.allows, self._schema = words, allows, schema

    def check(self, value: Any, path: str) -> Any:
        if not self.allows(value):
            raise Mismatch(path, self.words, value)
        return value

    def schema(self) -> dict[str, Any]:
        return self._schema


class Writing(Plain):
    """A text; one that is too long is told so."""

    def check(self, value: Any, path: str) -> Any:
        longest = self.schema()["maxLength"]
        if isinstance(value, str) and len(value) > longest:
            raise Mismatch(path, f"{self.words} of at most {longest} characters", value)
        return super().check(value, path)


class Choice(Plain):
    """One of the values of a Literal; True is no 1 here."""

    def __init__(self, choices: Sequence[Any]) -> None:
        super().__init__(either(choices), self._has, {"enum": list(choices)})
        self.choices = choices

    def _has(self, value: Any) -> bool:
        return any(same(choice, value) for choice in self.choices)


class ListOf(Rule):
    """A list of one type."""

    def __init__(self, item: Rule, size: Items) -> None:
        self.item, self.size, self.parts = item, size, [item]
        self.words = f"a list of {size}, each {'different, ' if size.distinct else ''}{item.words}"

    def check(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list) or not self.size.least <= len(value) <= self.size.most:
            raise Mismatch(path, self.words, value)
        found = [self.item.check(each, f"{path}[{number}]") for number, each in enumerate(value)]
        if self.size.distinct and any(each in value[:number] for number, each in enumerate(value)):
            raise Mismatch(path, self.words, value)
        return found

    def schema(self) -> dict[str, Any]:
        size: dict[str, Any] = {"minItems": self.size.least, "maxItems": self.size.most}
        distinct = {"uniqueItems": True} if self.size.distinct else {}
        return {"type": "array", "items": self.item.described(), **size, **distinct}


class DictOf(Rule):
    """An object whose entries are of one type, whatever their names."""

    def __init__(self, entry: Rule, size: Items) -> None:
        self.entry, self.size, self.parts = entry, size, [entry]
        self.words = f"an object of {size} entries"

    def check(self, value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict) or not self.size.least <= len(value) <= self.size.most:
            raise Mismatch(path, self.words, value)
        return {name: self.entry.check(each, below(path, name)) for name, each in value.items()}

    def schema(self) -> dict[str, Any]:
        size = {"minProperties": self.size.least, "maxProperties": self.size.most}
        return {"type": "object", "additionalProperties": self.entry.described(), **size}


class Object(Rule):
    """A dataclass."""

    words = "an object"

    def __init__(self, kind: Any) -> None:
        self.kind, self.name = kind, kind.__name__
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = dataclasses.fields(kind)
        self.fields = {field.name: rule_of(hints[field.name]) for field in fields}
        nothing = dataclasses.MISSING
        self.required = [each.name for each in fields if each.default is nothing and each.default_factory is nothing]
        others = getattr(kind, "OTHERS", Any)
        self.others = None if others is None else rule_of(others)
        self.parts = [*self.fields.values(), *([] if self.others is None else [self.others])]

    def check(self, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise Mismatch(path, self.words, value)
        for name in self.required:
            if name not in value:
                raise Missing(below(path, name), self.fields[name].words)
        for name, each in value.items():
            if name not in self.fields and self.others is None:
                raise Mismatch(below(path, name), f"left out (known are {', '.join(self.fields)})", each)
            if name not in self.fields and self.others is not None:
                self.others.check(each, below(path, name))
        given = {name: rule for name, rule in self.fields.items() if name in value}
        return self.kind(**{name: rule.check(value[name], below(path, name)) for name, rule in given.items()})

    def schema(self) -> dict[str, Any]:
        return {
            "description": " ".join((inspect.getdoc(self.kind) or "").split("\n\n")[0].split()),
            "type": "object",
            "properties": {name: rule.described() for name, rule in self.fields.items()},
            "required": self.required,
            "additionalProperties": False if self.others is None else self.others.described() or True,
        }

    def described(self) -> dict[str, Any]:
        return {"$ref": f"#/$defs/{self.name}"}


class OneOf(Rule):
    """A union. Its objects are told apart by their tag, a Literal field that all of them have."""

    def __init__(self, members: Sequence[Rule]) -> None:
        self.members = self.parts = members
        self.words = " or ".join(dict.fromkeys(member.words for member in members))
        self.objects = [member for member in members if isinstance(member, Object)]
        self.lists = [member for member in members if isinstance(member, ListOf)]

    def check(self, value: Any, path: str) -> Any:
        if isinstance(value, dict) and self.objects:
            return self._object_for(value, path).check(value, path)
        if isinstance(value, list) and len(self.lists) == 1:
            return self.lists[0].check(value, path)
        for member in self.members:
            try:
                return member.check(value, path)
            except Mismatch:
                continue
        raise Mismatch(path, self.words, value)

    def _object_for(self, value: dict[str, Any], path: str) -> Object:
        first, *more = self.objects
        if not more:
            return first
        tag = next(name for name in first.fields if is_tag([each.fields.get(name) for each in self.objects]))
        kinds = {choice: each for each in self.objects for choice in each.fields[tag].choices}
        words = either(list(kinds))
        if tag not in value:
            raise Missing(below(path, tag), words)
        for choice, each in kinds.items():
            if same(choice, value[tag]):
                return each
        raise Mismatch(below(path, tag), words, value[tag])

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [member.described() for member in self.members]}


@functools.cache
def rule_of(kind: Any) -> Rule:
    """The rule that a type stands for. TypeError for a type that no contract knows."""
    notes: Sequence[Any] = ()
    if typing.get_origin(kind) is Annotated:
        kind, *notes = typing.get_args(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    size = next((note for note in notes if isinstance(note, Items)), Items())
    rule: Rule
    if origin in (Union, types.UnionType):
        rule = OneOf([rule_of(member) for member in arguments])
    elif origin is Literal:
        rule = Choice(arguments)
    elif origin is list:
        rule = ListOf(rule_of(arguments[0]), size)
    elif origin is dict:
        rule = DictOf(rule_of(arguments[1]), size)
    elif dataclasses.is_dataclass(kind):
        rule = Object(kind)
    else:
        rule = plain_rule(kind, notes)
    rule.sentence = next((note for note in notes if isinstance(note, str)), rule.sentence)
    return rule


def plain_rule(kind: Any, notes: Sequence[Any]) -> Rule:
    """The rule of a type without parts. TypeError for a type that no contract knows."""
    if kind is str:
        text = next((note for note in notes if isinstance(note, Text)), Text())
        schema = {"type": "string", "maxLength": text.longest, "pattern": text.pattern}
        return Writing(text.words, functools.partial(is_text, text), schema)
    if kind in (int, float):
        limits = next((note for note in notes if isinstance(note, Numbers)), Numbers())
        name, words = ("integer", "a whole number") if kind is int else ("number", "a number")
        least = "exclusiveMinimum" if limits.above else "minimum"
        schema = {"type": name, least: limits.least, "maximum": limits.most}
        words = words if limits == Numbers() else f"{words} {limits}"
        return Plain(words, functools.partial(is_number, limits, kind is int), schema)
    if kind is bool:
        return Plain("true or false", lambda value: isinstance(value, bool), {"type": "boolean"})
    if kind in (None, types.NoneType):
        return Plain("null", lambda value: value is None, {"type": "null"})
    if kind is Any:
        return Plain("anything", lambda value: True, {})
    raise TypeError(f"No contract knows the type {kind}.")


def all_parts(rule: Rule) -> Iterator[Rule]:
    """A rule and those that it consists of."""
    yield rule
    for part in rule.parts:
        yield from all_parts(part)


def is_tag(rules: Sequence[Rule | None]) -> bool:
    """Whether fields of one name tell dataclasses apart: Literals without a value in common."""
    choices = [choice for rule in rules if rule is not None for choice in rule.choices]
    return all(rule is not None and rule.choices for rule in rules) and len(set(choices)) == len(choices)


def same(choice: object, value: object) -> bool:
    """Whether a value is the choice; true is not 1."""
    return type(value) is type(choice) and value == choice


def is_text(limits: Text, value: object) -> bool:
    if not isinstance(value, str) or len(value) > limits.longest or not re.fullmatch(limits.pattern, value):
        return False
    halves = [character for character in value if "\ud800" <= character <= "\udfff"]  # which cannot be written
    return not halves or (limits.any_bytes and all("\udc80" <= character <= "\udcff" for character in halves))


def is_number(limits: Numbers, whole: bool, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return limits.least <= value <= limits.most and not (limits.above and value == limits.least)


def below(path: str, name: str) -> str:
    """The path of an entry of what is at `path`."""
    name = name if name.isidentifier() else shown(name)
    return f"{path}.{name}" if path else name


def either(choices: Sequence[Any]) -> str:
    """Values as "'a', 'b' or 'c'"."""
    *first, last = [shown(choice) for choice in choices]
    return f"{', '.join(first)} or {last}" if first else last


def shown(value: object) -> str:
    """A value as it may stand in a sentence: short, and without anything that a terminal would obey."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    try:
        text = f"'{value[: SHOWN + 1]}'" if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # numbers of thousands of digits, lists of thousands of levels
        return "something too long to show"
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= SHOWN + 2 else f"{text[:SHOWN]} ..."
