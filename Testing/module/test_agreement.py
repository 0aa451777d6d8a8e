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
