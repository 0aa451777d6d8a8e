import qt
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base import Places

PICTURE_HEIGHT = 84  # pixels
LONGEST_LINE = 64  # characters; what is left out is in the details


class ModelCard:
    """What a person wants to know of a model before using it: its name, four short lines, and "more".

    Everything that comes from a model's package is shown letter by letter, never as markup.

    :param ui: the panel's widgets (modelPreview, modelTitle, modelCard, moreModelButton, modelDetails).
    """

    def __init__(self, ui):
        self._ui = ui
        self._layoutTimer = qt.QTimer()  # the card's width is known once the panel was laid out
        self._layoutTimer.setSingleShot(True)
        self._layoutTimer.connect("timeout()", self._fitHeight)
        self._resizes = _ResizeWatcher(self._layoutTimer)
        ui.modelCard.installEventFilter(self._resizes)
        ui.modelDetails.setVisible(False)
        ui.moreModelButton.connect("toggled(bool)", self._onMore)

    def cleanup(self):
        self._ui.modelCard.removeEventFilter(self._resizes)
        self._layoutTimer.stop()

    def show(self, package, otherwise):
        """Show the card of a model package; for None the text ``otherwise``."""
        ui = self._ui
        for widget in (ui.modelPreview, ui.modelTitle, ui.moreModelButton):
            widget.setVisible(package is not None)
        ui.modelDetails.setVisible(package is not None and ui.moreModelButton.checked)
        if package is None:
            ui.modelCard.text = otherwise
            return
        picture = qt.QPixmap(str(previewPath(package)))
        ui.modelPreview.setPixmap(picture.scaledToHeight(PICTURE_HEIGHT, qt.Qt.SmoothTransformation))
        ui.modelTitle.text = package.name
        ui.modelCard.text = "\n".join(_shortened(line) for line in cardLines(package))
        ui.modelDetails.setPlainText(detailsText(package))
        self._layoutTimer.start(0)

    def _onMore(self, shown):
        self._ui.modelDetails.setVisible(shown)
        self._ui.moreModelButton.text = _("Less") if shown else _("More about this model")

    def _fitHeight(self):
        """Give the card the height that its text needs; scrolling panels squeeze wrapped labels otherwise."""
        card = self._ui.modelCard
        card.setMinimumHeight(card.heightForWidth(card.width))


class _ResizeWatcher(qt.QObject):
    """Starts a timer whenever a widget becomes wider or narrower. Install it as event filter."""

    def __init__(self, timer):
        qt.QObject.__init__(self)
        self._timer = timer
        self._width = 0

    def eventFilter(self, watched, event):
        if event.type() == qt.QEvent.Resize and watched.width != self._width:
            self._width = watched.width
            self._timer.start(0)
        return False


def previewPath(package=None):
    """The package's picture; for a package without one, or None, that of any model."""
    own = package.preview_path if package is not None else None
    return own or Places.moduleFolder() / "Resources" / "Icons" / "Model.png"


def structuresOf(package):
    """What a model segments, in a few words."""
    if package.is_promptable:
        return _("what you stroke")
    return ", ".join(label["name"] for label in package.labels)


def imageOf(package):
    """The kind of image that a model takes, in a few words."""
    if package.is_promptable:
        return _("any picture") if package.dimension == 2 else _("any volume")
    names = [channel["name"] for channel in package.channels]
    return names[0] if len(names) == 1 else f"{package.model['modality']} ({', '.join(names)})"


def cardLines(package):
    """The four lines of the card: what, in which image, how well, under which licence."""
    image = _("Image: {image}, {dimension}D").format(image=imageOf(package), dimension=package.dimension)
    seconds = (package.model.get("seconds") or {}).get("cpu")
    if seconds is not None:
        image += ", " + (_("about a second") if seconds < 1.5 else _("about {time:.0f} s").format(time=seconds))
    return [
        _("Segments: {structures}").format(structures=structuresOf(package)),
        image,
        _overlap(package.model),
        _("Licence: {licence}").format(licence=package.model["training"]["licence"]),
    ]


def _overlap(model):
    mean, results = _meanDice(model)
    if mean is None:
        return _("Accuracy: not measured")
    text = _("Overlap with the reference: {mean:.0%} (Dice, {cases} cases)")
    return text.format(mean=mean, cases=results.get("cases", "?"))


def detailsText(package):
    """All that the package says of itself that helps a person to choose."""
    model, training = package.model, package.model["training"]
    channels = ", ".join(channel["name"] for channel in package.channels)
    lines = [f"{package.name} {package.version}", model["description"]]
    lines.append(_("Segments: {structures}").format(structures=structuresOf(package)))
    lines.append(
        _("Image: {modality} ({channels}), {dimension}D").format(
            modality=model["modality"], channels=channels, dimension=package.dimension
        )
    )
    if package.sets > 1:
        lines.append(_("Networks: {count}, whose answers are averaged").format(count=package.sets))
    lines += [line for line in (_accuracy(model), _seconds(model)) if line]
    lines.append(_("Trained on: {data}").format(data=training["data"]))
    lines.append(_("Cite: {citation}").format(citation=training.get("citation") or "-"))
    lines.append(_("Licence: {licence}").format(licence=training["licence"]))
    return "\n".join(lines)


def _meanDice(model):
    """(mean Dice or None, the results that it is from)."""
    results = model.get("results") or {}
    return (results.get("dice") or {}).get("mean"), results


def _accuracy(model):
    mean, results = _meanDice(model)
    if mean is None:
        return ""
    return _("Accuracy: Dice {mean:.2f} on {cases} cases kept aside ({split})").format(
        mean=mean, cases=results.get("cases", "?"), split=results.get("split", "test")
    )


def _seconds(model):
    seconds = model.get("seconds") or {}
    names = {"cpu": _("{time:.3g} s on a processor"), "cuda": _("{time:.3g} s on an NVIDIA card")}
    times = [text.format(time=seconds[key]) for key, text in names.items() if seconds.get(key) is not None]
    if not times:
        return ""
    hardware = f" ({seconds['hardware']})" if seconds.get("hardware") else ""
    return _("Time: {times}").format(times=", ".join(times)) + hardware


def _shortened(line):
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1].rstrip() + "…"
