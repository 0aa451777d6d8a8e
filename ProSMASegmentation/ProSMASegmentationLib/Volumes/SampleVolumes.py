import hashlib
import json
import logging

import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base import Places
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError


class SampleVolumes:
    """The bundled sample volumes, described in ``samples.json`` beside them.

    Each sample is a dict: ``name``, ``file``, ``reference`` (label map), ``model`` (id of the model that it suits),
    ``description``, ``licence``, ``sha256`` (of the file).
    """

    CATEGORY = "ProSMA"

    @staticmethod
    def all():
        """The samples, with ``path`` and ``referencePath`` added; none if this copy of ProSMA came without."""
        folder = Places.samplesFolder()
        index = folder / "samples.json" if folder else None
        if index is None or not index.is_file():
            return []
        samples = json.loads(index.read_text(encoding="utf-8"))["samples"]
        for sample in samples:
            sample["path"] = folder / sample["file"]
            sample["referencePath"] = folder / sample["reference"]
        return samples

    @classmethod
    def forModel(cls, modelId):
        """The first sample that suits the model, or None."""
        return next((sample for sample in cls.all() if sample["model"] == modelId), None)

    @classmethod
    def load(cls, modelId):
        """Load the sample for a model into the scene. Returns the volume node.

        :raises ProSMAError: ``bad_input``, if there is no sample for the model or it cannot be read.
        """
        sample = cls.forModel(modelId)
        if sample is None:
            raise ProSMAError(
                "bad_input",
                _("There is no bundled sample for this model."),
                _("Choose another model or load an image of your own."),
            )
        try:
            if hashlib.sha256(sample["path"].read_bytes()).hexdigest() != sample["sha256"]:
                raise OSError(_("its content is not what it should be"))
            return slicer.util.loadVolume(str(sample["path"]), {"name": sample["name"]})
        except (OSError, RuntimeError) as error:
            logging.exception("ProSMA: a sample cannot be loaded")
            raise ProSMAError(
                "bad_input",
                _("The sample volume '{path}' is damaged or not there.").format(path=sample["path"]),
                _("Install the extension again."),
            ) from error

    @classmethod
    def register(cls):
        """Show the samples in Slicer's Sample Data module. Nothing is downloaded: the addresses are local files."""
        import SampleData

        logic = SampleData.SampleDataLogic
        for sample in cls.all():
            logic.registerCustomSampleDataSource(
                category=cls.CATEGORY,
                sampleName=sample["name"],
                thumbnailFileName=str(Places.moduleFolder() / "Resources" / "Icons" / "ProSMASegmentation.png"),
                uris=sample["path"].as_uri(),
                fileNames=sample["file"],
                checksums=f"SHA256:{sample['sha256']}",
                nodeNames=sample["name"],
                loadFileType="VolumeFile",
            )
