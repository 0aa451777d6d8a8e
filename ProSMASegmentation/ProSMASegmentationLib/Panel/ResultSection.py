from slicer.i18n import tr as _

from ProSMASegmentationLib.Panel.PanelText import ERROR, NORMAL, WARNING, showText
from ProSMASegmentationLib.Results.MillilitreTable import MillilitreTable

FIT_STYLES = {"unusual": WARNING, "unfit": ERROR}  # what looks like the model's training images needs no word


class ResultSection:
    """The panel's section Result: surfaces, volumes and notices, open as long as there is a result to show.

    How the run was computed (time, device, what the gate removed) is told in the section More.

    :param ui: the panel's widgets (resultCollapsibleButton, show3DButton, volumesTable, imageFitLabel, noticesLabel;
      gateLabel, deviceNoticesLabel).
    """

    def __init__(self, ui):
        self._ui = ui
        self._hasNode = False
        self._volumes = MillilitreTable(ui.volumesTable)
        ui.volumesTable.setVisible(False)
        self.clear()

    def setSegmentationNode(self, node):
        """Show this segmentation, or nothing for None."""
        self._ui.show3DButton.setSegmentationNode(node)
        self._ui.show3DButton.enabled = node is not None
        self._volumes.setSegmentationNode(node)
        if (node is not None) is not self._hasNode:
            self._hasNode = node is not None
            self._ui.resultCollapsibleButton.collapsed = node is None

    def clear(self):
        """Forget what was said about a run."""
        for label in (self._ui.imageFitLabel, self._ui.noticesLabel, self._ui.gateLabel, self._ui.deviceNoticesLabel):
            showText(label, "")

    def show(self, job):
        """Say what came of a finished job."""
        ofDevice = job.result["device_notices"]
        showText(self._ui.gateLabel, _computation(job))
        showText(self._ui.deviceNoticesLabel, "\n".join(ofDevice))
        fit = job.result["fit"]
        said = [*ofDevice, *fit["reasons"]]
        notices = [notice for notice in job.result["notices"] if notice not in said]
        worrying = fit["verdict"] in FIT_STYLES
        showText(
            self._ui.imageFitLabel, " ".join(fit["reasons"]) if worrying else "", FIT_STYLES.get(fit["verdict"], NORMAL)
        )
        if job.result["labels"]["file"] is None:
            notices.insert(0, _("Nothing was found: the model sees none of its structures in this image."))
        showText(self._ui.noticesLabel, "\n".join(notices), WARNING)

    def cleanup(self):
        self._volumes.cleanup()


def _computation(job):
    """How a job was computed, in words."""
    text = _("The last run took {seconds:.1f} s on {device}.")
    sentences = [text.format(seconds=job.seconds["total"], device=job.result["device"])]
    share = job.result["statistics"].get("removed_share")
    if share is not None:
        text = _("The gate removed {share:.0%} of the features on the network's skip connections.")
        sentences.append(text.format(share=share))
    fit = job.result["fit"]
    if fit["verdict"] == "unknown":
        sentences += fit["reasons"]
    return " ".join(sentences)
