"""Refusals of the engine and of the module, and the tests that do what they say.

Each refusal is named by a text "FILE: WORDS": the file below training/prosma or ProSMASegmentation, of which the first
folders may be left out, and words of its message or remedy. A test that provokes a refusal, does what the remedy says and
sees that it works is marked with `tries`; the mark is checked while the test runs. `engine/remedies/untried.py` and
`module/remedies/untried_by_panel.py` give the reason for those that no test can follow.
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

TESTING = Path(__file__).resolve().parent
NAMED = re.compile(r"[A-Za-z_/]+\.py: \S.*")


class Part(NamedTuple):
    """A part of ProSMA that makes refusals: the folder of its code, that of its tests, where its errors are, their class.

    `helper`: the name of the methods that make a refusal of what they are given; then it is their caller's.
    """

    code: Path
    tests: Path
    module: str
    family: str
    helper: str = ""


ENGINE = Part(TESTING.parent / "training" / "prosma", TESTING / "engine", "prosma.errors", "UserFacingError")
PANEL = Part(
    TESTING.parent / "ProSMASegmentation",
    TESTING / "module",
    "ProSMASegmentationLib.Base.ProSMAError",
    "ProSMAError",
    "_refuse",
)


class Refusal(NamedTuple):
    """One place of the code that makes a refusal: its file, its lines, and all words of its message and remedy."""

    file: str
    first: int
    last: int
    text: str

    def is_named(self, name: str) -> bool:
        file, _, words = name.partition(": ")
        return f"/{self.file}".endswith(f"/{file}") and words in self.text


def tries(*names: str):
    """Marks a test that follows the remedies of these refusals."""
    for name in names:
        assert NAMED.fullmatch(name), name
    return pytest.mark.tries(*names)


@functools.cache
def refusals(part: Part = ENGINE) -> tuple[Refusal, ...]:
    """Every refusal in the code of a part."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(part.code.rglob("*.py"))}
    family = family_of(trees.values(), part)
    constants = {name: text for tree in trees.values() for name, text in assigned(tree.body).items() if name.isupper()}
    return tuple(
        refusal
        for path, tree in trees.items()
        for refusal in refusals_in(path.relative_to(part.code).as_posix(), tree, family, constants)
    )


def family_of(trees, part: Part) -> set[str]:
    """Names of the classes that are refusals, and of what makes one."""
    bases = {
        node.name: {getattr(base, "id", getattr(base, "attr", "")) for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    family = {part.family}
    while more := {name for name, above in bases.items() if above & family} - family:
        family |= more
    return family | ({part.helper} if part.helper else set())


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
    with contextlib.ExitStack() as stack:
        for part in parts_here():
            for family in classes_of(part):
                stack.enter_context(recorded(part, family, made))
        yield made


def meets(names: Iterable[str]) -> Iterator[None]:
    """For a fixture: the refusals of these names are made while a test runs."""
    with made_refusals() as made:
        yield
    unmet = [name for name in names if not any(each.is_named(name) for each in made)]
    assert not unmet, f"marked as tried, but not met: {unmet}"


def parts_here() -> list[Part]:
    """The parts that are loaded: the module only where a Slicer runs."""
    return [part for part in (ENGINE, PANEL) if part.module in sys.modules]


def class_of(part: Part) -> type[Exception]:
    return getattr(sys.modules[part.module], part.family)


def classes_of(part: Part) -> set[type[Exception]]:
    """The family of a part, and that of before a reload, which the Segment Editor's effect keeps."""
    everything = [vars(module) for module in list(sys.modules.values()) if module is not None]  # None: not to be had
    found = [names.get(part.family) for names in everything]
    return {class_of(part), *(each for each in found if isinstance(each, type))}


@contextlib.contextmanager
def recorded(part: Part, family: type[Exception], made: set[Refusal]) -> Iterator[None]:
    """Meanwhile the refusals of a class of a part are added to `made`."""
    usual = family.__init__

    def init(self, *arguments, **options):
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_locals.get("self") is self:
            frame = frame.f_back
        made.update(refusal_at(part, frame.f_code.co_filename, frame.f_lineno))
        if frame.f_back is not None and frame.f_code.co_name == part.helper:
            made.update(refusal_at(part, frame.f_back.f_code.co_filename, frame.f_back.f_lineno))
        usual(self, *arguments, **options)

    family.__init__ = init
    try:
        yield
    finally:
        family.__init__ = usual


def refusal_at(part: Part, path: str, line: int) -> list[Refusal]:
    """The refusal at a line of a part's code, if it is one."""
    here = [each for each in refusals(part) if path.endswith(f"/{part.code.name}/{each.file}")]
    return [each for each in here if each.first <= line <= each.last][-1:]


@functools.cache
def names_in_tests(part: Part = ENGINE) -> dict[str, Path]:
    """Every name of a refusal that stands in a test of a part, with the test's file."""
    found = {}
    for path in sorted(part.tests.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
                found[node.value] = path
    return found


def without_test(part: Part, reasons: Iterable[str]) -> list[str]:
    """The refusals of a part that no test names and for which there is no reason, as lines."""
    names = [*names_in_tests(part), *reasons]
    missing = [each for each in refusals(part) if not any(each.is_named(name) for name in names)]
    return [f"{each.file}:{each.first} {each.text[:150]}" for each in missing]


def names_of_nothing(part: Part, reasons: Iterable[str]) -> list[str]:
    """The names in the tests of a part, and those with a reason, that are no refusal's."""
    names = [*names_in_tests(part), *reasons]
    return [name for name in names if not any(each.is_named(name) for each in refusals(part))]


def refused(name: str, remedy: str, do: Callable, /, *arguments, **options):
    """The error that `do` raises with these arguments: the refusal of this name, with these words of what is to be done."""
    families = tuple(map(class_of, parts_here()))
    with made_refusals() as made, pytest.raises(families) as caught:
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
