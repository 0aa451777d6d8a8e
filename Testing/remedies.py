"""Refusals of the engine and the tests that do what they say.

Each refusal in training/prosma is named by a text "FILE: WORDS": the file below training/prosma and words of its message or
remedy. A test that provokes a refusal, does what the remedy says and sees that it works is marked with `tries`; the mark is
checked while the test runs. `Testing/engine/remedies/untried.py` gives the reason for those that no test can follow.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from prosma.cli.app import main
from prosma.errors import UserFacingError

ENGINE = Path(__file__).resolve().parents[1] / "training" / "prosma"
FAMILY = "UserFacingError"
NAMED = re.compile(r"[a-z_/]+\.py: \S.*")


class Refusal(NamedTuple):
    """One place of the code that makes a refusal: its file, its lines, and all words of its message and remedy."""

    file: str
    first: int
    last: int
    text: str

    def is_named(self, name: str) -> bool:
        file, _, words = name.partition(": ")
        return file == self.file and words in self.text


def tries(*names: str):
    """Marks a test that follows the remedies of these refusals."""
    for name in names:
        assert NAMED.fullmatch(name), name
    return pytest.mark.tries(*names)


@functools.cache
def refusals() -> tuple[Refusal, ...]:
    """Every refusal in the code of the engine."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ENGINE.rglob("*.py"))}
    family = family_of(trees.values())
    constants = {name: text for tree in trees.values() for name, text in assigned(tree.body).items() if name.isupper()}
    return tuple(
        refusal
        for path, tree in trees.items()
        for refusal in refusals_in(path.relative_to(ENGINE).as_posix(), tree, family, constants)
    )


def family_of(trees) -> set[str]:
    """Names of the classes that are refusals."""
    bases = {
        node.name: {getattr(base, "id", getattr(base, "attr", "")) for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    family = {FAMILY}
    while more := {name for name, above in bases.items() if above & family} - family:
        family |= more
    return family


def refusals_in(file: str, tree: ast.Module, family: set[str], constants: dict[str, str]) -> Iterator[Refusal]:
    """The refusals of a module; texts behind names are those of the function around, or `constants`."""
    calls: dict[ast.Call, ast.AST] = {}
    for scope in ast.walk(tree):  # outer functions before inner ones
        if isinstance(scope, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(scope):
                if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in family:
                    calls[node] = scope
    for call, scope in calls.items():
        known = {**constants, **assigned(ast.walk(scope))}
        names = sorted({node.id for node in ast.walk(call) if isinstance(node, ast.Name)})
        words = " ".join([*texts(call), *(known[name] for name in names if name in known)])
        yield Refusal(file, call.lineno, call.end_lineno or call.lineno, f"{words} | {ast.unparse(call)}")


def assigned(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """The texts that are given to names in some statements, all of a name together."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and (words := " ".join(texts(node.value))):
                    found[target.id] = f"{found.get(target.id, '')} {words}".strip()
    return found


def texts(node: ast.AST) -> Iterator[str]:
    """The texts inside an expression; what is filled in is written as "...". An f-string is one text."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
    else:
        for child in ast.iter_child_nodes(node):
            yield from texts(child)


@contextlib.contextmanager
def made_refusals() -> Iterator[set[Refusal]]:
    """The refusals that are made meanwhile in this process."""
    made: set[Refusal] = set()
    usual = UserFacingError.__init__

    def recorded(self, *arguments, **options):
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_locals.get("self") is self:
            frame = frame.f_back
        made.update(refusal_at(frame.f_code.co_filename, frame.f_lineno))
        usual(self, *arguments, **options)

    UserFacingError.__init__ = recorded
    try:
        yield made
    finally:
        UserFacingError.__init__ = usual


def refusal_at(path: str, line: int) -> list[Refusal]:
    """The refusal at a line of the engine's code, if it is one."""
    return [each for each in refusals() if path.endswith(f"/prosma/{each.file}") and each.first <= line <= each.last][
        -1:
    ]


@functools.cache
def names_in_tests() -> dict[str, Path]:
    """Every name of a refusal that stands in a test of the engine, with the test's file."""
    found = {}
    for path in sorted((Path(__file__).parent / "engine").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
                found[node.value] = path
    return found


def refused(name: str, remedy: str, do: Callable, *arguments, **options) -> UserFacingError:
    """The error that `do` raises with these arguments: the refusal of this name, with these words of what is to be done."""
    with made_refusals() as made, pytest.raises(UserFacingError) as caught:
        do(*arguments, **options)
    assert any(each.is_named(name) for each in made), (name, caught.value)
    assert remedy in str(caught.value), caught.value
    return caught.value


def complained(name: str, remedy: str, arguments: Sequence[object], capsys) -> str:
    """What the command line says of the refusal of this name, with these words of what is to be done."""
    with made_refusals() as made:
        code = main(list(map(str, arguments)))
    told = capsys.readouterr().err
    assert code, told
    assert any(each.is_named(name) for each in made), (name, told)
    assert remedy in told, told
    return told
