"""The module `ctk`: stand-ins for the CTK widgets that module panels use.

Behaviour first: signals, properties and what a click does. The look only resembles CTK's.
"""

from .pythonqt import QtCore, QtGui, QtWidgets
from .uiloader import customWidget

Property, Signal, Qt = QtCore.Property, QtCore.Signal, QtCore.Qt


def declare(type_, name, default, signal=None, changed=None):
    """A Qt property kept in the widget, and its setter.

    Args:
        type_: Qt type, for the .ui file.
        signal: name of a signal that carries each new value.
        changed: name of a method without arguments that is called after a change, before the signal.
    """
    attribute = "_" + name

    def read(self):
        return self.__dict__.get(attribute, default)

    def write(self, value):
        if value == read(self):
            return
        self.__dict__[attribute] = value
        if changed:
            getattr(self, changed)()
        if signal:
            getattr(self, signal).emit(value)

    return Property(type_, read, write), write


def inRow(owner, *widgets):
    """Lays widgets side by side into `owner`, without margins."""
    layout = QtWidgets.QHBoxLayout(owner)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)


@customWidget
class ctkCollapsibleButton(QtWidgets.QWidget):
    """A titled bar over its contents; a click on the bar hides and shows them."""

    contentsCollapsed = Signal(bool)
    toggled = Signal(bool)
    clicked = Signal(bool)
    BAR = 24

    def __init__(self, text="", parent=None):
        super().__init__(text if isinstance(text, QtWidgets.QWidget) else parent)
        self._hidden = []  # children that come back when the contents are shown
        self._moving = False  # whether children are hidden or shown by this widget itself
        self.setContentsMargins(0, self.BAR, 0, 0)
        if isinstance(text, str):
            self.setText(text)

    text, setText = declare(str, "text", "", changed="update")
    collapsed, setCollapsed = declare(bool, "collapsed", False, "contentsCollapsed", "_showContents")
    flat, setFlat = declare(bool, "flat", False)
    collapsedHeight, setCollapsedHeight = declare(int, "collapsedHeight", 10)
    contentsFrameShape, setContentsFrameShape = declare(int, "contentsFrameShape", 0)
    contentsFrameShadow, setContentsFrameShadow = declare(int, "contentsFrameShadow", 0)
    contentsLineWidth, setContentsLineWidth = declare(int, "contentsLineWidth", 1)
    buttonTextAlignment, setButtonTextAlignment = declare(int, "buttonTextAlignment", 0)

    def setChecked(self, checked):
        self.setCollapsed(not checked)

    checked = Property(bool, lambda self: not self.collapsed, setChecked)

    def _children(self):
        children = [each for each in self.children() if isinstance(each, QtWidgets.QWidget)]
        for each in children:
            each.installEventFilter(self)
        return children

    def eventFilter(self, child, event):
        """A child that is shown while the contents are hidden waits; one that is hidden meanwhile does not come back."""
        shown = event.type() == QtCore.QEvent.ShowToParent
        if self.collapsed and not self._moving and (shown or event.type() == QtCore.QEvent.HideToParent):
            self._hidden = [each for each in self._hidden if each is not child]
            if shown:
                self._hide([child])
        return False

    def _hide(self, children):
        self._moving = True
        self._hidden += children
        for each in children:
            each.setVisible(False)
            each.setAttribute(Qt.WA_WState_ExplicitShowHide, False)  # else Qt does not tell when it is hidden once more
        self._moving = False

    def _showContents(self):
        if self.collapsed:
            self._hide([each for each in self._children() if not each.isHidden()])
        else:
            self._moving = True
            for each in self._hidden:
                each.setVisible(True)
            self._hidden = []
            self._moving = False
        self.setMaximumHeight(self.BAR if self.collapsed else 16777215)
        self.toggled.emit(not self.collapsed)

    def showEvent(self, event):
        if self.collapsed:  # children that came after the property was set
            self._hide([each for each in self._children() if not each.isHidden()])
        super().showEvent(event)

    def mouseReleaseEvent(self, event):
        if event.position().y() <= self.BAR:
            self.setCollapsed(not self.collapsed)
            self.clicked.emit(not self.collapsed)

    def paintEvent(self, event):
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.Antialiasing)
        bar = QtCore.QRectF(0.5, 0.5, self.width - 1, self.BAR - 3)
        painter.setPen(self.palette.color(QtGui.QPalette.Mid))
        painter.setBrush(self.palette.color(QtGui.QPalette.Button).darker(104))
        painter.drawRoundedRect(bar, 3, 3)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(7, 6, 11, 11)
        style = QtWidgets.QStyle
        kind = style.PE_IndicatorArrowRight if self.collapsed else style.PE_IndicatorArrowDown
        self.style().drawPrimitive(kind, arrow, painter, self)
        painter.setPen(self.palette.color(QtGui.QPalette.ButtonText))
        painter.drawText(bar.adjusted(24, 0, -4, 0), int(Qt.AlignVCenter | Qt.AlignLeft), self.text.replace("&&", "&"))
        painter.end()


