"""What ProSMA asks of a DICOMweb server (DICOM PS3.18: QIDO-RS, WADO-RS, STOW-RS), by dicomweb-client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..cancel import never, stop_if
from ..errors import EngineError
from .access import AGAIN, client_for, explained_for
from .query import SERIES_KEYS, STUDY_KEYS, Query, Series, values_of

if TYPE_CHECKING:
    import pydicom

PAGE = 200  # entries that are asked for at a time
TAGS = {
    "PatientID": "00100020",
    "StudyInstanceUID": "0020000D",
    "StudyDate": "00080020",
    "StudyDescription": "00081030",
    "AccessionNumber": "00080050",
    "Modality": "00080060",
    "SeriesDescription": "0008103E",
    "BodyPartExamined": "00180015",
    "SeriesInstanceUID": "0020000E",
    "NumberOfSeriesRelatedInstances": "00201209",
    "SOPInstanceUID": "00080018",
}


class Server:
    """A DICOMweb server at an address. Every method raises EngineError, as ServerGone where it does not answer."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.host = urlsplit(url).netloc
        self._client = client_for(self.url)

    def find(self, query: Query) -> list[Series]:
        """The series that the query wants, study by study."""
        with explained_for(self.host):
            studies = self._all(self._client.search_for_studies, query.for_server(STUDY_KEYS), STUDY_KEYS)
            return [series for study in studies for series in self._series_of(study, query)]

    def instances(self, series: Series) -> list[str]:
        """The UIDs of its images, sorted."""

        def search(**options) -> list[dict]:
            return self._client.search_for_instances(series.study, series.uid, **options)

        with explained_for(self.host):
            found = self._all(search, {}, ("SOPInstanceUID",))
        uids = sorted({told["SOPInstanceUID"] or "" for told in found})
        if not any(uids):
            raise EngineError("bad_input", f"The server {self.host} has no images of the series.", "Try again later.")
        return uids

    def fetch(self, series: Series, uids: list[str], folder: Path, cancelled: Callable[[], bool] = never) -> None:
        """Write each image of a series to a file in a folder. EngineError where one of the `uids` does not come.

        Raises Cancelled where `cancelled` says so before an image.
        """
        missing = set(uids)
        with explained_for(self.host):
            for number, image in enumerate(self._client.iter_series(series.study, series.uid)):
                stop_if(cancelled)
                image.save_as(folder / f"{number:06d}.dcm", enforce_file_format=True)
                missing.discard(str(image.SOPInstanceUID))
        if missing:
            reason = f"Of {len(uids)} images of the series {len(missing)} did not come from {self.host}."
            raise EngineError("bad_input", reason, "The same call tries again.")

    def segmentations(self, study: str) -> list[pydicom.Dataset]:
        """The headers of all segmentations of a study."""
        import pydicom

        def search(**options) -> list[dict]:
            return self._client.search_for_series(study, **options)

        with explained_for(self.host):
            found = self._all(search, {"Modality": "SEG"}, ("SeriesInstanceUID", "Modality"))
            return [
                pydicom.Dataset.from_json(header, bulk_data_uri_handler=lambda tag, vr, uri: None)
                for told in found
                if told["Modality"] == "SEG"
                for header in self._client.retrieve_series_metadata(study, told["SeriesInstanceUID"])
            ]

    def store(self, file: Path) -> str:
        """Store a DICOM file; its SOPInstanceUID. EngineError where the server did not take it."""
        import pydicom

        instance = pydicom.dcmread(file)
        uid = str(instance.SOPInstanceUID)
        with explained_for(self.host):
            answer = self._client.store_instances([instance])
        taken = {str(entry.get("ReferencedSOPInstanceUID")) for entry in answer.get("ReferencedSOPSequence") or ()}
        if uid not in taken and not self._has(instance):
            codes = [f"{entry.FailureReason:#06x}" for entry in answer.get("FailedSOPSequence") or ()]
            reason = f"The server {self.host} did not take the segmentation{f' ({codes[0]})' if codes else ''}."
            raise EngineError("bad_output", reason, AGAIN)
        return uid

    def _has(self, instance: pydicom.Dataset) -> bool:
        """Whether an object is on the server; not all of them answer what they took."""
        study, series, uid = instance.StudyInstanceUID, instance.SeriesInstanceUID, instance.SOPInstanceUID
        with explained_for(self.host):
            found = self._client.search_for_instances(study, series, search_filters={"SOPInstanceUID": str(uid)})
        return any(values_of(entry, TAGS)["SOPInstanceUID"] == uid for entry in found)

    def _series_of(self, study: dict[str, str | None], query: Query) -> Iterator[Series]:
        """The wanted series of a study."""
        uid = study["StudyInstanceUID"] or ""

        def search(**options) -> list[dict]:
            return self._client.search_for_series(uid, **options)

        for told in self._all(search, query.for_server(SERIES_KEYS), (*SERIES_KEYS, "NumberOfSeriesRelatedInstances")):
            found = {**study, **{key: value for key, value in told.items() if value is not None}}
            wanted = query.matches(found)
            if wanted is None:  # the server keeps silent about a key: the images tell
                found |= {key: value or "" for key, value in self._first_image(found).items() if found[key] is None}
                wanted = query.matches(found)
            if wanted:
                yield series_of(found)

    def _first_image(self, found: dict[str, str | None]) -> dict[str, str | None]:
        """What the header of a series' first image says, by keyword."""
        series = series_of(found)
        images = self._client.search_for_instances(series.study, series.uid, limit=1)
        uid = values_of(images[0], TAGS)["SOPInstanceUID"] if images else None
        header = self._client.retrieve_instance_metadata(series.study, series.uid, uid) if uid else {}
        header = header[0] if isinstance(header, list) else header
        return values_of(header, {key: TAGS[key] for key in (*STUDY_KEYS, *SERIES_KEYS)})

    def _all(
        self, search: Callable[..., list[dict]], filters: dict[str, str], fields: tuple[str, ...]
    ) -> list[dict[str, str | None]]:
        """Every entry that a search finds, page by page, with the values of all TAGS."""
        entries: dict[str, dict[str, str | None]] = {}
        more = True
        while more:
            page = search(search_filters=filters, fields=fields, limit=PAGE, offset=len(entries))
            before = len(entries)
            entries |= {str(sorted(told.items(), key=str)): told for told in (values_of(entry, TAGS) for entry in page)}
            more = len(entries) > before  # its own pages may be shorter; one that knows none repeats the first
        return list(entries.values())


def series_of(found: dict[str, str | None]) -> Series:
    """A series by its values."""
    images = found.get("NumberOfSeriesRelatedInstances") or ""
    return Series(
        study=found["StudyInstanceUID"] or "",
        uid=found["SeriesInstanceUID"] or "",
        modality=found["Modality"] or "",
        description=found["SeriesDescription"] or "",
        study_description=found["StudyDescription"] or "",
        date=found["StudyDate"] or "",
        images=int(images) if images.isdigit() else 0,
    )
