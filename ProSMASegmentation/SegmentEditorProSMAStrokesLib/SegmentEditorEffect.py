import contextlib
import os

import qt
import slicer
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Panel.PanelText import ERROR
from SegmentEditorProSMAStrokesLib.BrushOutline import BrushOutline, millimetresPerPixel
from SegmentEditorProSMAStrokesLib.EditedGrid import EditedGrid
from SegmentEditorProSMAStrokesLib.NetworkStrokes import NetworkStrokes
from SegmentEditorProSMAStrokesLib.RegionOutline import RegionOutline
from SegmentEditorProSMAStrokesLib.StrokesModel import StrokesModel
from SegmentEditorProSMAStrokesLib.StrokesOptions import (
    AT_ONCE,
    BOX,
    BRUSH,
    LARGEST_MM,
    LASSO,
    POINT,
    RADIUS,
    SMALLEST_MM,
    SPHERE,
    StrokesOptions,
)
from SegmentEditorProSMAStrokesLib.StrokesPreview import StrokesPreview
from SegmentEditorProSMAStrokesLib.StrokesSession import BELONGS, EXCLUDED, REGION, StrokesSession
from SegmentEditorProSMAStrokesLib.StrokeVoxels import regionVoxels, strokeVoxels

STEP = 1.2  # factor of one turn of the mouse wheel
POINT_PIXELS = 3  # radius of the mark of a point in a view
LARGER_KEYS, SMALLER_KEYS = ("plus", "equal"), ("minus", "underscore")
FINAL, PROVISIONAL = "final", "provisional"  # questions: about all that was said, or while a stroke is being drawn


