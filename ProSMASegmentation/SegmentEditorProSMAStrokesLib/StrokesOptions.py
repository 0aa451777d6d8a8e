import ctk
import qt
from slicer.i18n import tr as _

from ProSMASegmentationLib.Panel.PanelText import ERROR, NORMAL
from SegmentEditorProSMAStrokesLib.StrokesModel import AUTOMATIC, BY_BORDER, BY_MODEL

RADIUS, SPHERE, EXCLUDE, AT_ONCE, TOOL = "BrushRadiusMm", "Sphere", "Exclude", "ApplyAtOnce", "Tool"
ANSWERER = "Answerer"
BRUSH, POINT, BOX, LASSO = "Brush", "Point", "Box", "Lasso"
SMALLEST_MM, LARGEST_MM, DEFAULT_MM = 0.5, 50.0, 3.0
ADD_KEY, REMOVE_KEY = "a", "x"
TOOL_KEYS = {"s": BRUSH, "p": POINT, "o": BOX, "l": LASSO}
TAKE_BACK_KEY, APPLY_KEY = "u", "Return"


class StrokesOptions:
    """The options of the effect, and what they are in the editor's parameters. The keys on the buttons work in slice views.

    A base of the effect, which has ``scriptedEffect``, ``onCancel``, ``onTakeBack`` and ``onApply``.
    """

    def setupOptionsFrame(self):
        self.answerLabel = self._label("strokesAnswerLabel")
        self._addKinds()
        self._addTools()
        self._addBrush()
        self._addAnswerers()
        self._addEnds()
        self.messageLabel = self._label("strokesMessageLabel")
        self._signals = [
            (self.belongsButton, "toggled(bool)", self._onOptionChanged),
            *((button, "toggled(bool)", self._onToolToggled) for button in self.toolButtons.values()),
            *((button, "toggled(bool)", self._onToolToggled) for button in self.answererButtons.values()),
            (self.radiusSlider, "valueChanged(double)", self._onOptionChanged),
            (self.sphereCheckBox, "toggled(bool)", self._onOptionChanged),
            (self.atOnceCheckBox, "toggled(bool)", self._onOptionChanged),
            (self.cancelButton, "clicked()", self.onCancel),
            (self.takeBackButton, "clicked()", self.onTakeBack),
            (self.applyButton, "clicked()", self.onApply),
        ]
        for widget, signal, slot in self._signals:
            widget.connect(signal, slot)

    def disconnectOptions(self):
        """The effect goes away: connections would keep it alive."""
        for widget, signal, slot in self._signals:
            widget.disconnect(signal, slot)
        self._signals = []

    def _addKinds(self):
        self.belongsButton = qt.QRadioButton(_("Add ({key})").format(key="A"))
        self.belongsButton.objectName = "belongsButton"
        self.belongsButton.toolTip = _("The stroke lies in the segment.")
        self.excludeButton = qt.QRadioButton(_("Remove ({key})").format(key="X"))
        self.excludeButton.objectName = "excludeButton"
        self.excludeButton.toolTip = _("The stroke lies outside the segment.")
        self.scriptedEffect.addLabeledOptionsWidget(_("Stroke:"), _row(self.belongsButton, self.excludeButton))

    def _addTools(self):
        texts = {
            BRUSH: (_("Brush ({key})"), _("Paint a stroke.")),
            POINT: (_("Point ({key})"), _("Click one voxel.")),
            BOX: (_("Box ({key})"), _("Drag a box around what belongs to the segment, in one slice.")),
            LASSO: (_("Lasso ({key})"), _("Draw a line around what belongs to the segment, in one slice.")),
        }
        self.toolButtons = {}
        for key, tool in TOOL_KEYS.items():
            text, toolTip = texts[tool]
            button = self.toolButtons[tool] = qt.QRadioButton(text.format(key=key.upper()))
            button.objectName = f"strokes{tool}Button"
            button.toolTip = toolTip
        self.scriptedEffect.addLabeledOptionsWidget(_("With:"), _row(*self.toolButtons.values()))

    def _addBrush(self):
        self.radiusSlider = ctk.ctkSliderWidget()
        self.radiusSlider.objectName = "radiusSlider"
        self.radiusSlider.minimum, self.radiusSlider.maximum = SMALLEST_MM, LARGEST_MM
        self.radiusSlider.singleStep, self.radiusSlider.decimals = 0.5, 1
        self.radiusSlider.suffix = " mm"
        self.scriptedEffect.addLabeledOptionsWidget(_("Brush radius:"), self.radiusSlider)
        self.sphereCheckBox = qt.QCheckBox(_("Sphere brush"))
        self.sphereCheckBox.objectName = "sphereCheckBox"
        self.sphereCheckBox.toolTip = _("The brush is a ball; otherwise a disc in the slice that is drawn in.")
        self.atOnceCheckBox = qt.QCheckBox(_("Apply at once"))
        self.atOnceCheckBox.objectName = "atOnceCheckBox"
        self.atOnceCheckBox.toolTip = _("Change the segment after each stroke, without a preview. Undo takes it back.")
        self.scriptedEffect.addOptionsWidget(_row(self.sphereCheckBox, self.atOnceCheckBox))

    def _addAnswerers(self):
        texts = {
            AUTOMATIC: (
                _("Automatic"),
                _("A model answers in segments that strokes began; the border of other masks is moved."),
            ),
            BY_MODEL: (_("Model"), _("A model for strokes answers, in masks of any kind too.")),
            BY_BORDER: (_("Border"), _("The border moves, as the image and a model's probabilities say.")),
        }
        self.answererButtons = {}
        for name, (text, toolTip) in texts.items():
            button = self.answererButtons[name] = qt.QRadioButton(text)
            button.objectName = f"answered{name}Button"
            button.toolTip = toolTip
        self.scriptedEffect.addLabeledOptionsWidget(_("Answer:"), _row(*self.answererButtons.values()))

    def _addEnds(self):
        self.cancelButton = qt.QPushButton(_("Cancel"))
        self.cancelButton.objectName = "strokesCancelButton"
        self.cancelButton.toolTip = _("Forget the strokes and what they would change.")
        self.takeBackButton = qt.QPushButton(_("Take back ({key})").format(key="U"))
        self.takeBackButton.objectName = "strokesTakeBackButton"
        self.takeBackButton.toolTip = _("Forget the last stroke that was not applied.")
        self.applyButton = qt.QPushButton(_("Apply (Enter)"))
        self.applyButton.objectName = "strokesApplyButton"
        self.applyButton.toolTip = _(
            "Change the segment as the preview shows: add green, remove red. Each stroke is one step of Undo."
        )
        self.scriptedEffect.addOptionsWidget(_row(self.cancelButton, self.takeBackButton, self.applyButton))

    def _label(self, name):
        label = qt.QLabel()
        label.objectName = name
        label.wordWrap = True
        label.textFormat = qt.Qt.PlainText
        self.scriptedEffect.addOptionsWidget(label)
        return label

    # ---- parameters

    @property
    def tool(self):
        """The chosen tool; a box or a lasso only where a model answers."""
        chosen = self.scriptedEffect.parameter(TOOL)
        return chosen if chosen in self.toolButtons and self.toolButtons[chosen].enabled else BRUSH

    @property
    def answerer(self):
        """Who answers: AUTOMATIC, BY_MODEL or BY_BORDER."""
        return self.scriptedEffect.parameter(ANSWERER) or AUTOMATIC

    @property
    def excludes(self):
        return bool(self.scriptedEffect.integerParameter(EXCLUDE))

    @property
    def radius(self):
        return self.scriptedEffect.doubleParameter(RADIUS)

    def setMRMLDefaults(self):
        self.scriptedEffect.setParameterDefault(RADIUS, DEFAULT_MM)
        self.scriptedEffect.setParameterDefault(TOOL, BRUSH)
        self.scriptedEffect.setParameterDefault(ANSWERER, AUTOMATIC)
        for name in (SPHERE, EXCLUDE, AT_ONCE):
            self.scriptedEffect.setParameterDefault(name, 0)

    def updateGUIFromMRML(self):
        effect, tool = self.scriptedEffect, self.tool
        states = [
            (self.belongsButton, not self.excludes),
            (self.excludeButton, self.excludes),
            (self.sphereCheckBox, bool(effect.integerParameter(SPHERE))),
            (self.atOnceCheckBox, bool(effect.integerParameter(AT_ONCE))),
            *((button, name == tool) for name, button in self.toolButtons.items()),
            *((button, name == self.answerer) for name, button in self.answererButtons.items()),
        ]
        widgets = [self.radiusSlider, *(widget for widget, _checked in states)]
        blocked = [(widget, widget.blockSignals(True)) for widget in widgets]
        for widget, checked in states:
            widget.checked = checked
        self.radiusSlider.value = self.radius
        for widget, was in blocked:
            widget.blockSignals(was)

    def updateMRMLFromGUI(self):
        tool = next((name for name, button in self.toolButtons.items() if button.checked), BRUSH)
        answerer = next((name for name, button in self.answererButtons.items() if button.checked), AUTOMATIC)
        values = {  # read first: each parameter that is set shows all of them anew
            EXCLUDE: int(self.excludeButton.checked),
            RADIUS: self.radiusSlider.value,
            SPHERE: int(self.sphereCheckBox.checked),
            AT_ONCE: int(self.atOnceCheckBox.checked),
            TOOL: tool,
            ANSWERER: answerer,
        }
        for name, value in values.items():
            self.scriptedEffect.setParameter(name, value)

    def _onOptionChanged(self, _value):
        self.updateMRMLFromGUI()

    def _onToolToggled(self, checked):
        if checked:  # of the two buttons that change, the one that is on now
            self.updateMRMLFromGUI()

    def chooseByKey(self, key):
        """What a key in a slice view chooses. Returns whether it is one of those on the buttons."""
        if key in (ADD_KEY, REMOVE_KEY):
            self.scriptedEffect.setParameter(EXCLUDE, int(key == REMOVE_KEY))
        elif key in TOOL_KEYS:
            if self.toolButtons[TOOL_KEYS[key]].enabled:
                self.scriptedEffect.setParameter(TOOL, TOOL_KEYS[key])
        elif key == TAKE_BACK_KEY:
            self.onTakeBack()
        elif key == APPLY_KEY:
            if self.applyButton.enabled:
                self.onApply()
        else:
            return False
        return True

    # ---- texts

    def _say(self, text, style=NORMAL):
        self.messageLabel.text = text
        self.messageLabel.styleSheet = style
        self.messageLabel.setVisible(bool(text))

    def _sayError(self, error):
        self._say(str(error), ERROR)


def _row(*widgets):
    row = qt.QWidget()
    layout = qt.QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)
    return row
