import slicer

from ProSMASegmentationLib.Base import Places


class Terminology:
    """Standard terms of the labels, which Slicer's own lists do not all have.

    With them a double click on a segment's colour finds the segment's term selected, and others can be chosen.
    """

    FILE = Places.moduleFolder() / "Resources" / "Terminologies" / "ProSMA.json"

    @classmethod
    def register(cls):
        """Let Slicer choose from the terms in FILE too. :raises RuntimeError: it cannot be read."""
        if not slicer.modules.terminologies.logic().LoadTerminologyFromFile(str(cls.FILE)):
            raise RuntimeError(f"{cls.FILE} cannot be read")
