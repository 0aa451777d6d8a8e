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
