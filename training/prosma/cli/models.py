"""`prosma models`: the models that are there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..files import write_json
from ..package import BrokenPackage, find_packages, model_folders
from ..package.folders import NO_MODELS
from .common import add_command, complain


def add_parser(commands) -> None:
    examples = ["prosma models", "prosma models --json", "prosma models -o models.json"]
    parser = add_command(commands, "models", run, "list the models that are there", examples)
    parser.add_argument("--json", action="store_true", help="print everything about them as JSON")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write everything about them here (JSON)")


def run(options: argparse.Namespace) -> int:
    found = find_packages(model_folders())
    broken = [package for package in found if isinstance(package, BrokenPackage)]
    packages = [package for package in found if not isinstance(package, BrokenPackage)]
    if options.json or options.output:
        report = {
            "models": [{**package.model, "folder": str(package.folder)} for package in packages],
            "broken": [{"folder": str(package.folder), "reason": package.reason} for package in broken],
        }
        if options.output:
            write_json(options.output, report)
        if options.json:
            print(json.dumps(report, indent=1))
            return 0
    for package in packages:
        print_package(package)
    if not packages:
        print(NO_MODELS)
    for unusable in broken:
        complain(f"{unusable.folder} cannot be used: {unusable.reason}")
    return 0


def print_package(package) -> None:
    print(f"{package.id}  {package.version}  {package.dimension}D {package.model['modality']}: {package.name}")
    labels, channels = (", ".join(item["name"] for item in items) for items in (package.labels, package.channels))
    strokes = f"any {'picture' if package.dimension == 2 else 'volume'}" if package.is_promptable else ""
    print(f"    segments {'what strokes mean, with prosma prompt' if strokes else labels}")
    print(f"    input    {strokes or channels}")
    if accuracy := package.model.get("results", {}).get("dice", {}).get("mean"):
        print(f"    accuracy Dice {accuracy:.3f} on its test data")
    if package.sets > 1:
        print(f"    networks {package.sets}, whose answers are averaged")
    print(f"    licence  {package.model['training']['licence']}")
