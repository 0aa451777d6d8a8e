class Shared:
    """A class of which the panel, the Segment Editor's effect and Python scripts have one object in common."""

    _shared = None

    @classmethod
    def shared(cls):
        """The object that all have in common, made when the first asks for it."""
        if cls._shared is None:
            cls._shared = cls()
        return cls._shared
