import os

import ctk
import qt
import slicer
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Panel.PanelText import ERROR, NORMAL
from SegmentEditorProSMARefineLib.BrushOutline import BrushOutline
from SegmentEditorProSMARefineLib.RefinePreview import RefinePreview
from SegmentEditorProSMARefineLib.RefineSession import RefineSession

RADIUS, SPHERE, EXCLUDE, AT_ONCE = "BrushRadiusMm", "Sphere", "Exclude", "ApplyAtOnce"
SMALLEST_MM, LARGEST_MM, DEFAULT_MM = 0.5, 50.0, 3.0
STEP = 1.2  # factor of one turn of the mouse wheel
LARGER_KEYS, SMALLER_KEYS = ("plus", "equal"), ("minus", "underscore")


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    """ProSMA Refine: strokes say what belongs to the segment and what does not; its border follows image and network."""

    def __init__(self, scriptedEffect):
        scriptedEffect.name = "ProSMA Refine"  # not translated: modules find effects by their names
        scriptedEffect.title = _("ProSMA Refine")
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self._session = RefineSession(scriptedEffect)
        self._preview = RefinePreview()
        self._outlines = {}  # by the name of the slice view
        self._stroke = None  # (view widget, points in mm, belongs) while the button is held down

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(__file__.replace("\\", "/"))
        return clonedEffect

    def icon(self):
        return qt.QIcon(os.path.join(os.path.dirname(__file__), "SegmentEditorEffect.png"))

    def helpText(self):
        return "<html>" + _(
            "Say with strokes what belongs to the segment and what does not. The border around them is decided anew, "
            "from the strokes, the image, and the network's probabilities if ProSMA made the segment."
            '<p><ul style="margin: 0">'
            "<li><b>Left-button drag:</b> a stroke of the chosen kind."
            "<li><b>Shift + left-button drag:</b> a stroke of the other kind."
            "<li><b>Shift + mouse wheel</b> or <b>+/- keys:</b> size of the brush."
            "</ul><p>"
        )

    # ---- options

    def setupOptionsFrame(self):
        self.belongsButton = qt.QRadioButton(_("Belongs"))
        self.belongsButton.objectName = "belongsButton"
        self.belongsButton.toolTip = _("The stroke lies in the segment.")
        self.excludeButton = qt.QRadioButton(_("Does not belong"))
        self.excludeButton.objectName = "excludeButton"
        self.excludeButton.toolTip = _("The stroke lies outside the segment.")
        self.scriptedEffect.addLabeledOptionsWidget(_("Stroke:"), _row(self.belongsButton, self.excludeButton))

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

        self.cancelButton = qt.QPushButton(_("Cancel"))
        self.cancelButton.objectName = "refineCancelButton"
        self.cancelButton.toolTip = _("Forget the strokes and what they would change.")
        self.applyButton = qt.QPushButton(_("Apply"))
        self.applyButton.objectName = "refineApplyButton"
        self.applyButton.toolTip = _("Change the segment as the preview shows: add green, remove red.")
        self.scriptedEffect.addOptionsWidget(_row(self.cancelButton, self.applyButton))

        self.messageLabel = qt.QLabel()
        self.messageLabel.objectName = "refineMessageLabel"
        self.messageLabel.wordWrap = True
        self.messageLabel.textFormat = qt.Qt.PlainText
        self.scriptedEffect.addOptionsWidget(self.messageLabel)
        self._connect()
        self._showPending()

    def _connect(self):
        self.belongsButton.connect("toggled(bool)", self._onOptionChanged)
        self.radiusSlider.connect("valueChanged(double)", self._onOptionChanged)
        self.sphereCheckBox.connect("toggled(bool)", self._onOptionChanged)
        self.atOnceCheckBox.connect("toggled(bool)", self._onOptionChanged)
        self.cancelButton.connect("clicked()", self.onCancel)
        self.applyButton.connect("clicked()", self.onApply)

    def cleanup(self):
        """The effect goes away: connections would keep it alive."""
        self.belongsButton.disconnect("toggled(bool)", self._onOptionChanged)
        self.radiusSlider.disconnect("valueChanged(double)", self._onOptionChanged)
        self.sphereCheckBox.disconnect("toggled(bool)", self._onOptionChanged)
        self.atOnceCheckBox.disconnect("toggled(bool)", self._onOptionChanged)
        self.cancelButton.disconnect("clicked()", self.onCancel)
        self.applyButton.disconnect("clicked()", self.onApply)
        self._forget()

    def setMRMLDefaults(self):
        self.scriptedEffect.setParameterDefault(RADIUS, DEFAULT_MM)
        for name in (SPHERE, EXCLUDE, AT_ONCE):
            self.scriptedEffect.setParameterDefault(name, 0)

    def updateGUIFromMRML(self):
        effect = self.scriptedEffect
        exclude = bool(effect.integerParameter(EXCLUDE))
        widgets = (self.belongsButton, self.excludeButton, self.radiusSlider, self.sphereCheckBox, self.atOnceCheckBox)
        blocked = [(widget, widget.blockSignals(True)) for widget in widgets]
        self.belongsButton.checked = not exclude
        self.excludeButton.checked = exclude
        self.radiusSlider.value = effect.doubleParameter(RADIUS)
        self.sphereCheckBox.checked = bool(effect.integerParameter(SPHERE))
        self.atOnceCheckBox.checked = bool(effect.integerParameter(AT_ONCE))
        for widget, was in blocked:
            widget.blockSignals(was)

    def updateMRMLFromGUI(self):
        values = {  # read first: each parameter that is set shows all of them anew
            EXCLUDE: int(self.excludeButton.checked),
            RADIUS: self.radiusSlider.value,
            SPHERE: int(self.sphereCheckBox.checked),
            AT_ONCE: int(self.atOnceCheckBox.checked),
        }
        for name, value in values.items():
            self.scriptedEffect.setParameter(name, value)

    def _onOptionChanged(self, _value):
        self.updateMRMLFromGUI()

    # ---- life

    def activate(self):
        self._say(self._session.whyNot(), ERROR)
        self._showPending()

    def deactivate(self):
        self._forget()

    def sourceVolumeNodeChanged(self):
        self._forget()

    def referenceGeometryChanged(self):
        self._forget()

    def createCursor(self, _viewWidget):
        window = slicer.util.mainWindow()  # none if Slicer was started without
        return window.cursor if window is not None else qt.QCursor()

    def _forget(self):
        """Drop strokes, preview and brush; the segment stays as it is."""
        self._stroke = None
        self._session.clear()
        self._preview.clear()
        for outline in self._outlines.values():
            outline.remove()
        self._outlines = {}
        self._showPending()

    # ---- mouse and keys

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget):
        if viewWidget.className() != "qMRMLSliceWidget":
            return False
        if self._changeSize(callerInteractor, eventId):
            return True
        if self._stroke is not None and self._stroke[0] != viewWidget:
            return False
        handlers = {
            vtk.vtkCommand.LeftButtonPressEvent: self._startStroke,
            vtk.vtkCommand.MouseMoveEvent: self._follow,
            vtk.vtkCommand.LeftButtonReleaseEvent: self._endStroke,
            vtk.vtkCommand.LeaveEvent: self._leave,
        }
        return handlers[eventId](callerInteractor, viewWidget) if eventId in handlers else False

    def _changeSize(self, interactor, eventId):
        key = interactor.GetKeySym() if eventId == vtk.vtkCommand.KeyPressEvent else None
        shift = bool(interactor.GetShiftKey())
        if key in LARGER_KEYS or (shift and eventId == vtk.vtkCommand.MouseWheelForwardEvent):
            factor = STEP
        elif key in SMALLER_KEYS or (shift and eventId == vtk.vtkCommand.MouseWheelBackwardEvent):
            factor = 1 / STEP
        else:
            return False
        radius = self.scriptedEffect.doubleParameter(RADIUS) * factor
        self.scriptedEffect.setParameter(RADIUS, float(min(max(radius, SMALLEST_MM), LARGEST_MM)))
        return True

    def _startStroke(self, interactor, viewWidget):
        if interactor.GetControlKey() or interactor.GetAltKey():
            return False
        why = self._session.whyNot()
        if why:
            self._say(why, ERROR)
            return True
        confirmed = self.scriptedEffect.confirmCurrentSegmentVisible()
        if confirmed != slicer.qSlicerSegmentEditorAbstractEffect.ConfirmedWithoutDialog:
            return True  # a dialog took the release of the button
        belongs = not self.scriptedEffect.integerParameter(EXCLUDE)
        if interactor.GetShiftKey():
            belongs = not belongs
        self._stroke = (viewWidget, [], belongs)
        self._follow(interactor, viewWidget)
        return True

    def _follow(self, interactor, viewWidget):
        """The mouse moved: show the brush, and take the place into the stroke if one is being drawn."""
        position = interactor.GetEventPosition()
        drawing = self._stroke is not None
        belongs = self._stroke[2] if drawing else not self.scriptedEffect.integerParameter(EXCLUDE)
        if drawing:
            matrix = self.scriptedEffect.viewNode(viewWidget).GetXYToRAS()
            self._stroke[1].append(matrix.MultiplyPoint([*position, 0, 1])[:3])
        radius = self.scriptedEffect.doubleParameter(RADIUS)
        self._outline(viewWidget).show(position, radius, belongs, drawing)
        return drawing

    def _leave(self, _interactor, viewWidget):
        if self._stroke is None:
            self._outline(viewWidget).hide()
        return False

    def _outline(self, viewWidget):
        name = self.scriptedEffect.viewNode(viewWidget).GetID()
        if name not in self._outlines:
            self._outlines[name] = BrushOutline(self.scriptedEffect, viewWidget)
        return self._outlines[name]

    def _endStroke(self, _interactor, viewWidget):
        if self._stroke is None:
            return False
        _view, points, belongs = self._stroke
        self._stroke = None
        self._outline(viewWidget).hide()
        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            self.refine(points, belongs, viewWidget)
        finally:
            qt.QApplication.restoreOverrideCursor()
        return True

    # ---- refining

    def refine(self, points, belongs, viewWidget=None):
        """Refine the selected segment by a stroke, as the mouse does.

        :param points: RAS points in mm. :param belongs: what the stroke says.
        :param viewWidget: slice view that was drawn in, for the disc brush; None: the brush is a ball.
        """
        normal, thickness = None, 0.0
        if viewWidget is not None and not self.scriptedEffect.integerParameter(SPHERE):
            matrix = self.scriptedEffect.viewNode(viewWidget).GetSliceToRAS()
            normal = [matrix.GetElement(row, 2) for row in range(3)]
            thickness = self.scriptedEffect.sliceSpacing(viewWidget)
        if self._session.hasChanges and not self._session.isCurrent():
            self._forget()
        try:
            self._session.add(points, self.scriptedEffect.doubleParameter(RADIUS), belongs, normal, thickness)
        except ProSMAError as error:
            self._say(str(error), ERROR)
            return
        self._say("")
        if self.scriptedEffect.integerParameter(AT_ONCE):
            self.onApply()
        elif not self._showPending():
            self._say(_("The stroke changes nothing that may be edited here."))

    def onApply(self):
        why = self._session.whyNot()
        if why:
            self._forget()
            self._say(why, ERROR)
        elif not self._session.isCurrent():
            self._forget()
            self._say(
                _("The segment was changed meanwhile, so the preview was discarded. Draw the strokes again."), ERROR
            )
        else:
            if not self._session.apply():
                self._say(_("The stroke changes nothing that may be edited here."))
            self._showPending()

    def onCancel(self):
        self._say("")
        self._forget()

    def _showPending(self):
        """Show what the strokes would change, and whether there is something to apply."""
        images = self._session.changes() if self._session.hasChanges else None
        if images is not None:
            self._preview.show(self.scriptedEffect.parameterSetNode().GetSegmentationNode(), images)
        else:
            self._preview.clear()
        self.applyButton.enabled = self.cancelButton.enabled = images is not None
        return images is not None

    def _say(self, text, style=NORMAL):
        self.messageLabel.text = text
        self.messageLabel.styleSheet = style
        self.messageLabel.setVisible(bool(text))


def _row(*widgets):
    row = qt.QWidget()
    layout = qt.QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)
    return row
