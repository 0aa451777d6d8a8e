import qt
from slicer.i18n import tr as _

from ProSMASegmentationLib.Engine.EngineClient import EngineClient
from ProSMASegmentationLib.Panel.PanelText import plainText

SETTING = "ProSMASegmentation/Device"


class DevicePicker:
    """Where the network is computed. The choice belongs to the computer, so it is kept in QSettings, not in the scene.

    :param combo: a QComboBox.
    :param engine: the EngineClient, which knows the devices once it is ready.
    :param onChosen: called when the user has chosen another device.
    """

    def __init__(self, combo, engine, onChosen):
        self._combo = combo
        self._engine = engine
        self._onChosen = onChosen
        self.fill()
        combo.connect("currentIndexChanged(int)", self._onIndexChanged)

    @property
    def current(self):
        """The chosen device: ``auto``, ``cpu``, ``cuda:0``, ..."""
        index = self._combo.currentIndex
        return (self._combo.itemData(index) if index >= 0 else None) or "auto"

    def fill(self):
        """Offer the devices that the engine can use; the tool tip says why others cannot be used."""
        devices = self._engine.ready.get("devices", [])
        labels = {"auto": _("Automatic"), **{each["name"]: each["label"] for each in devices if each["usable"]}}
        chosen = str(qt.QSettings().value(SETTING, "auto"))
        if self._engine.state != EngineClient.READY:
            labels.setdefault(chosen, chosen)
        wasBlocked = self._combo.blockSignals(True)
        self._combo.clear()
        for name, label in labels.items():
            self._combo.addItem(label, name)
        self._combo.setCurrentIndex(list(labels).index(chosen) if chosen in labels else 0)
        self._combo.blockSignals(wasBlocked)
        reasons = [each["reason"] for each in devices if not each["usable"] and each["reason"]]
        tip = _("Where the network is computed. Automatic: an NVIDIA card that works, else the processor.")
        self._combo.toolTip = plainText("\n".join([tip, *reasons]))

    def _onIndexChanged(self, _index):
        qt.QSettings().setValue(SETTING, self.current)
        self._onChosen()
