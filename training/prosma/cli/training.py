"""The training side of the command line, from `plan` to `compare`. Heavy imports wait for the command."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from pathlib import Path

DATA_HELP = "folder with imagesTr/ and labelsTr/ (as nnU-Net), or images/ and masks/"
SEVERAL_HELP = f"{DATA_HELP}; may be given several times"

FOLD_HELP = "number from 0 of the split in splits_final.json, or of every fifth case where no file has splits"


def add_parsers(subparsers) -> None:
    """Add the subcommands; each sets ``run``, which takes the parsed arguments and returns the exit code."""
    plan = subparsers.add_parser("plan", help="write a recipe that fits a folder of labelled images")
    plan.add_argument("--data", required=True, action="append", help=SEVERAL_HELP)
    plan.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="YAML file")
    plan.add_argument("--fold", type=int, default=0, help=FOLD_HELP)
    plan.set_defaults(run=run_plan)

    train = subparsers.add_parser("train", help="train a model on a folder of labelled images")
    train.add_argument("recipe", nargs="?", help="YAML file; without it one is planned from the data: RUN/recipe.yaml")
    train.add_argument("--data", required=True, action="append", help=SEVERAL_HELP)
    train.add_argument("--out", required=True, help="folder for the run: checkpoint, logs")
    train.add_argument("--resume", action="store_true", help="go on with the run in --out from its last epoch")
    train.add_argument("--deterministic", action="store_true", help="same weights to the bit, also after --resume")
    train.add_argument("--max-epochs", type=int, help="fewer epochs than the recipe says")
    train.add_argument("--fold", type=int, help=FOLD_HELP)
    train.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "cuda"))
    train.add_argument(
        "--devices", type=device_count, default="auto", help="number of cards, or of processes with --accelerator cpu"
    )
    train.add_argument("--nodes", type=int, default=1, help="number of machines, for torchrun and SLURM (%(default)s)")
    train.add_argument("--workers", type=int, default=1, help="processes that prepare patches")
    train.set_defaults(run=run_train)

    evaluate = subparsers.add_parser("evaluate", help="measure a model on a labelled folder")
    evaluate.add_argument("model", help="id of a bundled or imported model, or a package's path")
    evaluate.add_argument("--data", required=True, action="append", help=SEVERAL_HELP)
    evaluate.add_argument("--split", default="test", help="train, val, test or all (default: test)")
    evaluate.add_argument("--fold", type=int, default=0, help=FOLD_HELP)
    evaluate.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    evaluate.add_argument("--nsd-mm", type=float, default=1.0, help="tolerance of the surface Dice (%(default)s)")
    evaluate.add_argument("--json", metavar="FILE", help="write the full report here")
    evaluate.add_argument("--csv", metavar="FILE", help="write a row for each case and label here")
    evaluate.add_argument("--sheet", metavar="FILE", help="draw the best, median and worst case here (PNG)")
    evaluate.set_defaults(run=run_evaluate)

    export = subparsers.add_parser("export", help="make a model package from a run")
    export.add_argument("folder", metavar="RUN", help="folder given to train --out")
    export.add_argument("-o", "--output", required=True, help="folder of the new package")
    export.add_argument(
        "--data", action="append", help="evaluate on this folder, or several, and write the results into the model card"
    )
    export.add_argument("--split", default="test")
    export.set_defaults(run=run_export)

    add_finetune_parser(subparsers)

    add_comparison_parsers(subparsers)


def add_finetune_parser(subparsers) -> None:
    finetune = subparsers.add_parser(
        "finetune",
        help="make a new model from an old one and a few corrected cases",
        description="Let a model learn from a few corrected cases. The new package lies beside the old one, whose test "
        "results do not hold for it. Minutes on a CPU.",
    )
    finetune.add_argument("model", help="id of a bundled or imported model, or a package's path")
    finetune.add_argument("--data", required=True, help=DATA_HELP + ": the corrected cases")
    finetune.add_argument("-o", "--output", required=True, metavar="PACKAGE", help="folder of the new package")
    finetune.add_argument("--replay", metavar="DIR", help="cases that the model was trained on, mixed in")
    finetune.add_argument("--id", help="of the new model (default: the old one's with -tuned)")
    finetune.add_argument("--name", help="of the new model")
    finetune.add_argument("--steps", type=int, help="optimiser steps")
    finetune.add_argument("--batch-size", type=int, help="patches a step")
    finetune.add_argument("--learning-rate", type=float, help="at the start")
    finetune.add_argument("--keep", type=float, help="share of the old weights in the new ones, 0 to 1")
    finetune.add_argument("--seed", type=int, help="the same seed gives the same weights on the same machine")
    finetune.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "cuda"))
    finetune.add_argument("--accept-licence", action="store_true", help="accept the licence of the model")
    finetune.add_argument(
        "--progress",
        default="text",
        choices=("text", "json"),
        help="json: an object a line on stdout, for a program that runs this in the background (at low priority)",
    )
    finetune.set_defaults(run=run_finetune)


def add_comparison_parsers(subparsers) -> None:
    compare = subparsers.add_parser("compare", help="train variants of the skip with several seeds and compare them")
    compare.add_argument("grid", metavar="GRID", help="YAML file: recipe, variants, seeds, degradations of test images")
    compare.add_argument("--data", action="append", help=SEVERAL_HELP)
    compare.add_argument("--out", required=True, metavar="RUNS", help="folder for the runs and the report")
    compare.add_argument("--only", nargs="+", metavar="VARIANT", help="make the runs of these variants alone")
    compare.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="make the runs of these seeds alone")
    compare.add_argument("--report", action="store_true", help="train nothing: report on the runs that are there")
    compare.add_argument("--threads", type=int, help="processor cores to use")
    compare.add_argument("--workers", type=int, default=1, help="processes that prepare patches")
    compare.set_defaults(run=run_compare)

    results = subparsers.add_parser("results", help="write a page of models, comparisons and published figures")
    results.add_argument("folder", metavar="RESULTS", help="folder of comparison.json files with their figures")
    results.add_argument("--models", metavar="DIR", help="folder of model packages (default: the bundled ones)")
    results.add_argument("-o", "--output", required=True, metavar="FILE", help="Markdown file")
    results.set_defaults(run=run_results)


def run_plan(arguments: argparse.Namespace) -> int:
    plan_into(arguments.output, arguments.data, arguments.fold)
    print(f"Next: prosma train {arguments.output} {data_options(arguments.data)} --out RUN")
    return 0


def data_options(folders: list[str]) -> str:
    """The folders as a command takes them."""
    return " ".join(f"--data {shlex.quote(folder)}" for folder in folders)


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


def device_count(text: str) -> int | str:
    """`auto` or a number."""
    return text if text == "auto" else int(text)


def is_first_process() -> bool:
    """Whether this is the only process of a training, or the first one of those that Lightning, torchrun or SLURM started."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def names(entries: list[dict]) -> str:
    return ", ".join(entry["name"] for entry in entries)


