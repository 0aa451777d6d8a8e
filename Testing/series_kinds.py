"""DICOM series of all kinds in which a volume comes, for tests of results that refer to their images."""

import numpy as np
from dicom_writing import OBLIQUE, SAGITTAL, enhanced, item, noise, write, write_series

NEGATIVE = tuple(-part for part in OBLIQUE[:3]) + OBLIQUE[3:]  # the other sense of the normal
UNEVEN = (0, 2.5, 5, 7.5, 12.5, 15, 17.5)


def names_shuffled(folder):
    write_series(folder, noise(), axes=OBLIQUE)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"{(number * 5) % 12:02d}-{number}")


def frames_shuffled(folder):
    order = np.random.default_rng(3).permutation(10)
    write(folder / "one.dcm", enhanced(noise((10, 16, 20)), order * 2.5, OBLIQUE, FrameOfReferenceUID="1.2.9"))


def two_times(folder):
    """Ten places, each at two time points, in one file."""

    def times(frame, k):
        frame.FrameContentSequence = item(TemporalPositionIndex=1 + k % 2)

    places = [k // 2 * 2.5 for k in range(20)]
    write(folder / "one.dcm", enhanced(noise((20, 16, 20)), places, groups=times, FrameOfReferenceUID="1.2.9"))


def two_files(folder):
    """One volume in two multi-frame files."""
    for number, start in enumerate((0, 12.5)):
        volume = noise((5, 16, 20), number)
        write(folder / f"{number}.dcm", enhanced(volume, start + np.arange(5) * 2.5, FrameOfReferenceUID="1.2.9"))


def uneven(folder):
    write_series(folder, noise((7, 16, 20)), edit=lambda ds, k: setattr(ds, "ImagePositionPatient", [1, 2, UNEVEN[k]]))


SERIES = {
    "oblique": lambda folder: write_series(folder, noise(), axes=OBLIQUE, FrameOfReferenceUID="1.2.9"),
    "negative": lambda folder: write_series(folder, noise(), axes=NEGATIVE, FrameOfReferenceUID="1.2.9"),
    "sagittal": lambda folder: write_series(folder, noise((9, 24, 16)), axes=SAGITTAL),
    "downwards": lambda folder: write_series(folder, noise(), spacing=(0.8, 0.9, -2.5)),
    "names shuffled": names_shuffled,
    "frames shuffled": frames_shuffled,
    "two times": two_times,
    "two files": two_files,
    "one slice": lambda folder: write_series(folder, noise((1, 16, 20))),
    "uneven": uneven,
}
CHOSEN = {"two times": ["--series", "2"]}
