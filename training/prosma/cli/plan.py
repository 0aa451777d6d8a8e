"""`prosma plan`: a recipe that fits the data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .common import FOLD_HELP, SEVERAL_HELP, add_command, check_data, data_options, whole_number


def add_parser(commands) -> None:
    examples = ["prosma plan --data DATA -o recipe.yaml"]
    plan = add_command(commands, "plan", run, "write a recipe that fits a folder of labelled images", examples)
    plan.add_argument("--data", required=True, action="append", help=SEVERAL_HELP)
    plan.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="YAML file")
    plan.add_argument("--fold", type=whole_number(0), default=0, help=FOLD_HELP)


def run(options: argparse.Namespace) -> int:
    check_data(options.data, options.fold)
    plan_into(options.output, options.data, options.fold)
    print(f"Next: prosma train {options.output} {data_options(options.data)} -o RUN")
    return 0


def plan_into(path: Path, data: list[str], fold: int):
    """Plan a recipe for ``data``, write it to ``path``, say in a line what was chosen, and return it."""
    from ..learning.fit.planning import plan_folder, write_recipe

    recipe, text = plan_folder(data, print_reading, fold)
    write_recipe(path, text)
    model, fitting = recipe.model, recipe.fitting
    print(
        f"Planned {path}: {model['dimension']}D, {names(model['channels'])}; to find: {names(model['labels'])}; "
        f"patches of {' x '.join(map(str, model['patch_size']))}, {fitting.batch_size} a step, "
        f"intensity rule '{model['intensity']['rule']}'",
        file=sys.stderr,
    )
    return recipe


def names(entries: list[dict]) -> str:
    return ", ".join(entry["name"] for entry in entries)


def print_reading(done: int, total: int) -> None:
    """Now and then a line on stderr while cases are read."""
    if done == total or done % 100 == 0:
        print(f"Read {done} of {total} cases", file=sys.stderr)
