"""`prosma segment`: one image, or every case of a folder."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from ..errors import Cancelled, EngineError, UserFacingError
from .common import MODEL_HELP, add_command, add_device, add_licence, complain, insist_on_device


def add_parser(commands) -> None:
    segment = add_command(
        commands,
        "segment",
        run,
        "segment images",
        [
            "prosma segment scan.nii.gz -m hippocampus-mr -o scan.seg.nrrd",
            "prosma segment images/ -m hippocampus-mr -o results/ --device cpu --json",
        ],
        "One image, or every case of a folder. An image is a file or a DICOM folder.",
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
        "-o", "--output", required=True, type=Path, help=".seg.nrrd, .nrrd, .nii.gz or .mha; or a folder"
    )
    segment.add_argument("--format", default=".seg.nrrd", help="ending of the files in an output folder")
    add_device(segment)
    segment.add_argument("--overlap", type=float, help="share that tiles have in common (default: by their size)")
    segment.add_argument("--mirror", action="store_true", help="average over flips: slower, a little more accurate")
    segment.add_argument(
        "--roi", nargs=6, type=int, metavar=("I0", "I1", "J0", "J1", "K0", "K1"), help="voxels to look at, half open"
    )
    segment.add_argument(
        "--resume",
        action="store_true",
        help="leave out what is in the output folder already, from the same model and image",
    )
    segment.add_argument("--json", action="store_true", help="print a report as JSON")
    add_licence(segment)


def run(options: argparse.Namespace) -> int:
    from ..batch.cases import Case, find_cases, output_is_folder
    from ..package.licence import check_licence
    from ..package.model_package import resolve

    package = resolve(options.model)
    check_images(options.images)
    check_licence(package, options.accept_licence)
    batch = output_is_folder(options.images, options.output)
    if batch:
        cases = find_cases(options.images, options.output, options.format, len(package.channels))
    elif options.resume:
        raise EngineError("bad_input", "--resume is for results in a folder.", "Give a folder as output.")
    else:
        cases = [Case.single(options.images, options.output)]
    insist_on_device(options.device)
    from ..inference.segmenter import Segmenter

    segmenter = Segmenter(package, options.device)
    with progress_bar(len(cases)) as show:
        outcomes = [
            segment_case(segmenter, case, given, options, show, batch)
            for case, given in read_ahead(cases, lambda case: read_case(package, case, options, batch))
        ]
    failures = [outcome for outcome in outcomes if "error" in outcome]
    if options.json:
        model = {"id": package.id, "version": package.version, "sha256": package.sha256}
        print(
            json.dumps(
                {"model": model, "device": segmenter.device, "cases": outcomes, "failed": len(failures)}, indent=1
            )
        )
    else:
        for outcome in outcomes:
            print_outcome(outcome)
    for outcome in failures:
        complain(f"{outcome['case']}: {outcome['error']['message']}")
    return complain(f"{len(failures)} of {len(cases)} cases failed.") if failures else 0


def check_images(images: list[Path]) -> None:
    """EngineError bad_input for the first that is not there."""
    for image in images:
        if not image.exists():
            raise EngineError("bad_input", f"{image} does not exist.", "Check its name.")


def read_ahead(cases: list, read: Callable[[object], object]) -> Iterator[tuple[object, Callable[[], object]]]:
    """Each case with a function that gives `read(case)` or raises its error.

    While a case is worked on, another thread reads the next one, and no more than that one.
    """
    with ThreadPoolExecutor(1, "reading ahead") as thread:
        following = thread.submit(read, cases[0])
        for number, case in enumerate(cases):
            present = following
            wait([present])
            if number + 1 < len(cases):
                following = thread.submit(read, cases[number + 1])
            yield case, present.result


def run_of(options: argparse.Namespace) -> dict:
    """The options of a run that its result depends on."""
    roi = [options.roi[n : n + 2] for n in (0, 2, 4)] if options.roi else None
    return {"overlap": options.overlap, "mirror": options.mirror, "roi": roi}


def read_case(package, case, options: argparse.Namespace, batch: bool) -> tuple:
    """The `ResultFile` of a case in a batch, else None; and its image, None where the result is there already."""
    from ..batch.result_file import ResultFile
    from ..image.reading import read_image

    images = case.checked_images()
    file = ResultFile.from_files(case.output, package, run_of(options), images) if batch else None
    if file is not None and options.resume and file.is_finished:
        return file, None
    if file is not None:
        file.check()
    return file, read_image(images)


def segment_case(segmenter, case, given: Callable[[], tuple], options: argparse.Namespace, show, batch: bool) -> dict:
    """What happened to one case, of which `given` gives what `read_case` read.

    In a batch its error is part of that, else it is raised.
    """
    from ..image.labels import label_extents, segment_volumes
    from ..image.tags import provenance
    from ..image.writing import write_labels

    run, package = run_of(options), segmenter.package
    report = {"case": case.name, "inputs": [str(path) for path in case.images]}
    try:
        show(case.name, "Reading", 0.0, None)
        file, image = given()
        if image is None:
            return {**report, "output": str(case.output), "skipped": file.state}
        result = segmenter.segment(
            image, **run, progress=lambda stage, fraction, left: show(case.name, stage, fraction, left)
        )
        if file is not None:
            file.write(result.labels, image)
        else:
            case.output.parent.mkdir(parents=True, exist_ok=True)
            write_labels(case.output, result.labels, image, package.labels, provenance(package, run))
    except Cancelled:
        raise
    except (UserFacingError, OSError) as error:
        if not batch:
            raise
        code = error.code if isinstance(error, UserFacingError) else "internal"
        return {**report, "error": {"code": code, "message": " ".join(str(error).split())}}
    volumes = segment_volumes(label_extents(result.labels, len(package.labels)), image.voxel_ml)
    names = [label["name"] for label in package.labels]
    return {
        **report,
        "output": str(case.output),
        "segments": [{**volume, "name": name} for volume, name in zip(volumes, names, strict=True)],
        "removed_share": result.statistics["removed_share"],
        "seconds": result.seconds,
        "device": result.device,
        "notices": result.notices,
    }


def print_outcome(outcome: dict) -> None:
    if "error" in outcome:
        return
    if "skipped" in outcome:
        changed = ", and was changed since" if outcome["skipped"] == "edited" else ""
        print(f"{outcome['output']}  (was there already{changed})")
        return
    print(f"{outcome['output']}  ({outcome['seconds']['total']:.1f} s on {outcome['device']})")
    for segment in outcome["segments"]:
        size = f"{segment['voxels']} pixels" if segment["ml"] is None else f"{segment['ml']:.2f} ml"
        print(f"    {segment['name']}: {size}")
    for notice in outcome["notices"]:
        complain(f"{outcome['case']}: {notice}")


@contextlib.contextmanager
def progress_bar(cases: int):
    """Gives show(case, stage, fraction, seconds_left); a bar on stderr where a person sees it and rich is there."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        yield lambda case, stage, fraction, left: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda case, stage, fraction, left: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} % {task.fields[left]}")
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1.0, left="")
        done: list[str] = []

        def show(case: str, stage: str, fraction: float, left: float | None) -> None:
            if case not in done:
                done.append(case)
            count = f" ({len(done)} of {cases})" if cases > 1 else ""
            text = "" if left is None else f"{left:.0f} s left"
            progress.update(task, description=f"{case}{count}: {stage}", completed=fraction, left=text)

        yield show
