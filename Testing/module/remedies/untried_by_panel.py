"""Refusals of the module whose remedy no test follows: those that say no remedy of their own, and those beyond a test."""

ASKED_FOR = "It is no refusal: a person, or what the reason says, has ended the work; nothing is to be mended."
PASSED_ON = "It hands on, word by word, what the engine refused; that refusal is tried where it is made."
NO_MEMORY = "It takes a lack of memory in Slicer's own process, which would end the tests too."
A_REPORT = "It asks for a report to those who write ProSMA, which a test must not send."
NO_SUCH_GRID = (
    "Slicer's editor has a grid with voxels wherever there is a source volume, without which the session refuses before, "
    "which is tried; this guards against a Slicer that answers otherwise."
)

UNTRIED = {
    "Batch/BatchQueue.py: The batch was cancelled": ASKED_FOR,
    "Engine/SegmentationJob.py: The segmentation was cancelled": ASKED_FOR,
    "Learn/FineTuning.py: Fine-tuning was cancelled": ASKED_FOR,
    "Models/PackageImport.py: Adding the model was cancelled": ASKED_FOR,
    "Outputs/Comparison.py: The comparison was cancelled": ASKED_FOR,
    "Engine/EngineClient.py: ProSMAError(event.get('code'": PASSED_ON,
    "Models/ModelLibrary.py: ProSMAError(error.code": PASSED_ON,
    "Models/PackageImport.py: ProSMAError(told.code": PASSED_ON,
    "Panel/Panel.py: ProSMAError(event['code']": PASSED_ON,
    "NetworkStrokes.py: ProSMAError(event['code']": PASSED_ON,
    "RefineStroke.py: ProSMAError(error.code": PASSED_ON,
    "Base/ProSMAError.py: Something unexpected went wrong": A_REPORT,
    "EditedGrid.py: The segmentation has no voxel grid": NO_SUCH_GRID,
    "EditedGrid.py: onto the segmentation's grid": NO_SUCH_GRID,
    "Volumes/ScalarOutput.py: There is not enough memory": NO_MEMORY,
    "Base/ProSMAError.py: There is not enough memory": NO_MEMORY,
    "Learn/FineTuning.py: No model was made": (
        "It ends what the process said; trying again is a whole fine-tuning, which the slow tests of "
        "test_fine_tuning_panel.py do, and its fast ones kill one and see that nothing is left in the way."
    ),
}
