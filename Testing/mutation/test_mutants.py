"""The faults of a mutation run: one at a time, in what is run, and none in texts."""

import ast

import pytest
from mutants import mutants
from named import NAMED
from run import SUBJECTS


def changed(source: str) -> set[str]:
    return {ast.unparse(mutant.tree) for mutant in mutants(source)}


def test_operators_constants_and_terms_are_changed_one_at_a_time():
    assert changed("y = a + 2") == {"y = a - 2", "y = a", "y = a + 3"}
    assert changed("y = a < 0.5") == {"y = a <= 0.5", "y = a < 1.0"}
    assert changed("y = a and not b") == {"y = a or not b", "y = a and b"}
    assert changed("y = b if a else c") == {"y = c if a else b"}
    assert changed("y = max(x.mean(), z)") == {"y = min(x.mean(), z)", "y = max(x.sum(), z)"}
    assert changed("y = f(True, n=-1)") == {"y = f(False, n=-1)", "y = f(True, n=1)", "y = f(True, n=-2)"}


def test_statements_are_left_out():
    assert changed("x += y") == {"x -= y", "pass"}
    assert changed("f(x)") == {"pass"}
    assert changed("if a:\n    f()") == {"if False:\n    f()", "if a:\n    pass"}


def test_texts_types_and_checks_of_lengths_stay():
    assert not changed('"""A text."""\nimport x\nfrom y import z')
    assert not changed("def f(a: int | None) -> list[2]:\n    raise E(f'{a + 1} is 3')")
    assert not changed("zip(a, b, strict=True)".join(("y = ", "")))


def test_a_mutant_says_where_and_what():
    (mutant,) = mutants("x = 1\n\nz = not y")[1:]
    assert (mutant.line, mutant.change) == (3, "not y  ->  y")


@pytest.mark.parametrize("fault", NAMED, ids=lambda fault: fault.name)
def test_a_fault_with_a_name_changes_the_code_that_it_names(fault):
    source = SUBJECTS[fault.subject].path.read_text(encoding="utf-8")
    assert ast.dump(fault.tree(source)) != ast.dump(ast.parse(source))
    with pytest.raises(ValueError, match="occurs 0 times"):
        fault.tree(ast.unparse(fault.tree(source)))
