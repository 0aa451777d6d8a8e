"""Whether the fit of an image to a model is told (training/prosma/inference/fit.py), and the statistics that it needs.

    python Testing/benchmarks/fit.py make DATA [MODEL ...]
    python Testing/benchmarks/fit.py measure DATA [MODEL ...] [--json FILE] [--markdown Testing/benchmarks/FIT.md]

DATA holds a folder for each data set, named as in STRANGERS. `make` writes fit.npz into the bundled packages, from
the train and val splits of each model's own data. `measure` looks at at most 20 cases of the test split of each set:
- own: all test cases of the model's own set, whole and with a random ROI around the labels (of a picture the whole is
  judged); akin: another set of the same kind of image;
- strangers: all other sets, and the volumes in WRONG; a volume goes into a 2D model as its middle slice, an image with too
  few channels is given several times. What a model refuses by itself (values below black, too large a grid) is no stranger;
- faulty copies of own images (learning/packing/faulty_copies.py), as the statistics were made from those of the training
  cases: noise of a quarter of their range, clipped to the middle 40 % of their values, inverted; of volumes also turned
  (header mirrored along 3 axes, or 3 pairs of axes exchanged) and beside (regions without any of the labels).
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from curves import roc, svg

from prosma.errors import UserFacingError
from prosma.files import write_json
from prosma.image.box import Box
from prosma.image.geometry import Image
from prosma.image.reading import read_image
from prosma.inference.fit import UNFIT, UNUSUAL
from prosma.inference.segmenter import Segmenter
from prosma.learning.data.dataset import LabelledFolder, read_case
from prosma.learning.packing.faulty_copies import Strength, faulty_copies
from prosma.learning.packing.fit_statistics import drawn_box, fit_statistics
from prosma.package import bundled_models_folder

sys.path.insert(0, str(Path(__file__).parents[1]))
from labelled_folders import DATA_OF_MODELS as OWN

AKIN = {"polyp-colonoscopy": "cvc_clinicdb"}
VOLUMES = ("acdc_ed", "brats2013_mini", "sts_petct")
STRANGERS = (*OWN.values(), *VOLUMES, "usgra_nerves", "cvc_clinicdb")
WRONG = (
    "nifti/ct_torso_3mm.nii.gz",
    "nifti/mr_torso_slab_3mm.nii.gz",
    "nifti/stat_map_int16.nii.gz",
    "nifti/mr_fmri_mean_oblique.nii.gz",
    "nifti/big_endian_avg152.nii.gz",
    "nifti/mr_t2_oblique_lsp.nii.gz",
    "nifti/mr_flair_oblique.nii.gz",
    "mha/ct_lung_small.mha",
    "mha/mr_brain_2d.mha",
    "labelled/mr_cord_t1.nii.gz",
    "labelled/mr_cord_t2.nii.gz",
    "labelled/ct_spleen2_crop.nii.gz",
    "labelled/ct_chaos_liver.nii.gz",
)
MOST = 20  # cases of a set
GROUPS = {  # what the kinds begin with
    "own, whole or in a ROI": ("own",),
    "strangers": ("strangers",),
    "noise, clipped, inverted": ("noise", "clipped", "inverted"),
    "turned or mirrored": ("turned",),
    "beside the structures": ("beside",),
}


def main() -> int:
    options = parser_of(__doc__.splitlines()[0], ("make", "measure")).parse_args()
    models = options.models or list(OWN)
    try:
        if options.action == "make":
            for name in models:
                make(name, options.data)
            return 0
        reports = [measure(name, options.data) for name in models]
    except UserFacingError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        write_json(options.json, {"unusual": UNUSUAL, "unfit": UNFIT, "models": reports})
    if options.markdown:
        options.markdown.write_text(page(reports, options.markdown.stem), encoding="utf-8")
        curves = {
            report["model"]: roc(*(scores_of(report, kind) for kind in ("own", "strangers"))) for report in reports
        }
        picture = svg(curves, "own images above a limit", "strangers above it")
        options.markdown.with_suffix(".svg").write_text(picture, encoding="utf-8")
    return 0


def parser_of(description: str, actions: tuple[str, ...]) -> argparse.ArgumentParser:
    """The command line of this file and of quality.py."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("action", choices=actions)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL", choices=[*OWN, []], help="of the bundled ones; all")
    parser.add_argument("--json", metavar="FILE", help="write what was measured, one by one")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the table to a page")
    return parser


def make(model: str, data: Path) -> None:
    """Write fit.npz of a bundled model."""
    segmenter = Segmenter(bundled_models_folder() / model, "cpu")
    content = fit_statistics(segmenter, LabelledFolder.open(data / OWN[model]))
    segmenter.package.fit_path.write_bytes(content)
    print(f"{model}: {len(content)} bytes", flush=True)


def measure(model: str, data: Path) -> dict:
    """The scores of images of each kind, and the counts of `summary`."""
    segmenter = Segmenter(bundled_models_folder() / model, "cpu")
    rows, refused = [], 0
    for kind, name, image, roi in images(model, data, segmenter.package.model):
        try:
            fit = segmenter.fit_of(image, roi)
            rows.append({"kind": kind, "image": name, "score": fit.score, "verdict": fit.verdict})
        except UserFacingError:
            refused += 1
    report = {"model": model, "refused": refused, **summary(rows), "rows": rows}
    print({key: value for key, value in report.items() if key != "rows"}, flush=True)
    return report


