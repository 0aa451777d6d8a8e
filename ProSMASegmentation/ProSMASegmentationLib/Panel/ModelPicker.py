import qt
from slicer.i18n import tr as _

from ProSMASegmentationLib.Models.ModelLibrary import ModelLibrary
from ProSMASegmentationLib.Panel.AddModelButton import AddModelButton
from ProSMASegmentationLib.Panel.ModelCard import ModelCard, imageOf, previewPath, structuresOf
from ProSMASegmentationLib.Panel.PanelText import plainText
from ProSMASegmentationLib.Panel.PlacePicture import iconOf

ROW_HEIGHT, PICTURE_SIZE = 42, 38  # pixels


class ModelPicker:
    """The list of models, which a search and a kind of image make shorter, with the card of the chosen one and Add.

    :param ui: the panel's widgets (modelSearch, modalityComboBox, modelList, and those of the ModelCard and AddModelButton).
    :param library: the ModelLibrary.
    :param onChosen: called with the id of the model that the user has chosen.
    :param onError: called with a ProSMAError when a package could not be added.
    """

    def __init__(self, ui, library, onChosen, onError):
        self._ui = ui
        self._library = library
        self._onChosen = onChosen
        self._filling = False
        self._card = ModelCard(ui)
        self.current = ""
        ui.modelList.setIconSize(qt.QSize(PICTURE_SIZE, PICTURE_SIZE))
        ui.modelList.setUniformItemSizes(True)
        ui.modelSearch.connect("textChanged(QString)", self._onFilter)
        ui.modalityComboBox.connect("currentIndexChanged(int)", self._onFilter)
        ui.modelList.connect("itemSelectionChanged()", self._onSelection)
        self._adding = AddModelButton(ui, library, self._onAdded, onError)
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
        self._adding.cleanup()
        self._card.cleanup()

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
        name = _("Segment anything by strokes") if package.is_promptable else package.name
        item = self._newRow(name, f"{imageOf(package)}: {structuresOf(package)}", previewPath(package))
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

    def _onAdded(self, package):
        """A package is among the models now: it is shown, whatever the filters were, and chosen."""
        self._ui.modelSearch.setText("")
        self._ui.modalityComboBox.setCurrentIndex(0)
        self.current = ""
        self.choose(package.id)
        self._onChosen(package.id)


def _square(picture):
    """The middle of a picture, as large as those of the other rows."""
    size = PICTURE_SIZE
    large = picture.scaled(size, size, qt.Qt.KeepAspectRatioByExpanding, qt.Qt.SmoothTransformation)
    return large.copy((large.width() - size) // 2, (large.height() - size) // 2, size, size)
