"""The labels' terms are those that Slicer's selector finds, in Slicer's own lists or in ours, by its real logic."""

import json
import os
from pathlib import Path

import pytest

from prosma.image.labels import OWN_CONTEXT, OWN_TERMS, TERMINOLOGY_CONTEXT, terminology_entry
from prosma.package import ModelPackage

LISTS = "Modules/Loadable/Terminologies/Resources/SegmentationCategoryTypeModifier-DICOM-Master.json"
# (category, type, modifier) that Slicer 5.12's DICOM master list has, of those that our models use.
IN_SLICERS_LIST = {
    ("49755003", "4147007", ""),  # Mass
    ("123037004", "119238007", ""),  # Brain stem
    ("123037004", "2748008", ""),  # Spinal cord
    ("123037004", "45289007", "24028007"),  # Parotid gland, right
    ("123037004", "45289007", "7771000"),  # left
    ("123037004", "91609006", ""),  # Mandible
    ("123037004", "41216001", ""),  # Prostate
    ("123037004", "10200004", ""),  # Liver
    ("123037004", "64033007", "24028007"),  # Kidney, right
    ("123037004", "64033007", "7771000"),  # left
    ("123037004", "78961009", ""),  # Spleen
    ("123037004", "28231008", ""),  # Gallbladder
    ("123037004", "32849002", ""),  # Esophagus
    ("123037004", "69695003", ""),  # Stomach
    ("123037004", "15825003", ""),  # Aorta
    ("123037004", "64131007", ""),  # Inferior vena cava
    ("123037004", "32764006", ""),  # Portal vein
    ("123037004", "15776009", ""),  # Pancreas
    ("123037004", "23451007", "24028007"),  # Adrenal gland, right
    ("123037004", "23451007", "7771000"),  # left
    ("123037004", "5366008", "24028007"),  # Hippocampus, right
    ("123037004", "5366008", "7771000"),  # left
}


def bundled_labels():
    folder = Path(__file__).parents[2] / "ProSMASegmentation" / "Resources" / "Models"
    packages = [ModelPackage.open(path) for path in sorted(folder.iterdir()) if (path / "model.json").is_file()]
    assert len(packages) >= 7
    return [(package.id, label) for package in packages if not package.is_promptable for label in package.labels]


def parsed(entry):
    """(context, codes of category, type and modifier) of a serialised entry, by Slicer."""
    import slicer

    found = slicer.vtkSlicerTerminologyEntry()
    assert slicer.modules.terminologies.logic().DeserializeTerminologyEntry(entry, found)
    parts = found.GetCategoryObject(), found.GetTypeObject(), found.GetTypeModifierObject()
    return found.GetTerminologyContextName(), tuple((part.GetCodeValue() or "") for part in parts)


def lists_with(codes, *contexts):
    """The loaded lists, of those named, in which Slicer's selector finds the codes."""
    import slicer

    schemes = ["SCT" if code else "" for code in codes]
    words = [word for pair in zip(schemes, codes, strict=True) for word in pair]
    return slicer.modules.terminologies.logic().FindTerminologyNames(*words, contexts)


def test_each_bundled_label_is_in_the_list_that_its_entry_names(panel):
    for model, label in bundled_labels():
        context, codes = parsed(terminology_entry(label["terminology"]))
        if context == OWN_CONTEXT:
            assert lists_with(codes, OWN_CONTEXT) == (OWN_CONTEXT,), (model, label["name"])
        else:
            assert context == TERMINOLOGY_CONTEXT
            assert codes in IN_SLICERS_LIST, (model, label["name"])


def test_no_two_labels_of_a_model_have_the_same_term(panel):
    seen = [(model, terminology_entry(label["terminology"])) for model, label in bundled_labels()]
    assert len(seen) == len(set(seen)), "anterior and posterior hippocampus, for instance"


def test_our_list_holds_just_the_terms_that_go_into_it(panel):
    from ProSMASegmentationLib.Results.Terminology import Terminology

    content = json.loads(Terminology.FILE.read_text(encoding="utf-8"))
    assert content["SegmentationCategoryTypeContextName"] == OWN_CONTEXT
    types = [each for category in content["SegmentationCodes"]["Category"] for each in category["Type"]]
    held = {(each["CodeValue"], one["CodeValue"]) for each in types for one in each.get("Modifier", [])}
    held |= {(each["CodeValue"], "") for each in types if "Modifier" not in each}
    assert held == OWN_TERMS


def test_a_term_that_is_in_no_list_is_not_found(panel):
    assert lists_with(("123037004", "5366008", "7771000"), OWN_CONTEXT) == ()


@pytest.mark.skipif("SLICER_SOURCE" not in os.environ, reason="SLICER_SOURCE names no checkout of Slicer")
def test_slicers_own_list_has_what_is_said_of_it(panel):
    import slicer

    logic = slicer.modules.terminologies.logic()
    assert logic.LoadTerminologyFromFile(str(Path(os.environ["SLICER_SOURCE"]) / LISTS)) == TERMINOLOGY_CONTEXT
    for codes in IN_SLICERS_LIST:
        assert lists_with(codes, TERMINOLOGY_CONTEXT) == (TERMINOLOGY_CONTEXT,), codes