class SegmentEditorEffect(StrokesOptions, AbstractScriptedSegmentEditorEffect):
    """ProSMA Strokes: strokes, points, boxes and lassos say what belongs to the segment and what does not."""

    def __init__(self, scriptedEffect):
        scriptedEffect.name = "ProSMA Strokes"  # not translated: modules find effects by their names
        scriptedEffect.title = _("ProSMA Strokes")
        scriptedEffect.requireSegments = False  # the first stroke makes one
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self._session = StrokesSession(scriptedEffect)
        self._network = NetworkStrokes(self._onAnswer, self._onFailure)
        self._preview = StrokesPreview()
        self._outlines = {}  # by tool and the name of the slice view
        self._observed = None  # (parameter node, tag) while the effect is active
        self._stroke = None  # (view widget, points x, y, points in mm, belongs, tool) while the button is held down

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(__file__.replace("\\", "/"))
        return clonedEffect

    def icon(self):
        return qt.QIcon(os.path.join(os.path.dirname(__file__), "SegmentEditorEffect.png"))

    def helpText(self):
        return "<html>" + _(
            "Say with strokes what belongs to the segment and what does not."
            '<p><ul style="margin: 0">'
            "<li><b>Shift + left-button drag:</b> a stroke of the other kind."
            "<li><b>Shift + mouse wheel</b> or <b>+/- keys:</b> size of the brush."
            "<li>The keys on the buttons work over slice views."
            "</ul><p>"
        )

    # ---- life

    def setupOptionsFrame(self):
        StrokesOptions.setupOptionsFrame(self)
        self._showPending()

    def cleanup(self):
        self.disconnectOptions()
        self.deactivate()

    def activate(self):
        why = self._session.whyNot()
        self._say(why, ERROR)
        self._observe(self.scriptedEffect.parameterSetNode())
        model = self._model()
        if model.isReady and not why:
            model.warmUp()
            with contextlib.suppress(ProSMAError):  # what lacks is said with the first stroke
                self._network.handOver(EditedGrid(self.scriptedEffect))
        self._showPending()

    def deactivate(self):
        self._observe(None)
        self._forget()
        self._network.close()

    def _observe(self, node):
        """Follow which segment is selected, for that decides who answers."""
        if self._observed is not None:
            self._observed[0].RemoveObserver(self._observed[1])
        changed = vtk.vtkCommand.ModifiedEvent
        self._observed = (node, node.AddObserver(changed, self._onSelected)) if node is not None else None

    def _onSelected(self, _node, _event):
        self._showModel()

    def sourceVolumeNodeChanged(self):
        self._forget()

    def referenceGeometryChanged(self):
        self._forget()

    def createCursor(self, _viewWidget):
        window = slicer.util.mainWindow()  # none if Slicer was started without
        return window.cursor if window is not None else qt.QCursor()

    def _forget(self):
        """Drop strokes, preview and outlines; the segment stays as it is."""
        self._stroke = None
        self._network.cancel()
        self._session.clear()
        for outline in self._outlines.values():
            outline.remove()
        self._outlines = {}
        self._showPending()

    def _model(self):
        """The StrokesModel of this moment; shows which one it is, and which tools there are."""
        model = self._showModel()
        StrokesOptions.updateGUIFromMRML(self)
        return model

    def _showModel(self):
        reference = self.scriptedEffect.referenceGeometryImage() if self.scriptedEffect.parameterSetNode() else None
        shape = reference.GetDimensions()[::-1] if reference is not None else None
        model = StrokesModel(shape, self.answerer, self._session.corrects())
        self.answerLabel.text = model.sentence
        for tool in (BOX, LASSO):
            self.toolButtons[tool].enabled = model.knowsRegions
        for button in self.answererButtons.values():
            button.enabled = model.package is not None
        return model

    def updateGUIFromMRML(self):
        self._showModel()
        StrokesOptions.updateGUIFromMRML(self)

    # ---- mouse and keys

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget):
        if viewWidget.className() != "qMRMLSliceWidget":
            return False
        if self._changeSize(callerInteractor, eventId):
            return True
        if eventId == vtk.vtkCommand.KeyPressEvent and self.chooseByKey(callerInteractor.GetKeySym()):
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
        self.scriptedEffect.setParameter(RADIUS, float(min(max(self.radius * factor, SMALLEST_MM), LARGEST_MM)))
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
        belongs = self.excludes == bool(interactor.GetShiftKey())
        self._stroke = (viewWidget, [], [], belongs, self.tool)
        self._follow(interactor, viewWidget)
        return True

    def _follow(self, interactor, viewWidget):
        """The mouse moved: show the tool, and take the place into the stroke if one is being drawn."""
        position = interactor.GetEventPosition()
        drawing = self._stroke is not None
        belongs = self._stroke[3] if drawing else not self.excludes
        tool = self._stroke[4] if drawing else self.tool
        if drawing:
            self._take(position, viewWidget, tool)
        if tool not in (BOX, LASSO):
            pixel = millimetresPerPixel(self.scriptedEffect.viewNode(viewWidget))
            radius = self.radius if tool == BRUSH else POINT_PIXELS * pixel
            self._outline(BRUSH, viewWidget).show(position, radius, belongs, drawing)
        elif drawing:
            self._outline(tool, viewWidget).show(self._stroke[1])
        if drawing and tool == BRUSH:
            self._askMeanwhile(viewWidget)
        return drawing

    def _take(self, position, viewWidget, tool):
        """Take a place into the stroke: the next one of its way, the corners of a box, or the place of the click."""
        _view, places, points, *_kind = self._stroke
        if tool == BOX and places:
            (x0, y0), (x1, y1) = places[0], position
            places[:] = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        elif tool != POINT or not places:
            places.append(tuple(position))
        matrix = self.scriptedEffect.viewNode(viewWidget).GetXYToRAS()
        points[:] = [*points, *(matrix.MultiplyPoint([*place, 0, 1])[:3] for place in places[len(points) :])]
        if tool == BOX:
            points[:] = [matrix.MultiplyPoint([*place, 0, 1])[:3] for place in places]

    def _leave(self, _interactor, viewWidget):
        if self._stroke is None:
            self._outline(BRUSH, viewWidget).hide()
        return False

    def _outline(self, tool, viewWidget):
        key = (tool, self.scriptedEffect.viewNode(viewWidget).GetID())
        if key not in self._outlines:
            kind = BrushOutline if tool == BRUSH else RegionOutline
            self._outlines[key] = kind(self.scriptedEffect, viewWidget)
        return self._outlines[key]

    def _endStroke(self, _interactor, viewWidget):
        if self._stroke is None:
            return False
        _view, _places, points, belongs, tool = self._stroke
        self._stroke = None
        self._outline(tool if tool in (BOX, LASSO) else BRUSH, viewWidget).hide()
        self.stroke(points, belongs, viewWidget, tool)
        return True

    # ---- saying

    @property
    def isBusy(self):
        """Whether a model is at work on what was said."""
        return self._network.isBusy

    def stroke(self, points, belongs=True, viewWidget=None, tool=BRUSH):
        """Say something about the selected segment, as the mouse does. Where a model answers, its answer comes later.

        :param points: RAS points in mm: the way of the brush, or the corners of a box or a lasso.
        :param belongs: what a stroke or a point says.
        :param viewWidget: slice view that was drawn in, for the disc brush, boxes and lassos; None: the brush is a ball.
        :param tool: BRUSH, POINT, BOX or LASSO.
        :raises ValueError: a box or a lasso without a view.
        """
        if tool in (BOX, LASSO) and viewWidget is None:
            raise ValueError("A box or a lasso lies in a slice: give the slice view that it is drawn in.")
        if (self._session.hasChanges or self._network.isBusy) and not self._session.isCurrent():
            self._forget()
        self._say("")
        try:
            self._session.begin(belongs)
            said = self._voxels(points, belongs, viewWidget, tool)
            if said is not None:
                self._session.say(*said)
            self._askOrRefine()
        except ProSMAError as error:
            self._sayError(error)

    def _voxels(self, points, belongs, viewWidget, tool):
        """(box, voxels, what) of a stroke on the session's grid; None if it misses that."""
        normal, thickness = None, 0.0
        if viewWidget is not None and not (self.scriptedEffect.integerParameter(SPHERE) and tool == BRUSH):
            matrix = self.scriptedEffect.viewNode(viewWidget).GetSliceToRAS()
            normal = [matrix.GetElement(row, 2) for row in range(3)]
            thickness = self.scriptedEffect.sliceSpacing(viewWidget)
        grid = self._session.grid
        points, normal = grid.local(points, normal)
        if tool in (BOX, LASSO):
            found, what = regionVoxels(points, grid.imageToWorld, grid.shape, normal, thickness), REGION
        else:
            radius = self.radius if tool == BRUSH else 0.0
            found = strokeVoxels(points, radius, grid.imageToWorld, grid.shape, normal, thickness)
            what = BELONGS if belongs else EXCLUDED
        return None if found is None else (*found, what)

    def _askOrRefine(self):
        """Have what was said answered: by the model, or else by Refine."""
        model = self._model()
        if not self._session.isWaiting:
            self._showAnswer()
        elif not (model.answers(self._session.hasRegion) and model.mayRun()):
            qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
            try:
                self._session.refine(self.radius)
            finally:
                qt.QApplication.restoreOverrideCursor()
            self._showAnswer()
        else:
            self._network.ask(model.package, self._session.grid, self._session.parts(), FINAL)
            self._showPending()

    def _askMeanwhile(self, viewWidget):
        """While a stroke is being drawn: ask what it would do as it is, as soon as the last question is answered."""
        session = self._session
        if self.isBusy or session.isWaiting or (session.hasChanges and not session.isCurrent()):
            return
        model = self._model()
        if not (model.answers() and model.isReady):
            return
        try:
            session.begin(self._stroke[3])
            said = self._voxels(self._stroke[2], self._stroke[3], viewWidget, BRUSH)
        except ProSMAError:
            return  # it is said when the stroke ends
        if said is not None:
            self._network.ask(model.package, self._session.grid, self._session.parts(said), PROVISIONAL)

    # ---- answers

    def _onAnswer(self, token, box, mask, notices):
        if not self._session.isCurrent():
            self._forget()
            self._say(_("The segment was changed meanwhile, so the strokes were discarded. Draw them again."), ERROR)
        elif token == FINAL:
            self._session.answer(box, mask)
            self._showAnswer("\n".join(notices))
        else:
            self._showPending((box, mask))

    def _onFailure(self, token, error):
        if token == PROVISIONAL:
            return  # it is said when the stroke ends
        self._session.unsay()
        self._model()
        self._showPending()
        self._sayError(error)

    def _showAnswer(self, notice=""):
        """After an answer: apply it or preview it."""
        if self.scriptedEffect.integerParameter(AT_ONCE):
            self.onApply()
        elif not self._showPending():
            self._say(_("The stroke changes nothing that may be edited here."))
            return
        if notice:
            self._say(notice)

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

    def onTakeBack(self):
        """Forget the last stroke that was not applied, whether it was answered or not."""
        self._say("")
        self._network.cancel()
        if not self._session.unsay():
            self._session.takeBack()
        self._showPending()

    def onCancel(self):
        self._say("")
        self._forget()

    def _showPending(self, provisional=None):
        """Show what the strokes would change, and whether there is something to apply or to wait for."""
        isKnown = self._session.hasChanges or provisional is not None
        images = self._session.changes(provisional) if isKnown else None
        if images is not None:
            self._preview.show(self.scriptedEffect.parameterSetNode().GetSegmentationNode(), images)
        else:
            self._preview.clear()
        isWaiting = self._session.isWaiting
        self.applyButton.enabled = images is not None and not isWaiting
        self.cancelButton.enabled = self.takeBackButton.enabled = self._session.hasChanges or isWaiting
        if isWaiting:
            self._say(_("The model is at work..."))
        elif self.messageLabel.text == _("The model is at work..."):
            self._say("")
        return images is not None
