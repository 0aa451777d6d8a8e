"""`prosma segment`: one image, or every case of a folder."""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from ..contracts import shown
from ..errors import EngineError, UserFacingError
from ..outputs.choices import ALSO, BINARY, SEG, SEG_TYPES
from .common import (
    ALL_PARTS_HELP,
    MODEL_HELP,
    add_command,
    add_device,
    add_licence,
    complain,
    insist_on_device,
    whole_number,
)


def add_parser(commands) -> None:
    segment = add_command(
        commands,
        "segment",
        run,
        "segment images",
        [
            "prosma segment scan.nii.gz -m hippocampus-mr -o scan.seg.nrrd",
            "prosma segment images/ -m hippocampus-mr -o results/ --device cpu --json",
            'prosma segment dicom/ -m hippocampus-mr -o scan.seg.nrrd --series "T1 sagittal"',
            "prosma segment dicom/ -m prostate-t2 -o prostate.dcm",
            "prosma segment dicom/ -m head-neck-oar-ct -o organs.rtstruct.dcm",
            "prosma segment scan.nii.gz -m hippocampus-mr -o scan.seg.nrrd --also .preview.png --also .stl",
        ],
        "One image, or every case of a folder. An image is a file or a DICOM folder. Results that are there already, from "
        "the same model, options and image, are left as they are.",
    )
    segment.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="one for each channel of the model, in its order; or one folder of cases (case_0000.nii.gz for channels)",
    )
    segment.add_argument("-m", "--model", required=True, help=MODEL_HELP)
    segment.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        help=".seg.nrrd, .nrrd, .nii.gz, .mha or, of a DICOM series, .dcm, .rtstruct.dcm; or a folder",
    )
    segment.add_argument(
        "--series",
        action="append",
        metavar="WHICH",
        help="of several volumes in a DICOM folder, the one with this number, description or UID; once for each channel",
    )
    segment.add_argument("--format", default=".seg.nrrd", help="ending of the files in an output folder")
    add_device(segment)
    add_licence(segment)
    add_run_options(segment)
    add_output_options(segment)
    add_batch_options(segment)


def add_run_options(segment: argparse.ArgumentParser) -> None:
    """What a result depends on."""
    segment.add_argument("--overlap", type=float, help="share that tiles have in common (default: by their size)")
    segment.add_argument("--mirror", action="store_true", help="average over flips: slower, a little more accurate")
    segment.add_argument(
        "--roi", nargs=6, type=int, metavar=("I0", "I1", "J0", "J1", "K0", "K1"), help="voxels to look at, half open"
    )
    segment.add_argument("--all-parts", action="store_true", help=ALL_PARTS_HELP)
    segment.add_argument("--force", action="store_true", help="run even where the image does not suit the model")


def add_output_options(segment: argparse.ArgumentParser) -> None:
    """What is written of a result, and how."""
    group = segment.add_argument_group("outputs")
    group.add_argument(
        "--also",
        action="append",
        choices=ALSO,
        default=[],
        metavar="ENDING",
        help=f"write a file beside each result too: {', '.join(ALSO)}; may be given several times",
    )
    group.add_argument(
        "--seg-type",
        choices=SEG_TYPES,
        default=BINARY,
        help="of a .dcm result: a frame for each segment and slice, or one label map a slice (new; fewer programs read it)",
    )


def run_of(options: argparse.Namespace) -> dict:
    """What a result depends on, as the records keep it."""
    roi = [options.roi[n : n + 2] for n in (0, 2, 4)] if options.roi else None
    all_parts = {"all_parts": True} if options.all_parts else {}
    return {"overlap": options.overlap, "mirror": options.mirror, "roi": roi, **all_parts}


def add_batch_options(segment: argparse.ArgumentParser) -> None:
    """How a batch goes on and what it tells."""
    group = segment.add_argument_group("many cases")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="processes on this computer, which share its cores",
    )
    where.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="a Dask cluster: tcp://HOST:PORT of its scheduler, or its JSON file; config: as in Dask's configuration",
    )
    group.add_argument(
        "--part",
        type=part,
        metavar="K/N",
        help="only every N-th case, from the K-th; for N calls on one or many computers",
    )
    again = group.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on where an earlier call stopped (as always)")
    again.add_argument("--again", action="store_true", help="make results once more that are there and were not edited")
    group.add_argument("--max-failures", type=whole_number(1), metavar="N", help="stop when N cases have failed")
    group.add_argument(
        "--read-limit", type=float, default=600.0, metavar="SECONDS", help="give an image up that takes longer to read"
    )
    group.add_argument(
        "--statistics",
        action="store_true",
        help="also surface, centroid, bounding box, mean and deviation of the image in each segment; see `prosma report`",
    )
    group.add_argument(
        "--json", action="store_true", help="print a JSON object a case as it ends, and a report as the last"
    )
    group.add_argument("--log", type=Path, metavar="FILE", help="add the same lines to this file")


