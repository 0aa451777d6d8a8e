"""How a segmentation on a server is known again: as ProSMA's, of one model in one version, made from one series."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..outputs.dicom_seg import short
from .query import Series

if TYPE_CHECKING:
    import pydicom


def result_among(headers: Iterable[pydicom.Dataset], series: Series, package) -> pydicom.Dataset | None:
    """The header of the segmentation that this model and version made from the series, if one of them is."""
    made_by = short(f"{package.id} {package.version}")
    for header in headers:
        versions = header.get("SoftwareVersions") or ()
        versions = [versions] if isinstance(versions, str) else list(versions)
        if header.get("Manufacturer") == "ProSMA" and made_by in versions and series.uid in referenced_series(header):
            return header
    return None


def referenced_series(header: pydicom.Dataset) -> set[str]:
    """The UIDs of the series that an object was made from, in whichever study."""
    studies = [header, *(header.get("StudiesContainingOtherReferencedInstancesSequence") or ())]
    items = [item for study in studies for item in study.get("ReferencedSeriesSequence") or ()]
    return {str(item.get("SeriesInstanceUID")) for item in items}


def digest_of(series: Series, uids: Iterable[str]) -> str:
    """SHA-256 of the UIDs of a series' images: the same images have the same ones for ever (DICOM PS3.3 C.12.1)."""
    return hashlib.sha256("\n".join([series.uid, *sorted(uids)]).encode()).hexdigest()