def recipe_for(arguments: argparse.Namespace):
    """The recipe that was given, else the one that the run already has, else a planned one.

    Of several processes, which plan the same from the same data, the first one writes it down.
    """
    from ..learning.fit.planning import plan_folder
    from ..learning.recipe import Recipe

    if arguments.recipe:
        return Recipe.read(arguments.recipe)
    for path in (Path(arguments.out, name) for name in ("recipe.yaml", "recipe.json")):
        if path.is_file():
            print(f"Using {path}", file=sys.stderr)
            return Recipe.read(path)
    if not is_first_process():
        return plan_folder(arguments.data, fold=arguments.fold or 0)[0]
    return plan_into(Path(arguments.out, "recipe.yaml"), arguments.data, arguments.fold or 0)


def run_train(arguments: argparse.Namespace) -> int:
    from ..learning.fit.fitting import train

    warnings.filterwarnings("ignore", message="Checkpoint directory")  # a run's folder holds its recipe from the start
    warnings.filterwarnings("ignore", message="Grad strides do not match")  # 1 x 1 kernels, on several devices
    recipe = recipe_for(arguments)
    if arguments.max_epochs:
        recipe.fitting.epochs = arguments.max_epochs
        recipe.fitting.validate_every = min(recipe.fitting.validate_every, arguments.max_epochs)
    if arguments.fold is not None:
        recipe.fitting.fold = arguments.fold
        recipe.check()
    last = train(
        recipe,
        arguments.data,
        arguments.out,
        resume=arguments.resume,
        deterministic=arguments.deterministic,
        devices=arguments.devices,
        nodes=arguments.nodes,
        accelerator=arguments.accelerator,
        workers=arguments.workers,
    )
    if is_first_process():
        print(f"Trained: {last}. Next: prosma export {arguments.out} {data_options(arguments.data)} -o PACKAGE")
    return 0


