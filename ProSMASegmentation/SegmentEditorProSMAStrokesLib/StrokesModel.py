from slicer.i18n import tr as _

AUTOMATIC, BY_MODEL, BY_BORDER = "Automatic", "Model", "Border"  # who answers, as a person chooses


class StrokesModel:
    """Which model answers the strokes on a grid, and why none does.

    Masks that strokes did not begin are left to Refine unless a person chooses otherwise: there it measures better.

    :param shape: of the grid, along K, J, I; None while there is none. :param choice: AUTOMATIC, BY_MODEL or BY_BORDER.
    :param corrects: whether the segment has voxels that strokes did not begin.
    """

    def __init__(self, shape, choice=AUTOMATIC, corrects=False):
        from ProSMASegmentationLib.Engine.EngineClient import EngineClient
        from ProSMASegmentationLib.Models.ModelLibrary import ModelLibrary

        self.library = ModelLibrary.shared()
        self.package = None
        self._choice, self._corrects = choice, corrects
        flat = shape is not None and shape[0] == 1
        packages = self.library.promptable(2 if flat else 3)
        self._engine = EngineClient.shared()
        problem = self._engine.problem
        if not packages:
            kind = _("pictures") if flat else _("volumes")
            self.sentence = _(
                "No model for strokes in {kind} is installed: strokes move the border as image and probabilities say."
            ).format(kind=kind)
        elif problem:
            self.sentence = _("Strokes move the border, for no model can answer them: {why} {remedy}").format(
                why=problem["message"], remedy=problem["remedy"]
            )
        else:
            self.package = packages[0]
            self.sentence = self._whoAnswers().format(name=self.package.name)

    def _whoAnswers(self):
        if self._choice == BY_BORDER:
            return _("Strokes move the border, as image and probabilities say.")
        if self._choice == AUTOMATIC and self._corrects:
            return _(
                "Strokes move the border of this mask, as image and probabilities say; "
                "boxes and lassos are answered by the model '{name}'."
            )
        return _("The model '{name}' answers the strokes, in any image.")

    @property
    def knowsRegions(self):
        """Whether boxes and lassos are answered."""
        return self.package is not None and self._choice != BY_BORDER

    def answers(self, hasRegion=False):
        """Whether the model answers what was said: strokes and points, and with ``hasRegion`` boxes or lassos too."""
        return self.knowsRegions and (hasRegion or self._choice == BY_MODEL or not self._corrects)

    @property
    def isReady(self):
        """Whether a model answers without a question first."""
        return self.package is not None and self.library.licenceIsAccepted(self.package)

    def warmUp(self):
        """Have the engine load the model, so that the first stroke need not wait for that."""
        request = {"do": "describe", "model": str(self.package.folder.absolute()), "device": "auto"}
        self._engine.request(request, lambda _event: None)

    def mayRun(self):
        """Whether the model's licence is accepted, after asking where that is needed."""
        from ProSMASegmentationLib.Panel.LicenceQuestion import acceptsLicence

        return acceptsLicence(self.library, self.package)
