from html import escape

import qt
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base import Places
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Models.ModelLibrary import ModelLibrary

PREVIEW_WIDTH = 110


class ModelPicker:
    """List of models with a search box, and the card of the chosen one.

    :param ui: the panel's widgets (modelSearch, modelList, modelPreview, modelCard, importFileButton, importFolderButton).
    :param library: the ModelLibrary.
    :param onChosen: called with the id of the model that the user has chosen.
    :param onError: called with a ProSMAError when a package could not be imported.
    """

    def __init__(self, ui, library, onChosen, onError):
        self._ui = ui
        self._library = library
        self._onChosen = onChosen
        self._onError = onError
        self._filling = False
        self._layoutTimer = qt.QTimer()  # the card's width is known once the panel was laid out
        self._layoutTimer.setSingleShot(True)
        self._layoutTimer.connect("timeout()", self._fitCard)
        self.current = ""
        ui.modelSearch.connect("textChanged(QString)", self._onSearch)
        ui.modelList.connect("itemSelectionChanged()", self._onSelection)
        ui.importFileButton.connect("clicked()", self._onImportFile)
        ui.importFolderButton.connect("clicked()", self._onImportFolder)
        self.fill()

    def choose(self, modelId):
        """Show a model as the chosen one, even if the search hides it."""
        if modelId == self.current:
            return
        self.current = modelId
        self.fill()

    def fill(self):
        """List what the library holds and the search lets through: usable models first."""
        words = self._ui.modelSearch.text
        self._filling = True
        self._ui.modelList.clear()
        for package in self._library.packages:
            if package.id == self.current or ModelLibrary.matches(package, words):
                self._addRow(package)
        if not words:
            for package in self._library.broken:
                self._addBrokenRow(package)
        self._filling = False
        self._showCard(self._library.package(self.current))

    def cleanup(self):
        self._layoutTimer.stop()

    def importPackage(self, path):
        """Add the package at ``path`` to the user's models and choose it."""
        try:
            package = self._library.importPackage(path)
        except ProSMAError as error:
            self._onError(error)
            return
        self._ui.modelSearch.setText("")
        self.current = ""
        self.choose(package.id)
        self._onChosen(package.id)

    def _addRow(self, package):
        self._ui.modelList.addItem(package.name)
        item = self._ui.modelList.item(self._rows() - 1)
        item.setData(qt.Qt.UserRole, package.id)
        item.setToolTip(package.model["description"])
        item.setIcon(qt.QIcon(str(_previewPath(package))))
        if package.id == self.current:
            self._ui.modelList.setCurrentItem(item)

    def _addBrokenRow(self, package):
        self._ui.modelList.addItem(_("{name} (cannot be used)").format(name=package.folder.name))
        item = self._ui.modelList.item(self._rows() - 1)
        item.setToolTip(package.reason)
        item.setFlags(qt.Qt.NoItemFlags)

    def _rows(self):
        return self._ui.modelList.count

    def _onSearch(self, _text):
        self.fill()

    def _onSelection(self):
        item = self._ui.modelList.currentItem()
        if self._filling or item is None or not item.data(qt.Qt.UserRole):
            return
        self.current = item.data(qt.Qt.UserRole)
        self._showCard(self._library.package(self.current))
        self._onChosen(self.current)

    def _onImportFile(self):
        path = qt.QFileDialog.getOpenFileName(
            self._ui.modelList, _("Add a model package"), "", _("Model packages") + " (*.zip)"
        )
        if path:
            self.importPackage(path)

    def _onImportFolder(self):
        path = qt.QFileDialog.getExistingDirectory(self._ui.modelList, _("Add a model package"))
        if path:
            self.importPackage(path)

    def _showCard(self, package):
        self._ui.modelPreview.setVisible(package is not None)
        if package is None:
            self._ui.modelCard.text = _("Choose a model.") if self._library.packages else _("There is no model.")
            return
        picture = qt.QPixmap(str(_previewPath(package)))
        self._ui.modelPreview.setPixmap(picture.scaledToWidth(PREVIEW_WIDTH, qt.Qt.SmoothTransformation))
        self._ui.modelCard.text = cardText(package)
        self._layoutTimer.start(0)

    def _fitCard(self):
        """Give the card the height that its text needs; scrolling panels squeeze wrapped labels otherwise."""
        card = self._ui.modelCard
        card.setMinimumHeight(card.heightForWidth(card.width))


def cardText(package):
    """What a person wants to know of a model before using it, as rich text."""
    model = package.model
    lines = [f"<b>{escape(package.name)}</b> {escape(package.version)}", escape(model["description"])]
    lines.append(_("Segments: {labels}").format(labels=", ".join(_coloured(label) for label in package.labels)))
    channels = ", ".join(escape(channel["name"]) for channel in package.channels)
    lines.append(
        _("Image: {modality} ({channels}), {dimension}D").format(
            modality=escape(model["modality"]), channels=channels, dimension=package.dimension
        )
    )
    lines += [line for line in (_accuracy(model), _seconds(model)) if line]
    training = model["training"]
    lines.append(_("Trained on: {data}").format(data=escape(training["data"])))
    lines.append(_("Licence: {licence}").format(licence=escape(training["licence"])))
    return "<br>".join(lines)


def _coloured(label):
    color = "#{:02x}{:02x}{:02x}".format(*label["color"])
    return f'<span style="color:{color}">&#9632;</span>&nbsp;{escape(label["name"])}'


def _accuracy(model):
    results = model.get("results") or {}
    mean = (results.get("dice") or {}).get("mean")
    if mean is None:
        return ""
    return _("Accuracy: Dice {mean:.2f} on {cases} cases kept aside ({split})").format(
        mean=mean, cases=results.get("cases", "?"), split=escape(str(results.get("split", "test")))
    )


def _seconds(model):
    seconds = model.get("seconds") or {}
    names = {"cpu": _("{time:.3g} s on a processor"), "cuda": _("{time:.3g} s on an NVIDIA card")}
    times = [text.format(time=seconds[key]) for key, text in names.items() if seconds.get(key) is not None]
    if not times:
        return ""
    hardware = f" ({escape(str(seconds['hardware']))})" if seconds.get("hardware") else ""
    return _("Time: {times}").format(times=", ".join(times)) + hardware


def _previewPath(package):
    return package.preview_path or Places.moduleFolder() / "Resources" / "Icons" / "Model.png"
