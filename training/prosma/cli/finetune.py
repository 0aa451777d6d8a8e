"""`prosma finetune`: a new model from an old one and a few corrected cases."""

from __future__ import annotations

import argparse

from ..cancel import Cancelled
from .common import (
    DATA_HELP,
    MODEL_HELP,
    add_command,
    add_device,
    add_licence,
    check_data,
    insist_on_device,
    positive,
    whole_number,
)


def add_parser(commands) -> None:
    finetune = add_command(
        commands,
        "finetune",
        run,
        "make a new model from an old one and a few corrected cases",
        ["prosma finetune hippocampus-mr --data CASES -o PACKAGE"],
        "The new package lies beside the old one, whose test results do not hold for it. Minutes on a CPU.",
    )
    finetune.add_argument("model", help=MODEL_HELP)
    finetune.add_argument("--data", required=True, help=DATA_HELP + ": the corrected cases")
    finetune.add_argument("-o", "--output", required=True, metavar="PACKAGE", help="folder of the new package")
    finetune.add_argument("--replay", metavar="DIR", help="cases that the model was trained on, mixed in")
    finetune.add_argument("--id", help="of the new model (default: the old one's with -tuned)")
    finetune.add_argument("--name", help="of the new model (default: the old one's with ', fine-tuned')")
    finetune.add_argument("--steps", type=whole_number(1), help="optimiser steps (default: 60)")
    finetune.add_argument("--batch-size", type=whole_number(1), help="patches a step (default: 1, of pictures 4)")
    finetune.add_argument("--learning-rate", type=positive, help="at the start (default: 0.001)")
    finetune.add_argument(
        "--keep", type=float, help="share of the old weights in the new ones, 0 to below 1 (default: 0.5)"
    )
    finetune.add_argument(
        "--seed", type=whole_number(0), help="the same seed gives the same weights on the same machine (default: 0)"
    )
    add_device(finetune, "--accelerator")
    add_licence(finetune)
    finetune.add_argument(
        "--progress",
        default="text",
        choices=("text", "json"),
        help="json: an object a line on stdout, for a program that runs this in the background (at low priority)",
    )


def run(options: argparse.Namespace) -> int:
    from ..learning.fit.progress import reporter, stop_signals
    from ..package import resolve
    from .licence_question import check_licence

    package = resolve(options.model)
    check_licence(package, options.accept_licence)
    progress = reporter(options.progress)
    with stop_signals() as cancelled:
        check_data([options.data])
        insist_on_device(options.device)
        from ..learning.fit.finetuning import FineTuningOptions, fine_tune

        given = {name: getattr(options, name) for name in ("steps", "batch_size", "learning_rate", "keep", "seed")}
        try:
            new = fine_tune(
                package,
                options.data,
                options.output,
                replay=options.replay,
                id=options.id,
                name=options.name,
                tuning=FineTuningOptions(**{name: value for name, value in given.items() if value is not None}),
                accelerator=options.device,
                progress=progress,
                cancelled=cancelled,
            )
        except Cancelled:
            raise KeyboardInterrupt from None
    progress("Done", 1.0, 0.0, id=new.id, package=str(new.folder))
    if options.progress == "text":
        print(f"Wrote {new.folder}, model '{new.id}'. Next: prosma evaluate {new.folder} --data DIR")
    return 0
