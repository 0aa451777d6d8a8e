"""`prosma export`: a model package from a training run."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import EngineError
from ..package.model_package import ModelPackage
from .common import add_command, add_device, check_data, insist_on_device, print_case


def add_parser(commands) -> None:
    examples = ["prosma export RUN -o PACKAGE", "prosma export RUN -o PACKAGE --data DATA --split test"]
    export = add_command(commands, "export", run, "make a model package from a run", examples)
    export.add_argument("folder", metavar="RUN", help="folder given to train -o")
    export.add_argument("-o", "--output", required=True, metavar="PACKAGE", help="folder of the new package")
    export.add_argument(
        "--data", action="append", help="evaluate on this folder, or several, and write the results into the model card"
    )
    export.add_argument(
        "--finder", metavar="PACKAGE", help="package of the network that says where to look, for a recipe with 'finder'"
    )
    export.add_argument("--split", default="test", help="cases to evaluate on: train, val, test or all")
    add_device(export)


def run(options: argparse.Namespace) -> int:
    if not Path(options.folder).is_dir():
        raise EngineError("bad_input", f"There is no run {options.folder}.", "Give the folder that train -o named.")
    check_data(options.data)
    insist_on_device(options.device)
    from ..learning.packing.export import export

    finder = ModelPackage.open(options.finder) if options.finder else None
    package = export(options.folder, options.output, options.data, options.split, print_case, finder, options.device)
    print(f"Wrote {package.folder} ({package.weights_path.stat().st_size / 1e6:.1f} MB of weights).")
    return 0
