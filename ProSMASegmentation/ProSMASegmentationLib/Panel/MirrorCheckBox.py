from slicer.i18n import tr as _


class MirrorCheckBox:
    """The check box for segmenting the image mirrored too, which only some models can.

    :param box: a QCheckBox.
    :param onChosen: called with the new choice when the user has clicked the box.
    """

    def __init__(self, box, onChosen):
        self._box = box
        box.connect("clicked(bool)", onChosen)

    @property
    def current(self):
        """Whether to mirror: it is wanted, and the chosen model can."""
        return self._box.checked

    def show(self, package, wanted):
        """Offer the choice for the model ``package`` (or None). It is off where the model cannot, wanted or not."""
        axes = package.mirror_axes if package is not None else []
        self._box.enabled = bool(axes)
        self._box.checked = wanted and bool(axes)
        self._box.toolTip = _gain(len(axes)) if axes else _whyNot(package)


def _gain(axes):
    return _(
        "The image is segmented mirrored too, and the answers are averaged: borders get a little better. "
        "It takes about {times} times as long."
    ).format(times=2**axes)


def _whyNot(package):
    if package is None:
        return _("Choose a model first.")
    return _(
        "Not with this model: it was not trained with mirrored images. "
        "For some models that would be wrong, because left and right are different structures."
    )
