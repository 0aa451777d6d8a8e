"""What several commands share: how they describe themselves, the same options, and checks before anything heavy loads."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import EngineError
from .exit_codes import FAILED, MISUSED

DATA_HELP = "folder with imagesTr/ and labelsTr/ (as nnU-Net), or images/ and masks/"
SEVERAL_HELP = f"{DATA_HELP}; may be given several times"
FOLD_HELP = "number from 0 of the split in splits_final.json, or of every fifth case where no file has splits"
MODEL_HELP = "id of a bundled or imported model, or a package's path"
MOST_THREADS = 1024
ALL_PARTS_HELP = "keep parts that lie apart, also of structures that the model takes for one piece"


def complain(text: str, code: int = FAILED) -> int:
    """Say one sentence on stderr; the exit code to end with."""
    print(f"prosma: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return code


class Parser(argparse.ArgumentParser):
    """Faults of a command in one sentence, without the usage."""

    def error(self, message: str):
        sys.exit(complain(f"{message[:1].upper()}{message[1:]}; {self.prog} --help tells more.", MISUSED))


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of examples, and tells each default that its help does not tell already."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        none = action.default is None or action.default is False or action.default in ([], argparse.SUPPRESS)
        return text if none or "default" in text else f"{text} (default: %(default)s)"


def add_command(
    commands, name: str, run: Callable[[argparse.Namespace], int], summary: str, examples: Sequence[str], more: str = ""
) -> argparse.ArgumentParser:
    """Add a subcommand; `run` takes the parsed options and returns the exit code. `more` follows the summary in its help."""
    described = f"{summary[:1].upper()}{summary[1:]}."
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{described} {more}".strip(),
        epilog="\n".join([f"example{'s' if len(examples) > 1 else ''}:", *(f"  {example}" for example in examples)]),
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_device(parser: argparse.ArgumentParser, *other_names: str) -> None:
    """`--device`; None where nothing was given, see `device_of`."""
    parser.add_argument(
        "--device",
        *other_names,
        type=device_name,
        metavar="DEVICE",
        default="auto",
        help="auto, cpu, cuda or cuda:N; auto takes a card only where it works, cuda insists on it",
    )


def add_licence(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accept-licence", action="store_true", help="accept the licence of the model")


def device_name(text: str) -> str:
    """A device's name as it was given; EngineError no_device for one that means nothing."""
    from ..inference.devices import parse_device

    parse_device(text)
    return text


def insist_on_device(wanted: str) -> None:
    """EngineError no_device where a CUDA card was asked for by name and does not work. Loads torch only in that case."""
    from ..inference.devices import cuda_problem, parse_device

    name, index = parse_device(wanted)
    if name == "cuda" and (problem := cuda_problem(index)):
        raise EngineError("no_device", f"CUDA cannot be used: {problem}.", "Say --device auto or --device cpu.")


def check_data(folders: Sequence[str] | None, fold: int | None = None) -> None:
    """DatasetError for folders of labelled images that cannot be used; nothing heavy is loaded."""
    if folders and not holds_other_data(folders):
        from ..learning.data.dataset import LabelledFolder

        LabelledFolder.open(folders, fold or 0)


def holds_other_data(folders: Sequence[str]) -> bool:
    """Whether they are no labelled images: label maps to paint images from, or data sets that strokes are learnt on."""
    from ..learning.data.dataset import data_sets_in, holds_label_maps_alone

    return holds_label_maps_alone(Path(folders[0])) or bool(data_sets_in(Path(folders[0])))


def check_file(path: str | Path, what: str) -> None:
    """EngineError bad_input where there is no such file."""
    if not Path(path).is_file():
        raise EngineError("bad_input", f"There is no {what} {path}.", "Check its name.")


def data_options(folders: Sequence[str]) -> str:
    """The folders as a command takes them."""
    return " ".join(f"--data {shlex.quote(folder)}" for folder in folders)


def whole_number(least: int, most: float = math.inf) -> Callable[[str], int]:
    """For an option that takes whole numbers from `least` on, up to `most`."""
    span = f"from {least} on" if most == math.inf else f"of {least} to {most}"

    def number(text: str) -> int:
        if not text.lstrip("+-").isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"it takes a whole number {span}, not '{text}'")
        return int(text)

    return number


def positive(text: str) -> float:
    """For an option that takes numbers above zero."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"it takes a number above 0, not '{text}'")
    return number


def print_case(done: int, total: int, case: dict) -> None:
    """One line a case that was measured, on stderr."""
    dice = case["mean"]["dice"]
    print(f"{done}/{total} {case['case']}: Dice {'undefined' if dice is None else f'{dice:.4f}'}", file=sys.stderr)
