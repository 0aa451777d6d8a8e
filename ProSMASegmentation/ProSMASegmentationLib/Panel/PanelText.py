"""How the panel shows texts: notices, warnings, errors, durations."""

from html import escape

from slicer.i18n import tr as _

NORMAL = ""
ERROR = "color: #c0392b"
WARNING = "color: #b9770e"
LABEL_MARGINS = 24  # pixels between a section's border and its texts


def plainText(text):
    """The text for a tool tip or a message box, which take what looks like markup for markup, shown letter by letter."""
    if "<" not in text and "&" not in text:
        return text
    return f"<span>{escape(text)}</span>".replace("\n", "<br>")


def showText(label, text, style=NORMAL):
    """Show a text in a label, with the height that it needs; without a text the label takes no place."""
    label.text = text
    label.styleSheet = style
    label.setMinimumHeight(label.heightForWidth(label.parentWidget().width - LABEL_MARGINS) if text else 0)
    label.setVisible(bool(text))


def showProgress(bar, label, work):
    """Show how far some work (with ``fraction``, ``stage`` and ``secondsLeft``) is."""
    bar.setValue(round(1000 * work.fraction))
    text = work.stage
    if work.secondsLeft:
        text += " - " + _("about {time} left").format(time=duration(work.secondsLeft))
    showText(label, text)


def duration(seconds):
    """Seconds as a person says them."""
    if seconds < 90:
        return _("{seconds:.0f} s").format(seconds=max(1, seconds))
    return _("{minutes:.0f} min").format(minutes=seconds / 60)
