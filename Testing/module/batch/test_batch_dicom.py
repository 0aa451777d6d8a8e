"""A study of several DICOM series in the panel's batch over a folder: each series is a case."""

from batches import FOLDER, run, states
from dicom_writing import noise, write_series

from prosma.image.reading import read_labels


def test_each_series_of_a_study_is_a_case(panel, batch, tmp_path):
    for number, shape in enumerate(((12, 40, 44), (14, 36, 40))):
        facts = {"SeriesInstanceUID": f"1.2.3.{number}", "SeriesDescription": f"scan {number}", "SeriesNumber": number}
        write_series(tmp_path / "images" / "study" / str(number), noise(shape, number), **facts)
    out = tmp_path / "out"
    queue = run(panel, FOLDER, results=out, images=tmp_path / "images")
    assert states(queue) == ["finished", "finished"]
    assert read_labels(out / "study-scan-0.seg.nrrd").shape == (44, 40, 12)
    assert read_labels(out / "study-scan-1.seg.nrrd").shape == (40, 36, 14)
    again = run(panel, FOLDER, results=out, images=tmp_path / "images")
    assert states(again) == ["there already", "there already"]
