import qt


class WheelGuard(qt.QObject):
    """Keeps the mouse wheel from changing a slider over which somebody only wants to scroll. Install it as event filter."""

    def eventFilter(self, watched, event):
        if event.type() == qt.QEvent.Wheel and not watched.hasFocus():
            event.ignore()
            return True
        return False
