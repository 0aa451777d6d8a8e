"""Which images make up which volume: by study and series, size, direction, and what tells apart images at one place."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from ..geometry import ImageError
from .files import read_whole
from .frames import Frame
from .pieces import pieces_of

DIRECTIONS = 2e-3  # by which directions of rows and columns may differ within a volume; its grid is checked in mm
SAME_PLACE = 0.01  # of a pixel
FEW = 3  # images of another kind in a series that are set aside as localizers ...
MANY = 4  # ... where the volume has this many times as many
LISTED = 20
ASIDE = "of another size or direction, such as a localizer"
COPIES = "there twice"
LOCALIZERS = "a localizer"
WITHOUT_PLACE = "that tells no place"
OTHER_PART = "of another part of the series"
OTHER_SERIES = "of other series"
CHOOSE = "Choose one with --series (its number here, its description or its UID; series=... in Python)"

TELLING = (  # what may tell apart images at one place, and the functional group that holds it
    ("TemporalPositionIndex", "FrameContentSequence"),
    ("TemporalPositionIdentifier", ""),
    ("ImageType", ""),
    ("FrameType", "MRImageFrameTypeSequence"),
    ("FrameType", "CTImageFrameTypeSequence"),
    ("FrameType", "PETFrameTypeSequence"),
    ("ComplexImageComponent", "MRImageFrameTypeSequence"),
    ("EffectiveEchoTime", "MREchoSequence"),
    ("EchoTime", ""),
    ("EchoNumbers", ""),
    ("InversionTimes", "MRModifierSequence"),
    ("InversionTime", ""),
    ("FlipAngle", "MRTimingAndRelatedParametersSequence"),
    ("DiffusionBValue", "MRDiffusionSequence"),
    ("NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence"),
    ("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"),
    ("NominalPercentageOfRespiratoryPhase", "RespiratorySynchronizationSequence"),
    ("TriggerTime", ""),
    ("FrameReferenceTime", ""),
    ("FrameReferenceDateTime", "FrameContentSequence"),
    ("FrameAcquisitionDateTime", "FrameContentSequence"),
    ("FrameAcquisitionNumber", "FrameContentSequence"),
    ("AcquisitionNumber", ""),
    ("AcquisitionDateTime", ""),
    ("AcquisitionTime", ""),
    ("ConvolutionKernel", ""),
    ("KVP", "CTXRayDetailsSequence"),
)


@dataclass(frozen=True, eq=False)
class Volume:
    """The images of one volume, unordered. `part` tells it from others of its series; `aside`: images left out, why."""

    frames: tuple[Frame, ...]
    part: str = ""
    aside: tuple[tuple[Frame, str], ...] = ()

    @property
    def uid(self) -> str:
        """Its SeriesInstanceUID."""
        return self.frames[0].attributes.text("SeriesInstanceUID")

    @property
    def description(self) -> str:
        """Its SeriesDescription."""
        return self.frames[0].attributes.text("SeriesDescription")

    @property
    def title(self) -> str:
        """Modality, description, part, number and size of its images."""
        first = self.frames[0]
        name = f"'{self.description}'" if self.description else "series without a description"
        facts = " ".join(word for word in (first.attributes.text("Modality"), name) if word)
        count = f"{len(self.frames)} images" if len(self.frames) > 1 else "1 image"
        return ", ".join(filter(None, [facts, self.part, f"{count} of {first.columns} x {first.rows}"]))


def volumes_of(frames: list[Frame]) -> list[Volume]:
    """All volumes among the images, series by series in the order of their numbers."""
    series: dict[tuple[str, str], list[Frame]] = {}
    for frame in sorted(frames, key=instance_key):
        uids = frame.attributes.text("StudyInstanceUID"), frame.attributes.text("SeriesInstanceUID")
        series.setdefault(uids, []).append(frame)
    ordered = sorted(series.items(), key=lambda entry: series_key(*entry))
    return [volume for _, images in ordered for volume in split_series(images)]


def series_key(uids: tuple[str, str], images: list[Frame]) -> tuple:
    """What orders series: date, study, number."""
    first = images[0].attributes
    number = first.number("SeriesNumber")
    return (first.text("StudyDate"), uids[0], number if number is not None else np.inf, uids[1])


def instance_key(frame: Frame) -> tuple:
    """The order of images in which they were made."""
    number = frame.attributes.number("InstanceNumber")
    return (number if number is not None else np.inf, str(frame.file), frame.index)


def split_series(frames: list[Frame]) -> list[Volume]:
    """The volumes of one series."""
    frames, copies = without_same_objects(frames)
    stacks = stacks_of(frames)
    main = max(stacks, key=lambda stack: (not stack[0].is_localizer, len(stack)))
    aside = [stack for stack in stacks if stack is not main and is_beside(stack, main)]
    stacks = [stack for stack in stacks if not any(stack is other for other in aside)]
    left_out = [(frame, COPIES) for frame in copies]
    left_out += [(frame, why_aside(frame, main[0])) for stack in aside for frame in stack]
    volumes = []
    references = list(dict.fromkeys(stack[0].reference for stack in stacks))
    for stack in stacks:
        words = [direction(stack[0])] if len(stacks) > 1 else []
        if len(references) > 1:
            words.append(f"frame of reference {references.index(stack[0].reference) + 1}")
        for stack_id, own in by_stack_id(stack):
            for part in split_stack(own):
                volumes.append(replace(part, part=", ".join(filter(None, [*words, stack_id, part.part]))))
    return [replace(volume, aside=(*volume.aside, *left_out)) for volume in volumes]


def by_stack_id(stack: list[Frame]) -> list[tuple[str, list[Frame]]]:
    """The stacks that a multi-frame file names, where they are stacks and no single slices, with a label each."""
    groups: dict[str, list[Frame]] = {}
    for frame in stack:
        groups.setdefault(str(frame.attributes.get("StackID", "FrameContentSequence") or ""), []).append(frame)
    if len(groups) == 1 or min(map(len, groups.values())) == 1:
        return [("", stack)]
    return [(f"Stack ID {stack_id}", group) for stack_id, group in groups.items()]


def why_aside(frame: Frame, main: Frame) -> str:
    """Why an image is no part of the volume that `main` belongs to."""
    if frame.is_localizer:
        return LOCALIZERS
    return ASIDE if frame.is_placed or not main.is_placed else WITHOUT_PLACE


def is_beside(stack: list[Frame], main: list[Frame]) -> bool:
    """Whether a stack is no volume of its own but a few images beside one: localizers, thumbnails."""
    if stack[0].is_localizer and not main[0].is_localizer:
        return True
    return main[0].is_slice and len(stack) <= FEW and len(main) >= MANY * len(stack)


def without_same_objects(frames: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    """The images, each object once, and the files' second copies.

    Files of one UID count as copies only where they hold the same: some programs that take names out give all images one.
    """
    files: dict[tuple[str, int, int], list[Path]] = {}
    for frame in frames:
        if frame.index == 0:
            uid = frame.attributes.text("SOPInstanceUID")
            files.setdefault((uid, frame.file.stat().st_size, frame.frames), []).append(frame.file)
    seen: set[tuple] = set()
    second: set[Path] = set()
    for key, same in files.items():
        for file in same if len(same) > 1 and key[0] else ():
            digest = (key, hashlib.sha256(file.read_bytes()).digest())
            if digest in seen:
                second.add(file)
            seen.add(digest)
    return [f for f in frames if f.file not in second], [f for f in frames if f.file in second]


def stacks_of(frames: list[Frame]) -> list[list[Frame]]:
    """Images of one size, pixel size, direction and frame of reference each; without places, those of each kind."""
    stacks: list[list[Frame]] = []
    known: dict[tuple, list[Frame]] = {}  # most images of a volume have the very same numbers
    for frame in frames:
        axes = frame.directions.tobytes() if frame.is_placed else b""
        key = (frame.rows, frame.columns, frame.pixel, axes, frame.reference)
        if key not in known:
            stack = next((stack for stack in stacks if goes_with(frame, stack[0])), None)
            if stack is None:
                stacks.append(stack := [])
            known[key] = stack
        known[key].append(frame)
    return stacks


def goes_with(frame: Frame, other: Frame) -> bool:
    """Whether two images can be slices of one volume."""
    own, others = ((f.rows, f.columns, f.is_placed, f.reference) for f in (frame, other))
    if own != others:
        return False
    if not np.allclose(frame.pixel, other.pixel, rtol=1e-3, atol=0):
        return False
    return not frame.is_placed or float(np.abs(frame.directions - other.directions).max()) < DIRECTIONS


def direction(frame: Frame) -> str:
    """The closest anatomical plane of an image, for a person."""
    if not frame.is_placed:
        return "without places"
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(np.cross(*frame.directions))))]


def split_stack(frames: list[Frame]) -> list[Volume]:
    """The volumes among images of one size and direction: several where images lie at one place."""
    if not frames[0].is_placed:
        if frames[0].is_slice:
            return [Volume(tuple(frames))]
        return [Volume((frame,), f"frame {frame.index + 1}" if frame.frames > 1 else "") for frame in frames]
    frames, copies = without_equal_images(frames)
    aside = tuple((frame, COPIES) for frame in copies)
    volumes = []
    for label, group in groups_by_label(frames).items():
        for text, piece in pieces_of(group):
            part = ", ".join(filter(None, [*(words for _, words in label), text]))
            volumes.append(Volume(tuple(piece), part, aside))
    return volumes


def groups_by_label(frames: list[Frame]) -> dict[tuple, list[Frame]]:
    """Images whose places differ in each group, with the label that tells it from the others."""
    places = place_numbers(frames)
    most = max(Counter(places).values())
    if most == 1:
        return {(): frames}
    labels = labels_that_tell(frames, places, most) or labels_by_number(places, most)
    groups: dict[tuple, list[Frame]] = {label: [] for label in sorted(set(labels))}
    for frame, label in zip(frames, labels, strict=True):
        groups[label].append(frame)
    return groups


def without_equal_images(frames: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    """The images without those that equal another at their place, such as files that were sent twice; and those.

    Where the first two images at a place differ, as time points do, no more are compared.
    """
    seen: dict[int, list[bytes]] = {}
    first: dict[int, Frame] = {}
    once: list[Frame] = []
    copies: list[Frame] = []
    differ = False
    for place, frame in zip(place_numbers(frames), frames, strict=True):
        if place in first and not differ and frame.frames == 1:
            if place not in seen:
                seen[place] = [content(first[place])]
            own = content(frame)
            if own in seen[place]:
                copies.append(frame)
                continue
            seen[place].append(own)
            differ = not copies
        first.setdefault(place, frame)
        once.append(frame)
    return once, copies


def content(frame: Frame) -> bytes:
    """What a single image shows: its voxels as stored, and how they are scaled."""
    voxels = read_whole(frame.file).get("PixelData") or b""
    return hashlib.sha256(voxels + f"{frame.slope} {frame.intercept}".encode()).digest()


def place_numbers(frames: list[Frame]) -> list[int]:
    """For each image the number of its place; images at one place share it."""
    tolerance = SAME_PLACE * min(frames[0].pixel)
    positions = np.array([frame.position for frame in frames])
    numbers = np.zeros(len(frames), int)
    for axis in range(3):  # neighbours along each axis that are closer than the tolerance are one
        order = np.argsort(positions[:, axis], kind="stable")
        steps = np.diff(positions[order, axis], prepend=positions[order[0], axis]) > tolerance
        along = np.empty(len(frames), int)
        along[order] = np.cumsum(steps)
        numbers = np.unique(numbers * (len(frames) + 1) + along, return_inverse=True)[1]
    return numbers.tolist()


def labels_that_tell(frames: list[Frame], places: list[int], most: int) -> list[tuple] | None:
    """A label for each image, so that each label's images lie at different places; or None.

    Attributes are taken one after the other as long as they split the images further, into no more groups than there
    are images at one place. A label is a tuple of (number to sort by, text such as "Echo Time 4.6").
    """
    labels: list[tuple] = [()] * len(frames)
    for name, values in telling_values(frames):
        finer = [(*label, sortable(name, value)) for label, value in zip(labels, values, strict=True)]
        if not len(set(labels)) < len(set(finer)) <= most:
            continue
        labels = finer
        if len(set(zip(labels, places, strict=True))) == len(frames):
            return labels
    return None


def labels_by_number(places: list[int], most: int) -> list[tuple]:
    """Labels by the order of the images at each place."""
    seen: Counter = Counter()
    labels = []
    for place in places:
        seen[place] += 1
        text = f"image {seen[place]} of {most} at each place, in the order of their numbers"
        labels.append(((float(seen[place]), text),))
    return labels


def telling_values(frames: list[Frame]):
    """Pairs of an attribute's name and its value for each image, for attributes that may tell images apart."""
    from pydicom.datadict import dictionary_description

    for keyword, group in TELLING:
        yield dictionary_description(keyword), [frame.attributes.get(keyword, group) for frame in frames]
    indices = [frame.attributes.get("DimensionIndexValues", "FrameContentSequence") for frame in frames]
    if all(index is not None for index in indices):
        indices = [np.atleast_1d(index) for index in indices]
        for number in range(min(map(len, indices))):
            yield f"Dimension {number + 1} index", [index[number] for index in indices]


