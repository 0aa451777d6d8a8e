"""Refusals whose remedy no test of this kind follows: those that say no remedy of their own, and those beyond a test."""

PASSED_ON = "It hands on, word by word, what another process refused; that refusal is tried where it is made."
A_PART = "It is a part of a sentence: package/schema.py and door/requests.py say it, where it is tried."
NOBODY = "No person can write such a request by hand: it is a fault of the program that talks to the engine."

UNTRIED = {
    "batch/cluster.py: On a worker": PASSED_ON,
    "batch/pool.py: event['remedy']": PASSED_ON,
    "cli/segment.py: outcome['error']['message']": PASSED_ON,
    "contracts.py: Mismatch(": A_PART,
    "contracts.py: Missing(": A_PART,
    "package/schema.py: Mismatch(": A_PART,
    "door/requests.py: Missing(": NOBODY,
    "door/prompt_files.py: reaches beyond the image": NOBODY,
    "errors.py: This is a fault of the program that talks to the engine": NOBODY,
    "errors.py: Report it with the log": "It asks for a report to those who write ProSMA, which a test must not send.",
    "door/worker.py: Cancelled()": "It is no refusal: a person asked for it.",
    "door/job_files.py: The volume is empty": (
        "Older versions of numpy refuse to map an array without voxels; newer ones do, and image/geometry.py says the same, "
        "which is tried."
    ),
    "image/formats/unpacking.py: which this computer does not have": (
        "It takes a file larger than the memory of the computer that runs the tests."
    ),
    "image/reading.py: is empty: it has no voxels": (
        "No format that is left to SimpleITK lets an axis have no voxels; the other readers say the same, and are tried."
    ),
    "image/itk_paths.py: holds bytes that are no text": "test_reports.py meets it in a process of its own.",
    "image/dicom/frames.py: named(sequence)} cannot be read": (
        "pydicom 3.0 reads any sequence as far as it goes; the damaged files of test_dicom_fuzz.py never come here."
    ),
    "package/schema.py: Update ProSMA to use it": "It takes a later version of ProSMA, which is not written yet.",
    "batch/pool.py: before it did anything": (
        "It is said below what the process printed when it died, which tells what to do for each cause."
    ),
    "batch/pool.py: Use fewer --workers, or an ROI": (
        "It takes a lack of memory, which would end other programs too. That one worker does what several do, and that an "
        "ROI needs less, is tried in test_sharing.py and test_run_remedies.py."
    ),
    "batch/cluster.py: Give the workers more memory": (
        "It takes a lack of memory on several computers; that an ROI needs less is tried in test_run_remedies.py."
    ),
}

CLUSTER = "batch/test_cluster.py::test_a_cluster_does_every_case_once_though_a_worker_is_killed"
ELSEWHERE = {  # tried in other processes, where the mark `tries` sees nothing: which test does it
    "batch/cluster.py: Install them": CLUSTER,
    "batch/cluster.py: Start one with": CLUSTER,
    "batch/cluster.py: Start some with": CLUSTER,
    "door/worker.py: Free some space on the disk": (
        "test_worker.py::test_a_full_disk_is_said_in_words_and_the_engine_lives_on"
    ),
    "learning/fit/fitting.py: Train with --workers 0": (
        "learning/test_label_geometry.py::test_too_little_shared_memory_is_said_and_the_remedy_works"
    ),
    "learning/fit/fitting.py: go on with --resume": (
        "learning/test_label_geometry.py::test_a_killed_process_that_prepares_patches_is_said_and_the_remedy_works"
    ),
}