def images(model: str, data: Path, description: dict) -> Iterator[tuple[str, str, Image, Box | None]]:
    """Kind, name, image and region of interest of all that a model is shown."""
    own, random = LabelledFolder.open(data / OWN[model]), np.random.default_rng(1)
    for number, case in enumerate(own.splits["test"]):
        image, labels = read_case(own.cases[case], description)
        yield "own", case, image, None
        yield "own in a ROI", case, image, drawn_box(labels, random)
        if number < MOST:
            for fault, copy in faulty_copies(image, labels, description, random, Strength()):
                yield fault, case, copy, None
    for name in STRANGERS:
        other = LabelledFolder.open(data / name)
        kind = "akin" if AKIN.get(model) == name else "strangers"
        for case in other.splits["test"][:MOST] if name != OWN[model] else ():
            yield kind, f"{name} {case}", adapted(read_image(other.cases[case].images), description), None
    for name in WRONG:
        yield "strangers", name, adapted(read_image(data / "robust_volumes" / name), description), None


def adapted(image: Image, description: dict) -> Image:
    """An image as somebody could give it to a model by mistake: one slice, and as many channels as it takes."""
    array, need = image.array, len(description["channels"])
    if description["dimension"] == 2:
        middle = array.shape[3] // 2
        array = array[..., middle : middle + 1]
    if len(array) != need and (need, len(array)) not in ((1, 3), (3, 1)):
        array = np.repeat(array[:1], need, axis=0)
    if (need, len(array)) == (3, 1) and description["dimension"] == 3:
        array = np.repeat(array, 3, axis=0)
    return replace(image, array=array)


def summary(rows: list[dict]) -> dict:
    """AUROC of strangers against own images, and of each kind the number, and the shares called unusual and unfit."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["kind"], []).append(row["score"])
    own, strangers = np.array(scores["own"]), np.array(scores["strangers"])
    above = (strangers[:, None] > own).mean() + (strangers[:, None] == own).mean() / 2
    verdicts = {kind: [row["verdict"] for row in rows if row["kind"] == kind] for kind in scores}
    kinds = {
        kind: {
            "images": len(found),
            "flagged": round(1 - found.count("fits") / len(found), 4),
            "unfit": round(found.count("unfit") / len(found), 4),
        }
        for kind, found in verdicts.items()
    }
    return {"auroc": round(float(above), 4), "kinds": kinds}


def scores_of(report: dict, kind: str) -> list[float]:
    return [row["score"] for row in report["rows"] if row["kind"] == kind]


def page(reports: list[dict], name: str) -> str:
    """The results as Markdown."""
    kinds = list(dict.fromkeys(kind for report in reports for kind in report["kinds"]))
    head = f"| model | AUROC | {' | '.join(kinds)} |"
    lines = [head, "| --- " * (len(kinds) + 2) + "|"]
    for report in reports:
        cells = [cell(report["kinds"].get(kind)) for kind in kinds]
        lines.append(f"| {report['model']} | {report['auroc']:.4f} | {' | '.join(cells)} |")
    mean = np.mean([report["auroc"] for report in reports])
    worst = min(report["auroc"] for report in reports)
    return "\n".join(
        [
            "# Fit of an image to a model",
            "",
            "Written by `Testing/benchmarks/fit.py measure`, whose docstring says what each kind is. In each cell the "
            f"percentage called unusual or worse (score from {UNUSUAL} on), in brackets that called unfit (joint score from "
            f"{UNFIT} on), and the number of images. Of own images few should be, of all others many.",
            "",
            "What the features are was chosen while looking at these images; the limits are the same for all models, and the "
            "scale of the scores comes from training and validation cases alone. Faults that cross-validation on the "
            "training cases does not show are left out: what is symmetric left to right looks the same mirrored.",
            "",
            *lines,
            "",
            f"AUROC of strangers against own images: mean {mean:.4f}, worst {worst:.4f}. All images of all models together:",
            "",
            *together(reports),
            "",
            f"![ROC of strangers against own images]({name}.svg)",
            "",
        ]
    )


def together(reports: list[dict]) -> list[str]:
    """Counts over all models, of groups of kinds."""
    lines = ["| images | number | flagged | unfit |", "| --- | --- | --- | --- |"]
    for group, begins in GROUPS.items():
        rows = [row for report in reports for row in report["rows"] if row["kind"].startswith(begins)]
        verdicts = [row["verdict"] for row in rows]
        flagged, unfit = (100 * (1 - verdicts.count("fits") / len(rows)), 100 * verdicts.count("unfit") / len(rows))
        lines.append(f"| {group} | {len(rows)} | {flagged:.1f} % | {unfit:.1f} % |")
    return lines


def cell(kind: dict | None) -> str:
    if kind is None:
        return ""
    return f"{100 * kind['flagged']:.0f} ({100 * kind['unfit']:.0f}) of {kind['images']}"


if __name__ == "__main__":
    sys.exit(main())