@customWidget
class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box whose check mark shows its contents."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.setCheckable(True)
        self.toggled.connect(self._showContents)

    def _showContents(self, shown):
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(shown)

    def setCollapsed(self, collapsed):
        self.setChecked(not collapsed)

    collapsed = Property(bool, lambda self: not self.checked, setCollapsed)
    collapsedHeight, setCollapsedHeight = declare(int, "collapsedHeight", 10)


@customWidget
class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box that share one value."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    STEPS = 1000

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(Qt.Horizontal)
        self._spinBox = QtWidgets.QDoubleSpinBox()
        self._moving = False
        self._slider.setRange(0, self.STEPS)
        inRow(self, self._slider, self._spinBox)
        self._spinBox.valueChanged.connect(self._follow)
        self._slider.valueChanged.connect(self._slide)

    def _follow(self, value):
        low, high = self.minimum, self.maximum
        self._moving = True
        self._slider.setValue(round(self.STEPS * (value - low) / (high - low)) if high > low else 0)
        self._moving = False
        self.valueIsChanging.emit(value)
        self.valueChanged.emit(value)

    def _slide(self, position):
        if not self._moving:
            self._spinBox.setValue(self.minimum + position / self.STEPS * (self.maximum - self.minimum))

    def setValue(self, value):
        self._spinBox.setValue(value)

    def setMinimum(self, value):
        self._spinBox.setMinimum(value)

    def setMaximum(self, value):
        self._spinBox.setMaximum(value)

    def setRange(self, low, high):
        self._spinBox.setRange(low, high)

    def setSingleStep(self, value):
        self._spinBox.setSingleStep(value)

    def setDecimals(self, value):
        self._spinBox.setDecimals(value)

    def setSuffix(self, text):
        self._spinBox.setSuffix(text)

    def setPrefix(self, text):
        self._spinBox.setPrefix(text)

    def spinBox(self):
        return self._spinBox

    def slider(self):
        return self._slider

    decimals = Property(int, lambda self: self._spinBox.decimals, setDecimals)
    minimum = Property(float, lambda self: self._spinBox.minimum, setMinimum)
    maximum = Property(float, lambda self: self._spinBox.maximum, setMaximum)
    singleStep = Property(float, lambda self: self._spinBox.singleStep, setSingleStep)
    value = Property(float, lambda self: self._spinBox.value, setValue)
    suffix = Property(str, lambda self: self._spinBox.suffix, setSuffix)
    prefix = Property(str, lambda self: self._spinBox.prefix, setPrefix)
    pageStep, setPageStep = declare(float, "pageStep", 10.0)
    tracking, setTracking = declare(bool, "tracking", True)
    spinBoxVisible, setSpinBoxVisible = declare(bool, "spinBoxVisible", True, changed="_showSpinBox")

    def _showSpinBox(self):
        self._spinBox.setVisible(self.spinBoxVisible)


@customWidget
class ctkDoubleSpinBox(QtWidgets.QDoubleSpinBox):
    """A spin box for a decimal number."""


