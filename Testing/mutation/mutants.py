"""Small faults put into a source: one operator, constant, term, call or statement changed at a time."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

SWAPPED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.MatMult: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
PAIRS = (
    *(
        ("max", "min"),
        ("any", "all"),
        ("floor", "ceil"),
        ("maximum", "minimum"),
        ("argmax", "argmin"),
        ("zeros", "ones"),
    ),
    *(("mean", "sum"), ("clamp_min", "clamp_max"), ("avg_pool2d", "max_pool2d"), ("avg_pool3d", "max_pool3d")),
    *(("zeros_like", "ones_like"), ("sqrt", "square"), ("exp", "log"), ("sorted", "list"), ("rint", "floor")),
)
RENAMED = {**dict(PAIRS), **{second: first for first, second in PAIRS}}
NOT_CODE = ("annotation", "returns", "decorator_list", "type_params")  # fields that change nothing when run


@dataclass(frozen=True)
class Mutant:
    """A source with one fault. `line` is where, `change` what, for a person."""

    line: int
    change: str
    tree: ast.Module


def mutants(source: str) -> list[Mutant]:
    """All faults that can be put into a source, in the order of its lines."""
    tree = ast.parse(source)
    found = []
    for path, node in places(tree):
        for changed in changes(node):
            mutated = copy.deepcopy(tree)
            put(mutated, path, changed)
            ast.fix_missing_locations(mutated)
            found.append(Mutant(node.lineno, f"{short(node)}  ->  {short(changed)}", mutated))
    return sorted(found, key=lambda mutant: mutant.line)


Path = tuple  # of (field, index or None) from the module down to a node


def places(node: ast.AST, path: Path = ()) -> Iterator[tuple[Path, ast.AST]]:
    """Each node that is run, with the way to it. Texts for people (docstrings, what is raised) are left out."""
    for field, value in ast.iter_fields(node):
        if field in NOT_CODE or (isinstance(node, ast.Raise) and field == "exc"):
            continue
        if isinstance(node, ast.keyword) and node.arg == "strict":  # of zip: differs for callers' mistakes alone
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.expr | ast.stmt) and not is_text(child):
                way = (*path, (field, index))
                yield way, child
                yield from places(child, way)
            elif isinstance(child, ast.AST) and not isinstance(child, ast.expr | ast.stmt):
                yield from places(child, (*path, (field, index)))


def is_text(node: ast.AST) -> bool:
    """Whether a statement is only a text, such as a docstring, or an import."""
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, ast.Import | ast.ImportFrom)


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What a node can be changed to."""
    if isinstance(node, ast.Constant):
        yield from constants(node)
    elif isinstance(node, ast.expr):
        yield from expressions(node)
    else:
        yield from statements(node)


def expressions(node: ast.expr) -> Iterator[ast.expr]:
    """Operators are swapped or left out, with what is on their right; functions take their opposite's place."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in SWAPPED:
            yield ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right)
        yield node.left
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(SWAPPED[type(node.op)](), node.values)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.Compare(node.left, [SWAPPED[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in RENAMED:
        yield ast.Name(RENAMED[node.id], ast.Load())
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in RENAMED:
        yield ast.Attribute(node.value, RENAMED[node.attr], ast.Load())


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """What is added to a variable, a call for its effect, and what is done on a condition are left out."""
    if isinstance(node, ast.AugAssign):
        if type(node.op) in SWAPPED:
            yield ast.AugAssign(node.target, SWAPPED[type(node.op)](), node.value)
        yield ast.Pass()
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()
    elif isinstance(node, ast.If) and not node.orelse:
        yield ast.If(ast.Constant(False), node.body, [])


def constants(node: ast.Constant) -> Iterator[ast.Constant]:
    """Another value of the same kind; strings stay as they are."""
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node.value, float):
        yield ast.Constant(2 * node.value if node.value else 1.0)


def put(tree: ast.AST, path: Path, new: ast.AST) -> None:
    """Put a copy of a node where the path leads."""
    *above, (field, index) = path
    for name, number in above:
        tree = getattr(tree, name) if number is None else getattr(tree, name)[number]
    new = copy.deepcopy(new)
    if index is None:
        setattr(tree, field, new)
    else:
        getattr(tree, field)[index] = new


def short(node: ast.AST) -> str:
    """The first line of a node's code."""
    line = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()[0]
    return line if len(line) <= 70 else f"{line[:67]}..."
