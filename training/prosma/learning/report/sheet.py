"""The picture sheet of an evaluation: best, median and worst case, each as image, reference and prediction."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from ...files import replaced_when_whole
from ...inference.segmenter import Segmenter
from ..data.dataset import IGNORED, LabelledFolder, read_case
from ..data.pictures import SliceView

SIDE, MARGIN, TEXT = 288, 12, 14  # pixels
INK, PAPER = (20, 20, 20), (255, 255, 255)
COLUMNS = ("image", "reference", "prediction")


def write_sheet(path: str | os.PathLike, segmenter: Segmenter, folder: LabelledFolder, report: dict) -> None:
    """Draw the sheet for a report of `evaluation.evaluate`; its three cases are segmented once more."""
    chosen = chosen_cases(report["per_case"])
    width = len(COLUMNS) * (SIDE + MARGIN) + MARGIN
    rows = [case_row(segmenter, folder, title, row, report["surface"]["unit"], width) for title, row in chosen]
    foot = legend(segmenter.package.labels, width)
    height = sum(row.height for row in rows) + foot.height
    sheet, top = Picture.new("RGB", (width, height), PAPER), 0
    for part in (*rows, foot):
        sheet.paste(part, (0, top))
        top += part.height
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(path) as temporary:
        sheet.save(temporary, "PNG", optimize=True)


def chosen_cases(rows: list[dict]) -> list[tuple[str, dict]]:
    """Best, median and worst case by mean Dice; fewer where there are fewer. Cases without Dice only if all are."""
    defined = [row for row in rows if row["mean"]["dice"] is not None]
    ranked = sorted(defined, key=lambda row: -row["mean"]["dice"]) or rows
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    taken: dict[int, str] = {}
    for title, place in places.items():
        taken.setdefault(place, title)
    return [(title, ranked[place]) for place, title in sorted(taken.items())] if ranked else []


def case_row(segmenter: Segmenter, folder: LabelledFolder, title: str, row: dict, unit: str, width: int):
    """One case: a line of numbers above three pictures of the slice with most of the reference."""
    model = segmenter.package.model
    image, reference = read_case(folder.cases[row["case"]], model)
    reference[reference == IGNORED] = 0
    predicted = segmenter.segment(image, refuse_unfit=False).labels
    view = SliceView.of_most_labels(image, reference if reference.any() else predicted, model["dimension"])
    colors = [label["color"] for label in model["labels"]]
    pictures = [view.picture(SIDE, labels, colors) for labels in (None, reference, predicted)]
    top = 2 * TEXT + 2 * MARGIN
    result = Picture.new("RGB", (width, top + max(picture.height for picture in pictures) + MARGIN), PAPER)
    write(result, (MARGIN, MARGIN), f"{title}: {row['case']}   {numbers(row['mean'], unit)}")
    for column, (name, picture) in enumerate(zip(COLUMNS, pictures, strict=True)):
        left = MARGIN + column * (SIDE + MARGIN)
        write(result, (left, MARGIN + TEXT + 4), name)
        result.paste(picture, (left, top))
    return result


def numbers(mean: dict, unit: str) -> str:
    texts = {"Dice": mean["dice"], "IoU": mean["iou"], "NSD": mean["nsd"]}
    parts = [f"{name} {'undefined' if value is None else f'{value:.3f}'}" for name, value in texts.items()]
    hd95 = mean["hd95"]
    return "   ".join([*parts, f"HD95 {'undefined' if hd95 is None else f'{hd95:.1f} {unit}'}"])


def legend(labels: list[dict], width: int):
    """The labels' colours and names, as many lines as it takes."""
    font, places, left, top = lettering(), [], MARGIN, 0
    for label in labels:
        wide = 2 * TEXT + int(font.getlength(label["name"])) + MARGIN
        if left > MARGIN and left + wide > width:
            left, top = MARGIN, top + TEXT + 6
        places.append((left, top))
        left += wide
    result = Picture.new("RGB", (width, top + TEXT + 6 + MARGIN), PAPER)
    for label, (x, y) in zip(labels, places, strict=True):
        ImageDraw.Draw(result).rectangle((x, y + 2, x + TEXT, y + TEXT + 2), fill=tuple(label["color"]))
        write(result, (x + TEXT + 6, y), label["name"])
    return result


def write(picture, place: tuple[int, int], text: str) -> None:
    ImageDraw.Draw(picture).text(place, text, fill=INK, font=lettering())


def lettering():
    return ImageFont.load_default(TEXT)