def run_evaluate(arguments: argparse.Namespace) -> int:
    from ..files import write_json
    from ..learning.judge.evaluation import describe, evaluate, write_csv
    from ..package.model_package import resolve

    package = resolve(arguments.model)
    report = evaluate(
        package,
        arguments.data,
        arguments.split,
        fold=arguments.fold,
        device=arguments.device,
        nsd_tolerance=arguments.nsd_mm,
        progress=print_case,
    )
    print(describe(report))
    if arguments.json:
        write_json(arguments.json, report)
    if arguments.csv:
        write_csv(arguments.csv, report)
    if arguments.sheet:
        from ..inference.segmenter import Segmenter
        from ..learning.data.dataset import LabelledFolder
        from ..learning.report.sheet import write_sheet

        write_sheet(
            arguments.sheet,
            Segmenter(package, arguments.device),
            LabelledFolder.open(arguments.data, arguments.fold),
            report,
        )
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    from ..learning.packing.export import export

    package = export(arguments.folder, arguments.output, arguments.data, arguments.split, progress=print_case)
    print(f"Wrote {package.folder} ({package.weights_path.stat().st_size / 1e6:.1f} MB of weights).")
    return 0


def run_finetune(arguments: argparse.Namespace) -> int:
    from ..errors import Cancelled
    from ..learning.fit.progress import reporter, stop_signals
    from ..package.licence import check_licence
    from ..package.model_package import resolve

    package = resolve(arguments.model)
    check_licence(package, arguments.accept_licence)
    progress = reporter(arguments.progress)
    with stop_signals() as cancelled:
        from ..learning.fit.finetuning import Tuning, fine_tune

        given = {name: getattr(arguments, name) for name in ("steps", "batch_size", "learning_rate", "keep", "seed")}
        try:
            new = fine_tune(
                package,
                arguments.data,
                arguments.output,
                replay=arguments.replay,
                id=arguments.id,
                name=arguments.name,
                tuning=Tuning(**{name: value for name, value in given.items() if value is not None}),
                accelerator=arguments.accelerator,
                progress=progress,
                cancelled=cancelled,
            )
        except Cancelled:
            raise KeyboardInterrupt from None
    progress("Done", 1.0, 0.0, id=new.id, package=str(new.folder))
    if arguments.progress == "text":
        print(f"Wrote {new.folder}, model '{new.id}'. Next: prosma evaluate {new.folder} --data DIR")
    return 0


def run_compare(arguments: argparse.Namespace) -> int:
    from ..learning.compare.comparing import ComparisonError, compare
    from ..learning.compare.grid import Grid
    from ..learning.report.reporting import write_report

    warnings.filterwarnings("ignore", message="Checkpoint directory")  # made before, by `compare`
    grid = Grid.read(arguments.grid)
    if not arguments.report:
        if not arguments.data:
            raise ComparisonError("Say with --data what to train on, or report on finished runs with --report.")
        missing = compare(
            grid,
            arguments.data,
            arguments.out,
            variants=arguments.only,
            seeds=arguments.seeds,
            workers=arguments.workers,
            threads=arguments.threads,
            say=lambda text: print(text, file=sys.stderr),
        )
        if missing:
            print(f"Still missing: {', '.join(missing)}. --report compares what is there.")
            return 0
    print(write_report(grid, arguments.out).read_text(encoding="utf-8"))
    return 0


def run_results(arguments: argparse.Namespace) -> int:
    from ..learning.report.page import write_page
    from ..package.model_package import bundled_models_folder

    write_page(arguments.folder, arguments.models or bundled_models_folder(), arguments.output)
    print(f"Wrote {arguments.output}")
    return 0


def print_case(done: int, total: int, case: dict) -> None:
    """One line a case on stderr."""
    dice = case["mean"]["dice"]
    print(f"{done}/{total} {case['case']}: Dice {'undefined' if dice is None else f'{dice:.4f}'}", file=sys.stderr)


def print_reading(done: int, total: int) -> None:
    """Now and then a line on stderr while cases are read."""
    if done == total or done % 100 == 0:
        print(f"Read {done} of {total} cases", file=sys.stderr)
