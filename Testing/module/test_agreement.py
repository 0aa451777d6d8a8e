"""The engine's readers and Slicer's own place the same voxel at the same point, with the same value; or one refuses."""

import scenes

import agreement
from remedies import tries

REFUSED = {"two forms, sform code 2 (made)", "pixdim other than the matrix (made)"}


def test_both_readers_agree_or_one_refuses(widget):
    rows = agreement.rows()
    assert not [(row.name, row.mm, row.difference) for row in rows if not row.agrees]
    compared = [row.name for row in rows if not row.refused]
    assert len(compared) >= (60 if agreement.ROBUST.is_dir() else 18)
    assert {row.name for row in rows if row.refused == "the panel"} == REFUSED, "and no others"


def test_the_page_holds_the_table():
    page = agreement.PAGE.read_text(encoding="utf-8")
    text = page.split(agreement.BEGIN)[1].split(agreement.END)[0]
    for name in (*REFUSED, "sform and qform (made)", "dicom/mr_sagittal_ge", "palette.png (made)"):
        assert f"| {name} |" in text


@tries("ModelFit.py: then save the volume as .nrrd, which has one place")
def test_the_panel_refuses_a_file_that_slicer_places_otherwise_until_it_is_saved_as_nrrd(panel, tmp_path):
    import slicer

    scenes.choose(panel, "small")
    files = agreement.nifti_files(tmp_path)
    ui = panel.ui
    for name in sorted(REFUSED):
        volume = slicer.util.loadVolume(str(files[name]), {"show": False})
        scenes.select(panel, volume)
        assert agreement.IN_TWO_WAYS in ui.messageLabel.text + ui.fitLabel.text and not ui.segmentButton.enabled
        slicer.util.saveNode(volume, str(tmp_path / "one-place.nrrd"))
        scenes.select(panel, None)
        scenes.select(panel, volume)
        assert agreement.IN_TWO_WAYS not in ui.messageLabel.text + ui.fitLabel.text and ui.segmentButton.enabled
    volume = slicer.util.loadVolume(str(files["two forms, sform code 1 (made)"]), {"show": False})
    scenes.select(panel, volume)
    assert ui.segmentButton.enabled, "Slicer takes the same as others"