def sortable(name: str, value) -> tuple[float, str]:
    """A number to sort by, infinite for texts, and a short text."""
    values = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    texts = ["without" if v is None else f"{v:g}" if isinstance(v, float) else str(v) for v in values]
    try:
        number = float(values[0])
    except (TypeError, ValueError):
        number = np.inf
    return number, f"{name} {' '.join('/'.join(texts).split())[:48]}"


# --- choosing one ---------------------------------------------------------------------------------------------------


def choose(volumes: list[Volume], series: str | int | None, name: str) -> Volume:
    """The volume that `series` names, or the only one; what is left out goes with it. ImageError lists them."""
    found = list(range(len(volumes)))
    if series is not None:
        found = matching(volumes, str(series).strip())
        if not found:
            raise ImageError(
                f"{name} holds no volume '{series}'. It holds {listing(volumes, range(len(volumes)))}.", f"{CHOOSE}."
            )
    elif len(found) > 1:
        found = [n for n in found if not volumes[n].frames[0].is_localizer] or found
    if len(found) > 1:
        files = {frame.file for number in found for frame in volumes[number].frames}
        move = ", or move its files to a folder of their own" if len(files) > 1 else ""
        raise ImageError(several(volumes, found, name), f"{CHOOSE}{move}.")
    chosen = volumes[found[0]]
    left_out: list[tuple[Frame, str]] = []
    for number, volume in enumerate(volumes):
        if number == found[0]:
            continue
        localizer = volume.frames[0].is_localizer and not chosen.frames[0].is_localizer
        why = LOCALIZERS if localizer else OTHER_PART if volume.uid == chosen.uid else OTHER_SERIES
        left_out += [(frame, why) for frame in volume.frames]
    return replace(chosen, aside=(*chosen.aside, *left_out))


