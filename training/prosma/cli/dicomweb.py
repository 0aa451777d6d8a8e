"""`prosma dicomweb`: the series of a DICOMweb server, segmented and stored there."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..errors import EngineError
from ..pacs.access import PASSWORD, TOKEN, USER, check_address, unsafe
from ..pacs.query import Query
from .common import MODEL_HELP, add_command, add_device, add_licence, complain, insist_on_device, whole_number
from .segment import add_run_options, ends_by_signal, run_of

SEARCH = (  # option, DICOM keyword, help
    ("--modality", "Modality", "such as MR or CT, * for all (default: that of the model)"),
    ("--patient-id", "PatientID", "of one patient"),
    ("--study-date", "StudyDate", "YYYYMMDD, or a range YYYYMMDD-YYYYMMDD, YYYYMMDD-, -YYYYMMDD"),
    ("--study-description", "StudyDescription", 'with wildcards: "*brain*"'),
    ("--series-description", "SeriesDescription", 'with wildcards: "T2*"'),
    ("--body-part", "BodyPartExamined", "as the device wrote it, with wildcards"),
    ("--accession-number", "AccessionNumber", "of one request"),
    ("--study-uid", "StudyInstanceUID", "of one study"),
    ("--series-uid", "SeriesInstanceUID", "of one series"),
)


def add_parser(commands) -> None:
    parser = add_command(
        commands,
        "dicomweb",
        run,
        "segment series of a PACS and store the results there",
        [
            "prosma dicomweb https://pacs/dicom-web -m prostate-t2 -o work/ --study-date 20260101- --list",
            'prosma dicomweb https://pacs/dicom-web -m prostate-t2 -o work/ --series-description "*t2*"',
        ],
        "Finds series by a query, fetches each, segments it, and stores a DICOM segmentation beside it, by DICOMweb. A "
        "series that has one of the same model and version is left out, so the same call goes on where another stopped. User "
        f"and password come from {USER} and {PASSWORD}, or a token from {TOKEN}, or from ~/.netrc.",
    )
    parser.add_argument("url", metavar="URL", help="of the server, such as http://localhost:8042/dicom-web")
    parser.add_argument("-m", "--model", required=True, help=MODEL_HELP)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="WORK",
        help="folder that keeps the results, and what was stored",
    )
    add_device(parser)
    add_licence(parser)
    search = parser.add_argument_group("which series")
    for option, keyword, help_text in SEARCH:
        search.add_argument(option, dest=keyword, metavar="VALUE", help=help_text)
    search.add_argument("--limit", type=whole_number(1), metavar="N", help="do at most N series that are not done yet")
    search.add_argument("--list", action="store_true", help="only tell which series there are, and which are done")
    add_run_options(parser)
    parser.add_argument("--again", action="store_true", help="make again what was removed from the server since")
    parser.add_argument("--max-failures", type=whole_number(1), metavar="N", help="stop when N series have failed")
    parser.add_argument("--json", action="store_true", help="print a JSON object a series, and a report as the last")
    parser.add_argument("--log", type=Path, metavar="FILE", help="add the same lines to this file")


def run(options: argparse.Namespace) -> int:
    check_address(options.url)
    from ..package import resolve
    from .licence_question import check_licence

    package = resolve(options.model)
    query = query_of(options, package)
    check_licence(package, options.accept_licence)
    from ..batch.result_file import check_writable
    from ..outputs.dicom_seg import need_highdicom
    from ..pacs.server import Server

    need_highdicom()
    server = Server(options.url)
    if notice := unsafe(options.url):
        complain(notice)
    found = server.find(query)
    if not found:
        complain(f"No series on {server.host} is like that.")
        return 0
    if not options.list:
        check_writable(options.output)
        insist_on_device(options.device)
    return segment(options, package, server, found)


def query_of(options: argparse.Namespace, package) -> Query:
    """The query; EngineError where the model cannot do series of a PACS, or a value is none."""
    if len(package.channels) > 1:
        reason = f"{package.name} takes {len(package.channels)} images a case, and a series is one."
        raise EngineError(
            "bad_input", reason, "Fetch the series, and use `prosma segment --series` once for each channel."
        )
    wanted = {keyword: getattr(options, keyword) for _option, keyword, _help in SEARCH}
    modality = str(package.model["modality"])
    if not wanted["Modality"] and not (modality.isupper() and len(modality) == 2):
        reason = f"{package.name} is for {modality}, which is no modality of DICOM."
        raise EngineError("bad_input", reason, "Say with --modality which series it is to segment.")
    return Query({**wanted, "Modality": wanted["Modality"] or modality})


def segment(options: argparse.Namespace, package, server, found: list) -> int:
    """Do the series, or list them; the exit code."""
    from ..batch.loop import Settings
    from ..batch.records import records_of
    from ..pacs.round_trip import RoundTrips
    from .telling import Teller, add_remedy

    folder = options.output.absolute()
    settings = Settings(
        folder=str(folder),
        model=str(package.folder.absolute()),
        device=options.device,
        run=run_of(options),
        force=options.force,
    )
    trips = RoundTrips(server, settings, package, options.again)
    if options.list or options.limit:
        done = {series.uid for series in found if trips.is_done(series)}
        if options.list:
            if options.json:
                print(json.dumps({"series": [{**asdict(series), "done": series.uid in done} for series in found]}))
            else:
                print("\n".join(line_of(series, series.uid in done) for series in found))
            return 0
        found = [series for series in found if series.uid not in done][: options.limit]
    records_of(folder).begin(len(found))
    with Teller(package, len(found), True, options.json, options.log, folder) as teller, ends_by_signal(), trips:
        for outcome in trips.run(found, teller.show):
            add_remedy(outcome)
            teller.tell(outcome)
            if options.max_failures and len(teller.failures) >= options.max_failures:
                break
        return teller.finish()


def line_of(series, done: bool) -> str:
    """One series of a list."""
    facts = (
        series.date,
        series.modality,
        f"{series.images or '?'} images",
        series.study_description,
        series.description,
    )
    return "  ".join([series.uid, "done" if done else "to do", *filter(None, facts)])
