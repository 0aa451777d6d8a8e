import qt
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Models.ModelLibrary import ModelLibrary
from ProSMASegmentationLib.Panel.ModelCard import ModelCard, imageOf, previewPath, structuresOf
from ProSMASegmentationLib.Panel.PanelText import plainText
from ProSMASegmentationLib.Panel.PlacePicture import iconOf

ROW_HEIGHT, PICTURE_SIZE = 42, 38  # pixels


class ModelPicker:
    """The list of models, which a search and a kind of image make shorter; the card of the chosen one; adding models.

    :param ui: the panel's widgets (modelSearch, modalityComboBox, addModelButton, modelList, and those of the ModelCard).
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
        self._card = ModelCard(ui)
        self.current = ""
        ui.modelList.setIconSize(qt.QSize(PICTURE_SIZE, PICTURE_SIZE))
        ui.modelList.setUniformItemSizes(True)
        ui.modelSearch.connect("textChanged(QString)", self._onFilter)
        ui.modalityComboBox.connect("currentIndexChanged(int)", self._onFilter)
        ui.modelList.connect("itemSelectionChanged()", self._onSelection)
        self._menu = qt.QMenu(ui.addModelButton)
        self._menu.addAction(_("From a file (.zip)...")).connect("triggered()", self._onImportFile)
        self._menu.addAction(_("From a folder...")).connect("triggered()", self._onImportFolder)
        ui.addModelButton.connect("clicked()", self._onAdd)
        self.fill()

    def choose(self, modelId):
        """Show a model as the chosen one, even if the search hides it."""
        if modelId == self.current:
            return
        self.current = modelId
        self.fill()

    def fill(self):
        """List what the library holds and the filters let through: usable models first."""
        self._fillModalities()
        words, modality = self._ui.modelSearch.text, self._ui.modalityComboBox.currentData or ""
        self._filling = True
        self._ui.modelList.clear()
        for package in self._library.packages:
            fits = modality in ("", package.model["modality"]) and ModelLibrary.matches(package, words)
            if fits or package.id == self.current:
                self._addRow(package)
        if not words and not modality:
            for package in self._library.broken:
                self._addBrokenRow(package)
        self._filling = False
        self._showCard()

    def cleanup(self):
        self._card.cleanup()

    def importPackage(self, path):
        """Add the package at ``path`` to the user's models and choose it."""
        try:
            package = self._library.importPackage(path)
        except ProSMAError as error:
            self._onError(error)
            return
        self._ui.modelSearch.setText("")
        self._ui.modalityComboBox.setCurrentIndex(0)
        self.current = ""
        self.choose(package.id)
        self._onChosen(package.id)

    # ---- what is shown

    def _fillModalities(self):
        combo = self._ui.modalityComboBox
        wanted = ["", *sorted({package.model["modality"] for package in self._library.packages})]
        if wanted == [combo.itemData(index) for index in range(combo.count)]:
            return
        chosen = combo.currentData
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        for modality in wanted:
            combo.addItem(modality or _("All images"), modality)
        combo.setCurrentIndex(wanted.index(chosen) if chosen in wanted else 0)
        combo.blockSignals(wasBlocked)

    def _addRow(self, package):
        item = self._newRow(package.name, f"{imageOf(package)}: {structuresOf(package)}", previewPath(package))
        item.setData(qt.Qt.UserRole, package.id)
        item.setToolTip(plainText(package.model["description"]))
        if package.id == self.current:
            self._ui.modelList.setCurrentItem(item)

    def _addBrokenRow(self, package):
        name = _("{name} (cannot be used)").format(name=package.folder.name)
        item = self._newRow(name, package.reason, previewPath())
        item.setToolTip(plainText(package.reason))
        item.setFlags(qt.Qt.NoItemFlags)

    def _newRow(self, name, what, picture):
        """A row at the end of the list: a picture, the name, and below it what a person gets. All are equally high."""
        self._ui.modelList.addItem(f"{name}\n{what}")
        item = self._ui.modelList.item(self._ui.modelList.count - 1)
        item.setIcon(iconOf(_square(qt.QPixmap(str(picture)))))
        item.setSizeHint(qt.QSize(0, ROW_HEIGHT))
        return item

    def _showCard(self):
        nothing = _("Choose a model.") if self._library.packages else _("There is no model.")
        self._card.show(self._library.package(self.current), nothing)

    # ---- what a person does

    def _onFilter(self, _value):
        self.fill()

    def _onSelection(self):
        item = self._ui.modelList.currentItem()
        if self._filling or item is None or not item.data(qt.Qt.UserRole):
            return
        self.current = item.data(qt.Qt.UserRole)
        self._showCard()
        self._onChosen(self.current)

    def _onAdd(self):
        button = self._ui.addModelButton
        self._menu.exec_(button.mapToGlobal(qt.QPoint(0, button.height)))

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


def _square(picture):
    """The middle of a picture, as large as those of the other rows."""
    size = PICTURE_SIZE
    large = picture.scaled(size, size, qt.Qt.KeepAspectRatioByExpanding, qt.Qt.SmoothTransformation)
    return large.copy((large.width() - size) // 2, (large.height() - size) // 2, size, size)
