"""`prosma export`: a model package from training runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import EngineError
from ..package.model_package import ModelPackage
from ..package.schema import DESCRIPTION
from .common import add_command, add_device, check_data, insist_on_device, print_case


def add_parser(commands) -> None:
    examples = [
        "prosma export RUN -o PACKAGE",
        "prosma export RUN -o PACKAGE --data DATA --split test",
        "prosma export RUN0 RUN1 RUN2 -o PACKAGE",
    ]
    export = add_command(commands, "export", run, "make a model package from a run, or from several", examples)
    export.add_argument(
        "folders",
        metavar="RUN",
        nargs="+",
        help="folder given to train -o; of several, of one recipe and different folds or seeds, the answers are averaged",
    )
    export.add_argument("-o", "--output", required=True, metavar="PACKAGE", help="folder of the new package")
    export.add_argument("--again", action="store_true", help="replace the package that is there, with its card")
    export.add_argument(
        "--data", action="append", help="evaluate on this folder, or several, and write the results into the model card"
    )
    export.add_argument(
        "--finder", metavar="PACKAGE", help="package of the network that says where to look, for a recipe with 'finder'"
    )
    export.add_argument("--split", default="test", help="cases to evaluate on: train, val, test or all")
    add_device(export)


def run(options: argparse.Namespace) -> int:
    for folder in options.folders:
        if not Path(folder).is_dir():
            raise EngineError("bad_input", f"There is no run {folder}.", "Give the folder that train -o named.")
    if Path(options.output, DESCRIPTION).is_file() and not options.again:
        reason = f"There is a package in {options.output} already, perhaps with a card that somebody has edited."
        raise EngineError("bad_output", reason, "Choose another folder, or say --again.")
    check_data(options.data)
    insist_on_device(options.device)
    from ..learning.packing.export import export

    finder = ModelPackage.open(options.finder) if options.finder else None
    package = export(options.folders, options.output, options.data, options.split, print_case, finder, options.device)
    sets = f" in {package.sets} sets" if package.sets > 1 else ""
    print(f"Wrote {package.folder} ({package.weights_path.stat().st_size / 1e6:.1f} MB of weights{sets}).")
    if sets and options.data and not package.quality_path.is_file():
        print("It tells no expected quality: there are too few validation cases that none of the runs has learnt from.")
    return 0
