import slicer
from slicer.i18n import tr as _

from prosma.image import tags
from prosma.steps import finish
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Learn.FineTuning import FineTuning
from ProSMASegmentationLib.Learn.TrainingCase import TrainingCase
from ProSMASegmentationLib.Learn.TrainingFolder import TrainingFolder
from ProSMASegmentationLib.Models.ModelFit import ModelFit
from ProSMASegmentationLib.Outputs.Comparison import Comparison
from ProSMASegmentationLib.Results.SegmentStatus import tag


class LearningLogic:
    """The part of the logic that turns corrected results into a better model; see SegmentationLogic."""

    _lastCase = None  # (folder, name, its volumes): the case that was saved last

    def trainingCase(self, segmentationNode, volumeNode=None, model=None):
        """A TrainingCase, which is still to be written; arguments as for ``saveTrainingCase``."""
        volumes = (
            list(volumeNode) if isinstance(volumeNode, (list, tuple)) else [volumeNode or volumeOf(segmentationNode)]
        )
        package = (
            self.library.resolve(model or self.modelOf(segmentationNode)) if segmentationNode is not None else None
        )
        return TrainingCase(segmentationNode, [node for node in volumes if node is not None], package)

    def saveTrainingCase(self, segmentationNode, folder, volumeNode=None, model=None, name=None, who=None):
        """Save a corrected result as a case to learn from, in the layout of nnU-Net's raw data sets.

        :param folder: the data set's folder, which is made if it is not there.
        :param volumeNode: the image, or a list of them for a model of several channels; by default the segmentation's.
        :param model: id, path or package of the model that shall learn; by default the one that made the segments.
        :param name: of the case, which must be new; by default it is made of the volume's name and numbered.
        :param who: who corrected it; by default the computer's user.
        :return: the names of the new cases: one, or for a 2D model one for each slice with segments.
        :raises ProSMAError: ``bad_input``, ``bad_folder``, ``does_not_fit`` or ``bad_model``; then nothing was saved.
        """
        case = self.trainingCase(segmentationNode, volumeNode, model)
        folder = TrainingFolder(folder)
        names = finish(case.steps(folder, name, who))
        self.rememberCase(folder, names, case)
        return names

    def rememberCase(self, folder, names, case):
        """Have the next comparison use the volumes that a case was saved from."""
        self._lastCase = (folder.path, names[0], case.volumes) if case.isWhole else None

    def fineTune(self, folder, model, name=None, wait=True, **options):
        """Let a copy of a model learn from saved cases; it is added to the user's models.

        :param folder: of the cases. :param model: id, path or package. :param name: of the new model.
        :param options: of the command ``prosma finetune``, for example ``steps=60`` or ``accelerator="cpu"``.
        :return: the new model's package, or with wait=False the FineTuning.
        :raises ProSMAError: ``bad_folder``, ``bad_model``, ``licence``, ``no_training``, ``fine_tuning``; then there is
          no new model.
        """
        package = self.library.resolve(model)
        ModelFit.refuseStrokes(package)
        self.library.checkLicence(package)
        tuning = FineTuning(self.library, package, TrainingFolder(folder), name, options)
        tuning.start()
        return tuning.wait() if wait else tuning

    def compareOnLastCase(self, folder, original, tuned, device="auto", wait=True):
        """Run two models on the case that was saved last, and measure both against the saved correction.

        :param original, tuned: id, path or package of each model.
        :return: a Comparison, with ``nodes`` (two segmentations) and ``dice``.
        :raises ProSMAError: ``bad_folder``, ``bad_model`` and those of ``segment``.
        """
        folder = TrainingFolder(folder)
        name = folder.lastCase()
        if name is None:
            raise ProSMAError(
                "bad_folder",
                _("There is no case in '{path}' to compare on.").format(path=folder.path),
                _("Save a training case first."),
            )
        packages = [self.library.resolve(model) for model in (original, tuned)]
        volumes = None
        if self._lastCase is not None and self._lastCase[:2] == (folder.path, name):
            volumes = [node for node in self._lastCase[2] if node.GetScene() is slicer.mrmlScene]
            volumes = volumes if len(volumes) == len(self._lastCase[2]) else None
        comparison = Comparison(self.segment, folder, name, packages, volumes).start(device)
        return comparison.wait() if wait else comparison

    def modelOf(self, segmentationNode):
        """The id of the first model in the library that made a segment of the node. :raises ProSMAError: ``bad_model``."""
        segmentation = segmentationNode.GetSegmentation()
        for segmentId in segmentation.GetSegmentIDs():
            modelId = tag(segmentation.GetSegment(segmentId), tags.MODEL)
            if self.library.package(modelId) is not None:
                return modelId
        raise ProSMAError(
            "bad_model",
            _("No segment says which model it was made by, or the model is not there any more."),
            _("Choose a model."),
        )


def volumeOf(segmentationNode):
    """The volume that a segmentation was made on, or None."""
    if segmentationNode is None:
        return None
    return segmentationNode.GetNodeReference(segmentationNode.GetReferenceImageGeometryReferenceRole())
