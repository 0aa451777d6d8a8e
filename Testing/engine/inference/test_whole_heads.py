"""Whole heads: both hippocampi, named, without a box (training/prosma/inference/finder.py)."""

import json
import shutil

import numpy as np

from prosma import Segmenter, read_image
from prosma.cli import main
from prosma.image.geometry import plan_canonical

SIDES = ("left", "right")
ORDERS = ("RAS", "LPS", "LAS", "PIR", "ASL", "SPL", "IRA", "ARI")


def test_both_hippocampi_of_a_whole_head_whatever_its_storage_order(shared, tmp_path):
    """No box: four named segments, of human size, on their sides; the same in all eight storage orders."""
    folder = shared / "robust_volumes/nifti/orientations"
    segmenter = Segmenter("hippocampus-mr", "cpu")
    maps = []
    for order in ORDERS:
        image = read_image(folder / f"{order}.nii.gz")
        result = segmenter.segment(image)
        canonical = plan_canonical(image, {"dimension": 3, "orientation": "RAS"})
        maps.append(np.array(canonical.view(result.labels)))
        volumes = {
            label["name"]: (result.labels == label["value"]).sum() * image.voxel_ml for label in result.described
        }
        assert sorted(volumes) == sorted(
            f"{side} {part} hippocampus" for side in ("left", "right") for part in ("anterior", "posterior")
        )
        for side in SIDES:
            assert 2 < sum(ml for name, ml in volumes.items() if name.startswith(side)) < 6
        for values, sign in (((3, 4), -1), ((5, 6), 1)):
            places = np.argwhere(np.isin(result.labels, values))
            centre = image.ijk_to_ras[:3, :3] @ places.mean(0) + image.ijk_to_ras[:3, 3]
            assert sign * centre[0] > 15, "the head is centred: left is negative R"
        assert result.statistics["of_tiles"] == 2, "one tile for each region"
    for other in maps[1:]:
        assert 2 * ((maps[0] > 0) & (maps[0] == other)).sum() / ((maps[0] > 0).sum() + (other > 0).sum()) >= 0.99


def test_boxes_that_a_hand_draws_around_one_side_change_nothing(shared):
    """Tight, generous, and tight but 10 mm beside: along R that misses the centre of the thin structure."""
    image, segmenter = (
        read_image(shared / "robust_volumes/nifti/orientations/RAS.nii.gz"),
        Segmenter("hippocampus-mr", "cpu"),
    )
    whole = segmenter.segment(image).labels
    left = np.where(np.isin(whole, (3, 4)), whole, 0)
    places = np.argwhere(left)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    beside, wide = (np.ceil(mm / np.array(image.spacing)).astype(int) for mm in (10.0, 20.0))
    shifts = [sign * beside * np.eye(3, dtype=int)[axis] for axis, sign in ((0, -1), (0, 1), (1, 1), (2, -1))]
    boxes = [(low, high), (low - wide, high + wide), *((low + shift, high + shift) for shift in shifts)]
    for first, last in boxes:
        box = tuple(zip(np.maximum(first, 0).tolist(), np.minimum(last, image.shape).tolist(), strict=True))
        np.testing.assert_array_equal(segmenter.segment(image, roi=box).labels, left, err_msg=str(box))


def test_a_whole_head_through_the_command_line(shared, tmp_path, capsys):
    head = tmp_path / "head.nii.gz"
    shutil.copy(shared / "robust_volumes/nifti/orientations/RAS.nii.gz", head)
    assert main(["segment", str(head), "-m", "hippocampus-mr", "-o", str(tmp_path / "out.seg.nrrd"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = [segment["name"] for segment in report["cases"][0]["segments"]]
    assert names[0] == "left anterior hippocampus" and len(names) == 4
    header = (tmp_path / "out.seg.nrrd").read_bytes()[:20_000]
    assert b"right posterior hippocampus" in header
