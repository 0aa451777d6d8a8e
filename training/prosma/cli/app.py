"""The command `prosma`: its commands, each in a file of its own, and what becomes of an error.

A command's file loads no more than the standard library; what is heavy waits until the command runs. The exit codes are
in exit_codes.py.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import select
import sys
import traceback

from .. import __version__
from ..errors import ISSUES, UserFacingError, fault_of_ours
from . import (
    benchmark,
    compare,
    completion,
    dicomweb,
    evaluate,
    exit_codes,
    export,
    finetune,
    models,
    plan,
    prompt,
    report,
    results,
    segment,
    train,
)
from .common import HelpFormatter, Parser, complain

COMMANDS = (
    models,
    segment,
    prompt,
    report,
    dicomweb,
    plan,
    train,
    evaluate,
    export,
    finetune,
    compare,
    results,
    benchmark,
    completion,
)

FOR_TRAINING = {"monai", "lightning", "filelock", "yaml", "tensorboard", "PIL", "matplotlib", "scipy"}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code."""
    debug = "--debug" in (sys.argv if arguments is None else arguments)
    if debug:
        logging.basicConfig()
        logging.getLogger("prosma").setLevel(logging.DEBUG)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # no name of a file ends a batch
    try:
        options = make_parser().parse_args(arguments)
        return options.run(options) or exit_codes.DONE
    except KeyboardInterrupt:
        return complain("Stopped.", exit_codes.STOPPED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and nobody_reads():
            return exit_codes.FAILED
        if debug:
            traceback.print_exc()
        unsuitable = isinstance(error, UserFacingError) and error.code == "does_not_fit"
        return complain(sentence(error), exit_codes.UNSUITABLE if unsuitable else exit_codes.FAILED)


def nobody_reads() -> bool:
    """Whether the program that read the output has ended, as `head` does; then the output goes nowhere from now on."""
    if not hasattr(select, "poll"):  # Windows
        return False
    asked = select.poll()
    asked.register(sys.stdout.fileno(), 0)
    gone = any(event & select.POLLERR for _file, event in asked.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    return gone


def sentence(error: Exception) -> str:
    """What to tell a person about an error that ended the command."""
    if isinstance(error, UserFacingError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'A file'} could not be read or written: {error.strerror or error}."
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in FOR_TRAINING:
        return (
            f"This needs the Python package {error.name}, which is not installed. Install what training needs, in a "
            "checkout of ProSMA: pip install './training[train]'."
        )
    return f"{fault_of_ours(error)} Run it again as `prosma --debug ...` and report what that shows: {ISSUES}"


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the options it gives have `run`, which takes them and returns the exit code."""
    parser = Parser(
        prog="prosma",
        description="AI segmentation of medical images with ProSMA-UNet.",
        epilog=f"example:\n  prosma segment scan.nii.gz -m hippocampus-mr -o scan.seg.nrrd\n\n{exit_codes.as_text()}",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"prosma {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser
