"""The engine's readers and Slicer's own place the same voxel at the same point, with the same value; or one refuses."""

import agreement


def test_both_readers_agree_or_one_refuses_or_a_notice_tells(widget):
    rows = agreement.rows()
    assert not [(row.name, row.mm, row.difference) for row in rows if not row.agrees]
    compared = [row.name for row in rows if not row.refused and row.mm <= agreement.MOST_MM]
    assert len(compared) >= (60 if agreement.ROBUST.is_dir() else 18)
    differ = {row.name for row in rows if not row.refused and row.mm > agreement.MOST_MM}
    assert differ == set(agreement.KNOWN), "what is known to differ still does, or it is known no more"


def test_the_page_holds_the_table():
    page = agreement.PAGE.read_text(encoding="utf-8")
    text = page.split(agreement.BEGIN)[1].split(agreement.END)[0]
    for name in (*agreement.KNOWN, "sform and qform (made)", "dicom/mr_sagittal_ge", "nifti/orientations/PIR.nii.gz"):
        assert f"| {name} |" in text


def test_the_panel_tells_of_a_file_that_slicer_places_otherwise(panel, tmp_path):
    import scenes
    import slicer

    scenes.choose(panel, "tiny")
    files = agreement.nifti_files(tmp_path)
    for name, told in (("two forms, sform code 2 (made)", True), ("two forms, sform code 1 (made)", False)):
        volume = slicer.util.loadVolume(str(files[name]), {"show": False})
        scenes.select(panel, volume)
        assert ("places its voxels in two ways" in panel.ui.fitLabel.text) == told
    volume.SetOrigin(100, 100, 100)  # moved on purpose: that is no matter of the file
    scenes.select(panel, volume)
    assert "in two ways" not in panel.ui.fitLabel.text
