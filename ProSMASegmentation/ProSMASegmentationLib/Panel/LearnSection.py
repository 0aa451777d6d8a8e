import qt
import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError, asProSMAError
from ProSMASegmentationLib.Learn.FineTuning import missingPackages
from ProSMASegmentationLib.Learn.TrainingFolder import TrainingFolder, caseName
from ProSMASegmentationLib.Panel.PanelText import ERROR, NORMAL, WARNING, duration, plainText, showProgress, showText
from ProSMASegmentationLib.Panel.SetupCheck import SetupCheck

FOLDER_KEY = "ProSMASegmentation/TrainingFolder"  # belongs to the computer, not to the scene


class LearnSection:
    """The panel's section Learn: save corrected results as training cases, fine-tune a copy of the model, compare.

    :param ui: the panel's widgets (trainingFolderPath, caseNameEdit, saveCaseButton, saveCaseLabel, fineTuneButton,
      fineTuneStageLabel, fineTuneProgressBar, fineTuneLabel, compareButton, comparisonTable, compareLabel).
    :param logic: the module's logic.
    :param choices: function that gives the Choices.
    :param onNewModel: called when there is a new model.
    """

    def __init__(self, ui, logic, choices, onNewModel):
        self._ui = ui
        self._logic = logic
        self._choices = choices
        self._onNewModel = onNewModel
        self._saving = None  # EventLoopTask
        self.tuning = None  # the FineTuning that runs or ran last
        self.comparison = None  # the Comparison that runs or ran last
        ui.comparisonTable.setColumnCount(3)
        ui.comparisonTable.setHorizontalHeaderLabels([_("Label"), _("Original"), _("Fine-tuned")])
        ui.comparisonTable.verticalHeader().setVisible(False)
        ui.comparisonTable.horizontalHeader().setStretchLastSection(True)
        ui.trainingFolderPath.currentPath = str(qt.QSettings().value(FOLDER_KEY, "") or "")
        ui.trainingFolderPath.connect("currentPathChanged(QString)", self._onFolder)
        ui.saveCaseButton.connect("clicked()", self._onSave)
        ui.fineTuneButton.connect("clicked()", self._onFineTuneOrCancel)
        ui.compareButton.connect("clicked()", self._onCompareOrCancel)
        for label in (ui.saveCaseLabel, ui.fineTuneStageLabel, ui.fineTuneLabel, ui.compareLabel):
            showText(label, "")
        ui.fineTuneProgressBar.setVisible(False)
        ui.comparisonTable.setVisible(False)
        self.update()

    def cleanup(self):
        if self._saving is not None:
            self._saving.cancel()
        if self.tuning is not None:
            self.tuning.cancel()
        if self.comparison is not None:
            self.comparison.cancel()

    def update(self):
        """Show what the present choices lead to."""
        volumes = self._choices().volumes
        self._ui.caseNameEdit.placeholderText = caseName(volumes[0].GetName()) if volumes else ""

    def _onFolder(self, path):
        qt.QSettings().setValue(FOLDER_KEY, path)

    def _folder(self):
        return TrainingFolder(self._ui.trainingFolderPath.currentPath)

    # ---- a case

    def _onSave(self):
        label = self._ui.saveCaseLabel
        showText(label, "")
        chosen = self._choices()
        try:
            folder = self._folder()
            case = self._logic.trainingCase(
                chosen.segmentationNode, list(chosen.volumes) or None, self._modelFor(chosen.segmentationNode)
            )
            name = self._nameIn(folder)
            if name == "" or not self._confirmMissing(case):
                return
            steps = case.steps(folder, name)
        except (ProSMAError, OSError) as error:
            showText(label, str(asProSMAError(error)), ERROR)
            return
        showText(label, _("Saving..."))
        self._ui.saveCaseButton.enabled = False
        self._saving = EventLoopTask(
            steps, lambda names: self._onSaved(folder, names, case), self._onSaveFailed
        ).start()

    def _modelFor(self, node):
        """The model that made the segments; for segments of no model in the list the chosen one."""
        try:
            return self._logic.modelOf(node) if node is not None else None
        except ProSMAError:
            return self._choices().package

    def _nameIn(self, folder):
        """The name that the person wants: None for one that is made, an empty text if they do not want to save."""
        name = self._ui.caseNameEdit.text.strip()
        if not name:
            return None
        name = caseName(name)
        if folder.isFree(name):
            return name
        other = folder.freeName(name)
        question = _("The folder has a case '{name}' already, which stays as it is. Save this one as '{other}'?")
        return other if slicer.util.confirmYesNoDisplay(plainText(question.format(name=name, other=other))) else ""

    @staticmethod
    def _confirmMissing(case):
        if not case.match.missing:
            return True
        question = _("There is no segment for {labels}. The case will say that the image shows nothing of it. Save it?")
        labels = ", ".join(f"'{name}'" for name in case.match.missing)
        return slicer.util.confirmYesNoDisplay(plainText(question.format(labels=labels)))

    def _onSaved(self, folder, names, case):
        self._saving = None
        self._ui.saveCaseButton.enabled = True
        self._ui.caseNameEdit.text = ""
        self._logic.rememberCase(folder, names, case)
        count = len(folder.cases())
        lines = [
            _("Saved as {names}. Cases in the folder: {count}.").format(names=_listed(names), count=count),
            *case.notes,
        ]
        if case.match.leftOut:
            lines.append(
                _("Left out, because the model has no such label: {names}.").format(names=_listed(case.match.leftOut))
            )
        showText(self._ui.saveCaseLabel, "\n".join(lines), WARNING if len(lines) > 1 else NORMAL)

    def _onSaveFailed(self, error):
        self._saving = None
        self._ui.saveCaseButton.enabled = True
        showText(self._ui.saveCaseLabel, str(asProSMAError(error)), ERROR)

    # ---- fine-tuning

    def _onFineTuneOrCancel(self):
        if self.tuning is not None and self.tuning.isActive:
            self.tuning.cancel()
            return
        showText(self._ui.fineTuneLabel, "")
        package = self._choices().package
        try:
            if package is None:
                raise ProSMAError("bad_model", _("No model is chosen."), _("Choose the model to fine-tune."))
            if not self._askForPackages():
                return
            self.tuning = self._logic.fineTune(self._folder().path, package, wait=False)
        except (ProSMAError, OSError) as error:
            showText(self._ui.fineTuneLabel, str(asProSMAError(error)), ERROR)
            return
        self.tuning.onProgress.append(self._onTuningProgress)
        self.tuning.onEnd.append(self._onTuningEnd)
        self._ui.fineTuneButton.text = _("Cancel")
        self._ui.fineTuneProgressBar.setVisible(True)
        self._onTuningProgress(self.tuning)
        if not self.tuning.isActive:  # its process could not even be started
            self._onTuningEnd(self.tuning)

    @staticmethod
    def _askForPackages():
        """Whether fine-tuning can run; if packages for training are missing, offer to install them first."""
        missing = missingPackages()
        if not missing:
            return True
        question = _("Fine-tuning needs further Python packages ({names}). Install them now?")
        if not slicer.util.confirmYesNoDisplay(question.format(names=", ".join(missing))):
            return False
        SetupCheck.installTraining(missing)
        return True

    def _onTuningProgress(self, tuning):
        showProgress(self._ui.fineTuneProgressBar, self._ui.fineTuneStageLabel, tuning)

    def _onTuningEnd(self, tuning):
        self._ui.fineTuneButton.text = _("Fine-tune on saved cases")
        self._ui.fineTuneProgressBar.setVisible(False)
        showText(self._ui.fineTuneStageLabel, "")
        if tuning.state == tuning.FINISHED:
            record = tuning.package.model["fine_tuning"][-1]
            done = _("'{name}' is in the list of models now. Cases that it learnt from: {cases}; it took {time}.")
            text = done.format(name=tuning.package.name, cases=record["cases"], time=duration(record["seconds"]))
            showText(self._ui.fineTuneLabel, text)
            self._onNewModel()
        else:
            showText(self._ui.fineTuneLabel, str(tuning.error), ERROR if tuning.state == tuning.FAILED else NORMAL)

    # ---- comparison

    def _onCompareOrCancel(self):
        if self.comparison is not None and self.comparison.isActive:
            self.comparison.cancel()
            return
        showText(self._ui.compareLabel, "")
        self._ui.comparisonTable.setVisible(False)
        self._hideEarlierResults()
        try:
            original, tuned = self._pair()
            device = self._choices().device
            self.comparison = self._logic.compareOnLastCase(self._folder().path, original, tuned, device, wait=False)
        except (ProSMAError, OSError) as error:
            showText(self._ui.compareLabel, str(asProSMAError(error)), ERROR)
            return
        self.comparison.onEnd.append(self._onCompared)
        self._ui.compareButton.text = _("Cancel")
        showText(self._ui.compareLabel, _("Running both models..."))

    def _hideEarlierResults(self):
        """Those of the last comparison stay in the scene, but do not cover the next ones."""
        for node in self.comparison.nodes if self.comparison is not None else ():
            if node.GetScene() is slicer.mrmlScene:
                node.GetDisplayNode().SetVisibility(False)

    def _pair(self):
        """The models before and after fine-tuning: of the fine-tuned model that is chosen, else of the last run."""
        package = self._choices().package
        parent = self._parentOf(package) if package is not None else None
        if parent is not None:
            return parent, package
        if self.tuning is not None and self.tuning.package is not None:
            return self.tuning.parent, self.tuning.package
        raise ProSMAError(
            "bad_model",
            _("There is no fine-tuned model to compare."),
            _("Fine-tune a model, or choose a fine-tuned one in the list."),
        )

    def _parentOf(self, package):
        record = package.model.get("fine_tuning")
        return self._logic.library.package(record[-1]["parent"]["id"]) if record else None

    def _onCompared(self, comparison):
        self._ui.compareButton.text = _("Compare on the last case")
        if comparison.error is not None:
            cancelled = getattr(comparison.error, "code", "") == "cancelled"
            showText(self._ui.compareLabel, str(comparison.error), NORMAL if cancelled else ERROR)
            return
        slicer.util.setSliceViewerLayers(background=comparison.volumes[0], fit=True)
        self._showDice(comparison)
        text = _("Dice of '{original}' (shown as lines) and '{tuned}' against the saved correction of '{case}'.")
        original, tuned = (package.name for package in comparison.packages)
        showText(self._ui.compareLabel, text.format(original=original, tuned=tuned, case=comparison.name))

    def _showDice(self, comparison):
        table = self._ui.comparisonTable
        table.setRowCount(len(comparison.dice))
        for row, (name, *values) in enumerate(comparison.dice):
            texts = [name, *("-" if value is None else f"{value:.3f}" for value in values)]
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        table.setVisible(True)
        table.resizeColumnToContents(0)


def _listed(names):
    return ", ".join(f"'{name}'" for name in names)
