"""Units of length in the headers of image files."""

from __future__ import annotations

MM_PER_UNIT = {
    **dict.fromkeys(("", "?", "mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("um", "µm", "micron", "microns", "micrometer", "micrometers"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometers"), 1e-6),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
}


def mm_per_unit(unit: str, name: str) -> tuple[float, list[str]]:
    """How many mm one of these units of the file `name` is, and a notice where that is not 1."""
    factor = MM_PER_UNIT.get(unit.strip().lower())
    if factor is None:
        return 1.0, [
            f"The header of {name} gives lengths in '{unit.strip()[:20]}', which is not known; mm were assumed."
        ]
    if factor == 1:
        return 1.0, []
    return factor, [
        f"The header of {name} gives lengths in {unit.strip()}; they were converted to mm. Slicer takes them for mm."
    ]