def run(options: argparse.Namespace) -> int:
    from ..package import resolve
    from .licence_question import check_licence

    package = resolve(options.model)
    check_images(options.images)
    check_licence(package, options.accept_licence)
    from ..batch.cases import Case, find_cases, folders_passed_over, output_is_folder

    if output_is_folder(options.images, options.output):
        cases = find_cases(
            options.images,
            options.output,
            options.format,
            len(package.channels),
            options.series,
            package.takes_colours,
        )
        if passed := folders_passed_over(options.images[0], cases, options.output):
            complain(f"Not looked into: {shown(', '.join(passed))}. They hold images, too; give each folder by itself.")
        folder, batch = options.output, True
    else:
        cases = [Case.single(options.images, options.output, options.series)]
        folder, batch = options.output.parent, False
    check_output(folder, cases, options.also)
    check_seg_type(options.seg_type, cases, options.also)
    if not options.scheduler:  # whose workers are other computers
        insist_on_device(options.device)
    return segment(options, package, cases, folder, batch)


def check_images(images: list[Path]) -> None:
    """EngineError bad_input for the first that is not there."""
    for image in images:
        if not image.exists():
            raise EngineError("bad_input", f"{image} does not exist.", "Check its name.")


def check_output(folder: Path, cases: list, also: list[str]) -> None:
    """An error where a result could not be written or would harm an image, before any work is done."""
    from ..batch.result_file import check_writable

    for case in cases:
        case.check_output(also)
    check_writable(folder)


def check_seg_type(seg_type: str, cases: list, also: list[str]) -> None:
    """EngineError where a type of DICOM segmentation was chosen for results that are none."""
    from ..outputs.results import result_suffix

    if seg_type != BINARY and SEG not in also and any(result_suffix(case.output) != SEG for case in cases):
        reason = f"--seg-type {seg_type} is for DICOM segmentations."
        raise EngineError(
            "bad_output", reason, "End the output in .dcm, or say --also .dcm, or --format .dcm for a folder."
        )


def part(text: str) -> tuple[int, int]:
    """K and N of the text K/N."""
    number, _, parts = text.partition("/")
    if not (number.isdigit() and parts.isdigit() and 1 <= int(number) <= int(parts)):
        raise EngineError("bad_input", f"'{text}' names no part.", "Say K/N, such as 1/4 to 4/4 for four parts.")
    return int(number), int(parts)


def segment(options: argparse.Namespace, package, cases: list, folder: Path, batch: bool) -> int:
    """Do the cases; the exit code."""
    from ..batch.loop import Settings
    from ..batch.records import records_of
    from .telling import Teller, add_remedy

    records = records_of(folder.absolute())
    settings = Settings(
        folder=str(folder.absolute()),
        model=str(package.folder.absolute()),
        device=options.device,
        run=run_of(options),
        since=records.count() if options.again else 0,
        force=options.force,
        note_failures=batch,
        in_full=options.statistics,
        read_limit=options.read_limit,
        seg_type=options.seg_type,
        also=options.also,
    )
    if batch:
        records.begin(len(cases), options.part)
    if options.part:
        number, parts = options.part
        cases = cases[number - 1 :: parts]
    with Teller(package, len(cases), batch, options.json, options.log, folder) as teller, ends_by_signal():
        with outcomes_of(settings, package, cases, options, teller.show) as outcomes:
            for outcome in outcomes:
                add_remedy(outcome)
                if not batch and "error" in outcome:
                    teller.end_with(outcome)
                    raise UserFacingError(outcome["error"]["message"], code=outcome["error"]["code"])
                teller.tell(outcome)
                if options.max_failures and len(teller.failures) >= options.max_failures:
                    break
        return teller.finish()


@contextlib.contextmanager
def outcomes_of(settings, package, cases: list, options: argparse.Namespace, show) -> Iterator[Iterator[dict]]:
    """Gives the outcomes of the cases, which are done in this process, in several, or on a cluster."""
    from ..batch.loop import CaseWorker, run_cases

    if options.scheduler:
        from ..batch.cluster import Cluster

        with Cluster(settings, options.scheduler, complain) as cluster:
            yield cluster.run(cases, show)
    elif options.workers > 1:
        from ..batch.pool import Pool
        from ..inference.devices import core_count

        with Pool(settings, min(options.workers, len(cases)), core_count()) as pool:
            yield pool.run(cases, show)
    else:
        with CaseWorker(settings, package) as worker:
            yield run_cases(worker, cases, show)


@contextlib.contextmanager
def ends_by_signal() -> Iterator[None]:
    """The end that a cluster asks for is as Ctrl+C: cases that were begun are given up for others."""

    def stop(*_signal) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread of a program that has us as a part
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
