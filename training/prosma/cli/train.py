"""`prosma train`: a model from labelled images."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

from .common import (
    FOLD_HELP,
    SEVERAL_HELP,
    add_command,
    add_device,
    check_data,
    check_file,
    data_options,
    holds_other_data,
    insist_on_device,
    whole_number,
)
from .plan import plan_into


def add_parser(commands) -> None:
    examples = ["prosma train --data DATA -o RUN", "prosma train recipe.yaml --data DATA -o RUN --resume"]
    train = add_command(commands, "train", run, "train a model on a folder of labelled images", examples)
    train.add_argument("recipe", nargs="?", help="YAML file; without it one is planned from the data: RUN/recipe.yaml")
    train.add_argument("--data", required=True, action="append", help=SEVERAL_HELP)
    train.add_argument(
        "-o", "--output", "--out", dest="out", required=True, metavar="RUN", help="folder for checkpoint and logs"
    )
    train.add_argument("--resume", action="store_true", help="go on with the run in RUN from its last epoch")
    train.add_argument("--deterministic", action="store_true", help="same weights to the bit, also after --resume")
    train.add_argument("--max-epochs", type=whole_number(1), help="fewer epochs than the recipe says (default: all)")
    train.add_argument("--fold", type=whole_number(0), help=f"{FOLD_HELP} (default: that of the recipe)")
    add_device(train, "--accelerator")
    train.add_argument(
        "--devices", type=device_count, default="auto", help="number of cards, or of processes with --device cpu"
    )
    train.add_argument("--nodes", type=whole_number(1), default=1, help="number of machines, for torchrun and SLURM")
    train.add_argument("--workers", type=whole_number(0), default=1, help="processes that prepare patches")


def run(options: argparse.Namespace) -> int:
    if options.recipe:
        check_file(options.recipe, "recipe")
    check_data(options.data, options.fold)
    insist_on_device(options.device)
    from ..inference.devices import import_torch

    import_torch()  # first: it settles how threads wait, which decides what the processes that prepare patches get done
    from ..learning.fit.fitting import train

    warnings.filterwarnings("ignore", message="Checkpoint directory")  # a run's folder holds its recipe from the start
    warnings.filterwarnings("ignore", message="Grad strides do not match")  # 1 x 1 kernels, on several devices
    recipe = recipe_for(options)
    if options.max_epochs:
        recipe.fitting.epochs = options.max_epochs
        recipe.fitting.validate_every = min(recipe.fitting.validate_every, options.max_epochs)
    if options.fold is not None:
        recipe.fitting.fold = options.fold
        recipe.check()
    last = train(
        recipe,
        options.data,
        options.out,
        resume=options.resume,
        deterministic=options.deterministic,
        devices=options.devices,
        nodes=options.nodes,
        accelerator=options.device,
        workers=options.workers,
    )
    if is_first_process():
        print(f"Trained: {last}. Next: prosma export {options.out} {measured_on(options)}-o PACKAGE")
    return 0


def measured_on(options: argparse.Namespace) -> str:
    """The options, each with a space behind it, by which `prosma export` measures the model: on `val` where nothing is kept
    for tests; none where there are no labelled images.
    """
    if holds_other_data(options.data):
        return ""
    from ..learning.data.dataset import LabelledFolder

    splits = LabelledFolder.open(options.data, options.fold or 0).splits
    return f"{data_options(options.data)} {'' if splits.get('test') else '--split val '}"


def device_count(text: str) -> int | str:
    """`auto` or a number."""
    return text if text == "auto" else whole_number(1)(text)


def is_first_process() -> bool:
    """Whether this is the only process of a training, or the first one of those that Lightning, torchrun or SLURM started."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def recipe_for(options: argparse.Namespace):
    """The recipe that was given, else the one that the run already has, else a planned one.

    Of several processes, which plan the same from the same data, the first one writes it down.
    """
    from ..learning.fit.planning import plan_folder
    from ..learning.recipe import Recipe

    if options.recipe:
        return Recipe.read(options.recipe)
    for path in (Path(options.out, name) for name in ("recipe.yaml", "recipe.json")):
        if path.is_file():
            print(f"Using {path}", file=sys.stderr)
            return Recipe.read(path)
    if not is_first_process():
        return plan_folder(options.data, fold=options.fold or 0)[0]
    return plan_into(Path(options.out, "recipe.yaml"), options.data, options.fold or 0)
