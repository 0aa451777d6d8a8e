"""`prosma results`: the page of all models and comparisons."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import EngineError
from .common import add_command


def add_parser(commands) -> None:
    summary = "write a page of models, comparisons and published figures"
    results = add_command(commands, "results", run, summary, ["prosma results training/results -o training/RESULTS.md"])
    results.add_argument(
        "folder",
        metavar="RESULTS",
        help="folder of comparison.json files with their figures, and reports of evaluate -o",
    )
    results.add_argument("--models", metavar="DIR", help="folder of model packages (default: the bundled ones)")
    results.add_argument("-o", "--output", required=True, metavar="FILE", help="Markdown file")


def run(options: argparse.Namespace) -> int:
    from ..learning.report.page import write_page
    from ..package import bundled_models_folder

    for folder in filter(None, (options.folder, options.models)):
        if not Path(folder).is_dir():
            raise EngineError("bad_input", f"There is no folder {folder}.", "Check its name.")
    models = options.models or bundled_models_folder()
    if models is None:
        raise EngineError("bad_input", "There are no bundled models here.", "Name a folder of models with --models.")
    write_page(options.folder, models, options.output)
    print(f"Wrote {options.output}")
    return 0
