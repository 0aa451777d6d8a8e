"""Small folders of labelled images, in the layouts that training takes."""

import json

import nibabel as nib
import numpy as np

from prosma.learning.data.statistics import measure_dataset

DATA_OF_MODELS = {  # folder of the data set that a bundled model learnt from
    "abdomen-ct": "btcv_ct_upper",
    "abdomen-mr": "chaos_mr_t2",
    "breast-lesion-us": "busi",
    "gland-histology": "glas",
    "glioma-flair": "lgg_flair3d",
    "head-neck-oar-ct": "openkbp_ct_oar",
    "hippocampus-mr": "hippocampus",
    "polyp-colonoscopy": "kvasir_seg",
    "prostate-t2": "promise12_lowres",
}
NAMES = {"background": 0, "one": 1, "two": 2}


def volume(path, array, spacing=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, np.diag([spacing, spacing, spacing, 1.0])).to_filename(path)
    return path


def labelled(seed=0, high=2):
    labels = np.zeros((12, 10, 8), np.uint8)
    labels[2:6, 2:6, 2:6], labels[7:10, 6:9, 3:7] = 1, high
    return labels, np.random.default_rng(seed).normal(100 * labels, 20).astype(np.float32)


def images_of(folder, cases=("a", "b", "c", "d", "e"), high=2):
    for number, case in enumerate(cases):
        labels, image = labelled(number, high)
        volume(folder / "imagesTr" / f"{case}_0000.nii.gz", image)
        volume(folder / "labelsTr" / f"{case}.nii.gz", labels)
    return folder


def describe(folder, name="dataset.json", **content):
    (folder / name).write_text(json.dumps(content))


def is_measured(folder, cases=4, labels=("one", "two")):
    """The folder can be planned for: so many cases for training, with these labels."""
    found = measure_dataset(folder)
    assert (len(found.cases), found.labels) == (cases, list(labels))