@customWidget
class ctkPathLineEdit(QtWidgets.QWidget):
    """A line for a path with a button that asks for one."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)

    Dirs, Files, Drives, NoSymLinks = 1, 2, 4, 8  # values of QDir.Filter
    Readable, Writable, Executable, Hidden = 0x10, 0x20, 0x40, 0x100
    NoDot, NoDotDot = 0x2000, 0x4000

    def __init__(self, parent=None):
        super().__init__(parent)
        self._line, self._button = QtWidgets.QLineEdit(), QtWidgets.QToolButton()
        self._button.text = "…"
        inRow(self, self._line, self._button)
        self._line.textChanged.connect(self._announce)
        self._button.connect("clicked()", self.browse)

    def _announce(self, path):
        self.currentPathChanged.emit(path)
        self.validInputChanged.emit(QtCore.QFileInfo(path).exists())

    def browse(self):
        ask = QtWidgets.QFileDialog.getExistingDirectory if self.filters & self.Dirs else None
        path = (ask or QtWidgets.QFileDialog.getOpenFileName)(self, "Select a path", self.currentPath)
        if path:
            self.setCurrentPath(path)

    def setCurrentPath(self, path):
        self._line.setText(path)

    def addCurrentPathToHistory(self):
        """The history is not kept."""

    currentPath = Property(str, lambda self: self._line.text, setCurrentPath)
    filters, setFilters = declare(int, "filters", 0)
    nameFilters, setNameFilters = declare("QStringList", "nameFilters", [])
    settingKey, setSettingKey = declare(str, "settingKey", "")
    showHistoryButton, setShowHistoryButton = declare(bool, "showHistoryButton", True)
    label, setLabel = declare(str, "label", "")


@customWidget
class ctkDirectoryButton(QtWidgets.QPushButton):
    """A button that shows a folder and asks for another."""

    directoryChanged = Signal(str)

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.connect("clicked()", self.browse)

    directory, setDirectory = declare(str, "directory", ".", "directoryChanged", "_show")
    caption, setCaption = declare(str, "caption", "")
    acceptMode, setAcceptMode = declare(int, "acceptMode", 0)

    def _show(self):
        self.setText(self.directory)

    def browse(self):
        path = QtWidgets.QFileDialog.getExistingDirectory(self, self.caption, self.directory)
        if path:
            self.setDirectory(path)


@customWidget
class ctkSearchBox(QtWidgets.QLineEdit):
    """A line with a magnifier and a button that empties it."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setClearButtonEnabled(True)
        self.setPlaceholderText("Search...")

    showSearchIcon, setShowSearchIcon = declare(bool, "showSearchIcon", True)
    alwaysShowClearIcon, setAlwaysShowClearIcon = declare(bool, "alwaysShowClearIcon", False)


@customWidget
class ctkComboBox(QtWidgets.QComboBox):
    """A combo box that can show a text while nothing is chosen."""

    defaultText, setDefaultText = declare(str, "defaultText", "", changed="_showDefault")
    forceDefault, setForceDefault = declare(bool, "forceDefault", False)
    scrollWheelEnabled, setScrollWheelEnabled = declare(bool, "scrollWheelEnabled", True)

    def _showDefault(self):
        self.setPlaceholderText(self.defaultText)

    def currentUserDataAsString(self):
        return str(self.currentData)


@customWidget
class ctkCheckBox(QtWidgets.QCheckBox):
    """A check box."""


@customWidget
class ctkMenuButton(QtWidgets.QPushButton):
    """A push button with a menu beside it."""

    showMenuIndicator, setShowMenuIndicator = declare(bool, "showMenuIndicator", True)


class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box that can be told not to come again."""

    dontShowAgain, setDontShowAgain = declare(bool, "dontShowAgain", False)
    dontShowAgainVisible, setDontShowAgainVisible = declare(bool, "dontShowAgainVisible", False)
    dontShowAgainSettingsKey, setDontShowAgainSettingsKey = declare(str, "dontShowAgainSettingsKey", "")


class ctkWidgetsUtils:
    """Pictures of widgets."""

    @staticmethod
    def grabWidget(widget):
        return widget.grab().toImage()
