"""`prosma prompt`: a mask from strokes, in any image."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EngineError, UserFacingError
from .common import add_command, add_device, add_licence, check_file, insist_on_device

if TYPE_CHECKING:
    import numpy as np

    from ..image.geometry import Image

LABEL_MAPS = {  # options that take some, which count together
    "add": "strokes in what belongs to the object",
    "remove": "strokes in what does not belong to it",
    "lasso": "the inside of a lasso around the object",
    "earlier_add": "what was added before, and stays true",
    "earlier_remove": "what was removed before, and stays true",
    "mask": "the object so far",
}


def add_parser(commands) -> None:
    prompt = add_command(
        commands,
        "prompt",
        run,
        "segment what strokes mean, in any image",
        [
            "prosma prompt scan.nii.gz --add stroke.nii.gz -o organ.seg.nrrd",
            "prosma prompt scan.nii.gz --mask organ.nii.gz --remove leak.nii.gz -o organ.nii.gz",
            "prosma prompt scan.nii.gz --box 20 60 30 80 5 25 -o organ.nii.gz",
        ],
        "Strokes and masks are label maps on the image's grid, in which every value but 0 counts. Strokes are honoured "
        "exactly; of a mask only one connected region around what the strokes correct changes. Each option that takes a "
        "label map may be given several times.",
    )
    prompt.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="the image, one file for each channel")
    prompt.add_argument(
        "-m", "--model", help="id or path of a model for strokes; without it the first one for such images"
    )
    for name, text in LABEL_MAPS.items():
        prompt.add_argument(option_of(name), action="append", default=[], type=Path, metavar="FILE", help=text)
    prompt.add_argument("--log-odds", type=Path, metavar="FILE", help="an image with those of a model for the object")
    prompt.add_argument(
        "--box",
        nargs=6,
        type=int,
        metavar=("I0", "I1", "J0", "J1", "K0", "K1"),
        help="voxels around the object, half open",
    )
    prompt.add_argument("--series", action="append", metavar="WHICH", help="as for prosma segment")
    prompt.add_argument("-o", "--output", required=True, type=Path, help=".seg.nrrd, .nrrd, .nii.gz or .mha")
    prompt.add_argument("--again", action="store_true", help="replace the output if it is there")
    add_device(prompt)
    add_licence(prompt)


def option_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def run(options: argparse.Namespace) -> int:
    from ..image.writing import label_suffix

    label_suffix(options.output)
    check_place(options)
    for name in LABEL_MAPS:
        for path in getattr(options, name):
            check_file(path, f"label map {option_of(name)}")
    if options.log_odds is not None:
        check_file(options.log_odds, "image --log-odds")
    insist_on_device(options.device)
    from ..image.reading import read_image

    for path in options.images:
        if not path.exists():
            raise EngineError("bad_input", f"{path} does not exist.", "Check its name.")
    image = read_image(options.images, options.series)
    return write(options, image, model_for(options.model, image, options.accept_licence))


def check_place(options: argparse.Namespace) -> None:
    """EngineError bad_output where a file would be replaced that the person did not say may be."""
    from ..batch.cases import refuse_harm

    paths = [*options.images, *itertools.chain(*(getattr(options, name) for name in LABEL_MAPS)), options.log_odds]
    if os.path.realpath(options.output) in [os.path.realpath(path) for path in paths if path is not None]:
        raise EngineError("bad_output", f"{options.output} is what the result is made from.", "Choose another name.")
    refuse_harm(options.output, options.images)
    if options.output.is_dir():
        raise EngineError("bad_output", f"{options.output} is a folder.", "Choose another name.")
    if options.output.exists() and not options.again:
        raise EngineError("bad_output", f"{options.output} is there already.", "Choose another name, or say --again.")
    if not options.output.absolute().parent.is_dir():
        raise EngineError(
            "bad_output", f"There is no folder {options.output.parent}.", "Make it, or choose another one."
        )


def model_for(name: str | None, image: Image, accepted: bool):
    """The package asked for, else the first promptable one for images of this dimension. EngineError for none."""
    from ..package import ModelPackage, find_packages, model_folders, resolve
    from ..package.folders import user_models
    from .licence_question import check_licence

    dimension = 2 if image.shape[2] == 1 else 3
    if name is not None:
        package = resolve(name)
    else:
        found = [p for p in find_packages(model_folders()) if isinstance(p, ModelPackage) and p.is_promptable]
        fitting = [package for package in found if package.dimension == dimension]
        if not fitting:
            kind = "pictures" if dimension == 2 else "volumes"
            raise EngineError(
                "bad_model",
                f"No model for strokes in {kind} is installed.",
                f"Give the path of one with --model, or put its folder into {user_models()}.",
            )
        package = fitting[0]
    check_licence(package, accepted)
    return package


def write(options: argparse.Namespace, image: Image, package) -> int:
    """Answer the strokes and write the mask; notices go to stderr."""
    import sys

    import numpy as np

    from ..image.writing import write_labels
    from ..inference.prompts import Prompts
    from ..inference.segmenter import Segmenter

    given = {name: drawn(getattr(options, name), image) for name in LABEL_MAPS}
    given["region"], box = given.pop("lasso"), [options.box[n : n + 2] for n in (0, 2, 4)] if options.box else None
    log_odds = None if options.log_odds is None else on_grid(options.log_odds, image, labels=False)
    prompts = Prompts(**given, box=box, log_odds=log_odds)
    segmenter = Segmenter(package, options.device)
    result = segmenter.prompt(image, prompts)
    mask = np.zeros(image.shape, bool) if given["mask"] is None else given["mask"]
    labels = result.on(mask).astype(np.uint8)
    for notice in (*segmenter.device_notices, *result.notices):
        print(notice, file=sys.stderr)
    write_labels(options.output, labels, image, package.labels)
    print(f"{options.output}: {int(labels.sum())} voxels, {result.seconds:.2f} s on {result.device}")
    return 0


def drawn(paths: Sequence[Path], image: Image) -> np.ndarray | None:
    """Where any label map is not 0, bool (I, J, K), None for no file; smeared values of a JPEG are cut at the middle."""
    import numpy as np

    from ..image.formats.pictures import is_lossy

    masks = []
    for path in paths:
        array = on_grid(path, image)
        masks.append(array > 127 if is_lossy(path) else array != 0)
    return np.logical_or.reduce(masks) if masks else None


def on_grid(path: Path, image: Image, labels: bool = True) -> np.ndarray:
    """A label map, or an image of one channel, on the image's grid: (I, J, K). EngineError where it lies elsewhere."""
    from ..image.geometry import same_grid
    from ..image.reading import read_image, read_labels

    try:
        found = read_labels(path) if labels else read_image([path])
    except UserFacingError as error:
        if path.name not in error.message:
            error.message = f"{path.name}: {error.message}"
        raise
    if found.shape != image.shape or (image.spacing_known and not same_grid(found, image)):
        raise EngineError(
            "bad_input",
            f"{path.name} ({' x '.join(map(str, found.shape))} voxels) does not lie on the image's grid "
            f"({' x '.join(map(str, image.shape))} voxels, or another place).",
            f"Make the {'label map' if labels else 'image'} from this image.",
        )
    if not labels:
        check_log_odds(path, found.array)
    return found.array[0]


def check_log_odds(path: Path, array: np.ndarray) -> None:
    """EngineError for (C, I, J, K) that cannot be the log odds of one object, such as probabilities."""
    why = f"has {len(array)} channels, one for each class" if len(array) > 1 else "has no value below 0"
    if len(array) > 1 or not (array < 0).any():
        raise EngineError(
            "bad_input",
            f"{path.name} {why}, so that it holds no log odds of one object.",
            "Make them of the object's probability p as ln(p / (1 - p)): below 0 where the object is unlikely.",
        )