def matching(volumes: list[Volume], wanted: str) -> list[int]:
    """Places in the list of the volumes that a number (from 1), a UID or a description names."""
    if wanted.isdigit() and 1 <= int(wanted) <= len(volumes):
        return [int(wanted) - 1]
    exact = [n for n, volume in enumerate(volumes) if wanted and wanted in (volume.uid, volume.description)]
    low = wanted.lower()
    return exact or [n for n, volume in enumerate(volumes) if low and low in volume.description.lower()]


def several(volumes: list[Volume], found: list[int], name: str) -> str:
    """A sentence about several volumes at one path."""
    listed = [volumes[number] for number in found]
    text = f"{listing(volumes, found)}."
    if any(not volume.frames[0].is_slice for volume in listed) and len({volume.uid for volume in listed}) == 1:
        return f"{name} holds {len(found)} pictures that are no slices of one volume, such as those of a film: {text}"
    if len({volume.uid for volume in listed}) == 1:
        kinds = "such as time points at the same place or pieces that lie apart"
        return f"{name} holds {len(found)} volumes in one series, {kinds}: {text}"
    return f"{name} holds {len(found)} DICOM volumes: {text}"


def listing(volumes: list[Volume], numbers) -> str:
    """ "1: CT 'Abdomen', 120 images of 512 x 512; 2: ...", with the frames of one film as one."""
    entries = []
    for _, group in groupby(numbers, key=lambda n: film_key(volumes[n], n)):
        members = list(group)
        first = volumes[members[0]]
        if len(members) > 1:
            title = replace(first, part=f"single frames of {first.frames[0].file.name}").title
            entries.append(f"{members[0] + 1} to {members[-1] + 1}: {title}")
        else:
            entries.append(f"{members[0] + 1}: {first.title}")
    more = f"; and {len(entries) - LISTED} more" if len(entries) > LISTED else ""
    return "; ".join(entries[:LISTED]) + more


def film_key(volume: Volume, number: int):
    """What frames of one film have in common; every other volume has a key of its own."""
    frame = volume.frames[0]
    return str(frame.file) if not frame.is_placed and frame.frames > 1 else number
