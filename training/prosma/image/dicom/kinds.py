"""What DICOM objects are that are no images of slices, in a person's words. Source: DICOM PS3.4 section B.5."""

from __future__ import annotations

STORAGE = "1.2.840.10008.5.1.4.1.1."
ITS_IMAGES = "Give the image series that it belongs to."
A_PICTURE = "Export one level of it as a TIFF or PNG picture and segment that."

NO_IMAGES = {  # SOP class below STORAGE, or the start of one where it ends with a point: what it is
    "4.2": "MR spectroscopy",
    "9.": "a waveform",
    "11.": "a presentation state (PR)",
    "66": "raw data of a scanner",
    "66.1": "a spatial registration",
    "66.2": "a set of fiducials",
    "66.3": "a deformation field",
    "66.4": "a DICOM segmentation",
    "66.5": "a surface segmentation",
    "66.6": "a set of fibre tracts",
    "66.7": "a DICOM segmentation",
    "67": "a real world value mapping",
    "77.1.1.1": "a video",
    "77.1.2.1": "a video",
    "77.1.4.1": "a video",
    "77.1.6": "a whole slide microscopy image",
    "88.59": "a selection of key images (KO)",
    "88.": "a structured report (SR)",
    "104.1": "a PDF document",
    "104.2": "a text document",
    "104.": "a surface mesh",
    "481.3": "a set of contours (RTSTRUCT)",
    "481.5": "a radiotherapy plan",
    "481.8": "a radiotherapy plan",
}
MODALITIES = {  # where the SOP class is private or missing
    "SEG": "a DICOM segmentation",
    "RTSTRUCT": "a set of contours (RTSTRUCT)",
    "RTPLAN": "a radiotherapy plan",
    "SR": "a structured report (SR)",
    "KO": "a selection of key images (KO)",
    "PR": "a presentation state (PR)",
    "DOC": "a document",
    "REG": "a spatial registration",
    "SM": "a whole slide microscopy image",
}
REMEDIES = {
    "a whole slide microscopy image": A_PICTURE,
    "a video": "Export one of its pictures as PNG and segment that.",
}


def no_image(attributes, meta) -> str:
    """What a DICOM object is that holds no image to segment, such as "a structured report (SR)"; "" for an image.

    `attributes` and `meta`: the `Attributes` of the file and of its first group. ImageError where they are damaged.
    """
    uid = str(attributes.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    own = uid.removeprefix(STORAGE)
    family = next((start for start in NO_IMAGES if start.endswith(".") and own.startswith(start)), "")
    what = NO_IMAGES.get(own) or NO_IMAGES.get(family) or MODALITIES.get(attributes.text("Modality"))
    if what:
        return what
    from pydicom.uid import UID

    name = UID(uid).name
    if (attributes.get("Rows") and attributes.get("Columns")) or name.endswith("Image Storage"):
        return ""
    return f"a DICOM object without an image ({name})" if uid and name != uid else "a DICOM object without an image"


def remedy_for(what: str) -> str:
    """What a person can do who gave this instead of an image."""
    return REMEDIES.get(what, ITS_IMAGES)
