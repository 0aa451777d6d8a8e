import qt
import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Panel.PanelText import ERROR, NORMAL, WARNING, plainText, showProgress, showText

PRIMARY = """
QPushButton { background-color: #1b6ec2; color: white; font-weight: bold; border: none; border-radius: 4px; }
QPushButton:hover { background-color: #2a7fd6; }
QPushButton:pressed { background-color: #155a9f; }
QPushButton:disabled { background-color: #8a9bab; color: #f2f5f7; }
"""  # Segment is the one button of the panel that looks like this


class RunSection:
    """Segment, Cancel, how far the job is, and what came of it.

    :param ui: the panel's widgets (segmentButton, stageLabel, progressBar, messageLabel, fitLabel).
    :param logic: the module's logic.
    :param choices: function that gives the Choices.
    :param readiness: function that gives the Readiness of the choices.
    :param mayRun: function that says whether a model may run, after asking for what is needed.
    :param onEnd: called with each job that has ended, before it is said how.
    :param onStrokes: called instead of a run with a model that answers strokes.

    Public: ``job``, the SegmentationJob that runs, or None.
    """

    def __init__(self, ui, logic, choices, readiness, mayRun, onEnd, onStrokes):
        self._ui = ui
        self._logic = logic
        self._choices = choices
        self._readiness = readiness
        self._mayRun = mayRun
        self._onJobEnd = onEnd
        self._onStrokes = onStrokes
        self.job = None
        self._chosen = None  # the Choices of the last job
        ui.segmentButton.connect("clicked()", self._onSegmentOrCancel)
        self._showIdle()

    def say(self, text, style=NORMAL):
        """Show a text below the button."""
        showText(self._ui.messageLabel, text, style)

    def sayError(self, error):
        self.say(str(error), ERROR)

    def update(self):
        """Show whether Segment can run, and why not."""
        button = self._ui.segmentButton
        if self.job is not None:
            button.enabled = True
            button.toolTip = _("Stop the segmentation. The scene stays as it is.")
            return
        ready, byStrokes = self._readiness(), self._isByStrokes()
        button.text = _("Start strokes") if byStrokes else _("Segment")
        button.enabled = not ready.why
        what = _("Say with strokes what to segment.") if byStrokes else _("Segment the volume with the chosen model.")
        button.toolTip = plainText(ready.why) or what
        if ready.why:
            showText(self._ui.fitLabel, ready.why, ready.style)
        else:
            showText(self._ui.fitLabel, "\n".join(ready.warnings), WARNING)

    def start(self, force=False):
        """Start a job with the panel's choices, as a click on Segment does.

        :param force: segment an image that shows something else than the model was trained on, too.
        """
        self.say("")
        try:
            if not self._mayRun(self._choices().package) or self.job is not None:
                return
            if self._isByStrokes():
                self._onStrokes()
                return
            chosen = self._chosen = self._choices()
            self.job = self._logic.segment(
                list(chosen.volumes),
                chosen.package,
                chosen.segmentationNode,
                chosen.roiNode,
                chosen.device,
                wait=False,
                mirror=chosen.mirror,
                force=force,
            )
        except ProSMAError as error:
            self.sayError(error)
            return
        self.job.onProgress.append(self._onProgress)
        self.job.onEnd.append(self._onEnd)
        self._onProgress(self.job)
        self._ui.segmentButton.text = _("Cancel")
        self._ui.segmentButton.styleSheet = ""
        self._ui.progressBar.setVisible(True)
        self.update()

    def _isByStrokes(self):
        package = self._choices().package
        return package is not None and package.is_promptable

    def _onSegmentOrCancel(self):
        if self.job is not None:
            self.job.cancel()
        else:
            self.start()

    def _onProgress(self, job):
        showProgress(self._ui.progressBar, self._ui.stageLabel, job)

    def _onEnd(self, job):
        self.job = None
        self._showIdle()
        self._onJobEnd(job)
        if job.state == job.FINISHED:
            self.say(_("Done in {seconds:.1f} s.").format(seconds=job.seconds["total"]))
        elif job.state == job.CANCELLED:
            self.say(job.error.message)
        else:
            self.sayError(job.error)
        self.update()
        if job.error is not None and job.error.fit:
            qt.QTimer.singleShot(0, self._askWhetherToForce)

    def _askWhetherToForce(self):
        """Nothing has been computed yet for an image that does not fit the model: let the person decide."""
        if self.job is not None or self._choices() != self._chosen:
            return
        question = "\n\n".join([self._ui.messageLabel.text, _("Segment it all the same?")])
        if slicer.util.confirmYesNoDisplay(plainText(question), windowTitle="ProSMA"):
            self.start(force=True)

    def _showIdle(self):
        self._ui.segmentButton.text = _("Segment")
        self._ui.segmentButton.styleSheet = PRIMARY
        self._ui.progressBar.setVisible(False)
        showText(self._ui.stageLabel, "")
        self.say("")
