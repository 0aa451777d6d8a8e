import logging

from slicer.i18n import tr as _


class ProSMAError(RuntimeError):
    """What went wrong, why, and what to do, in sentences for a person.

    code names the kind of failure for programs: ``bad_input``, ``bad_output``, ``bad_model``, ``does_not_fit``,
    ``licence``, ``no_engine``, ``engine_stopped``, ``cancelled``, or one of the engine's own codes (``no_torch``,
    ``no_device``, ``out_of_memory``, ``internal``). ``fit``: the engine's verdict on an image that shows something else
    than the model was trained on, a dict, else None.
    """

    def __init__(self, code, message, remedy="", fit=None):
        super().__init__(f"{message} {remedy}".strip())
        self.code = code
        self.message = message
        self.remedy = remedy
        self.fit = fit


def asProSMAError(error):
    """Any error as one for a person: itself if it is one; else what lacks, or that it is a fault of ours, which is logged."""
    if isinstance(error, ProSMAError):
        return error
    if isinstance(error, MemoryError):
        return ProSMAError(
            "out_of_memory",
            _("There is not enough memory for this."),
            _("Close other volumes and programs, and try again."),
        )
    if isinstance(error, OSError):
        return ProSMAError(
            "bad_folder",
            _("A file or folder cannot be used: {error}.").format(error=error),
            _("Choose another one, or see to it that you may use this one and that the disk has space."),
        )
    logging.error("ProSMA: something unexpected went wrong", exc_info=error)
    return ProSMAError(
        "internal",
        _("Something unexpected went wrong: {error}").format(error=error),
        _("The application log has the details; please report them."),
    )
