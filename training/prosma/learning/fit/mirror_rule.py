"""The mirror rule: along which axes a training image may be flipped without making a label wrong.

All axes; none where two labels differ in left and right alone ("lung_left", "Right lung"); in 3D not front to back or up
and down where two labels differ in that alone; ultrasound pictures only from side to side. What a model was trained with is
the entry `mirror_axes` of its model.json, and only along those may an image be segmented mirrored.
"""

from __future__ import annotations

import re

OPPOSITES = (("left", "right"), ("anterior", "posterior"), ("superior", "inferior"))  # along R, A and S
SYNONYMS = {
    "l": "left", "lt": "left", "r": "right", "rt": "right", "front": "anterior", "ventral": "anterior",
    "back": "posterior", "dorsal": "posterior", "upper": "superior", "lower": "inferior",
}  # fmt: skip


def mirror_axes(labels: list[str], dimension: int, modality: str) -> list[int]:
    """Axes that may be flipped in training without making a label wrong."""
    opposed = [axis for axis, words in enumerate(OPPOSITES) if has_counterparts(labels, words)]
    if 0 in opposed or (dimension == 2 and opposed):
        return []
    if dimension == 2:
        return [0] if modality == "US" else [0, 1]
    return [axis for axis in range(3) if axis not in opposed]


def has_counterparts(labels: list[str], words: tuple[str, str]) -> bool:
    """Whether exchanging two opposite words turns one label's name into another's: "lung_left" and "Right lung"."""
    exchange = {words[0]: words[1], words[1]: words[0]}
    names = [tuple(sorted(words_of(label))) for label in labels]
    return any(
        other in names for name in names if (other := tuple(sorted(exchange.get(word, word) for word in name))) != name
    )


def words_of(label: str) -> list[str]:
    """Lower-case words of "parotid_right", "Left Lung", "lungL" or "kidney-l", with one word for each direction."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", label)
    return [SYNONYMS.get(word.lower(), word.lower()) for word in words]
