import os

from slicer.i18n import tr as _

from prosma.image.box import shape_of
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Models.GridSentences import GridSentences

WHOLE_IMAGES = (
    ".nrrd",
    ".nhdr",
    ".nii",
    ".nii.gz",
    ".mha",
    ".mhd",
)  # a file of these is seldom a slice of another's image


class ModelFit:
    """Whether a model suits the chosen volumes, told before the click.

    ``errors`` are reasons why it cannot run (ProSMAError), ``warnings`` are reasons why the result is likely to be poor,
    each a sentence for a person, followed by the way out.

    :param package: the model's package.
    :param readers: a VolumeReader for each chosen volume, in the order of the model's channels.
    :param box: voxel box of the ROI (((i0, i1), (j0, j1), (k0, k1))), or None.
    """

    def __init__(self, package, readers, box=None):
        self.errors = []
        self.warnings = []
        self._package = package
        self._readers = readers
        self._checkChannels()
        if readers:
            self._sizes = shape_of(box) if box else list(readers[0].dimensions)
            self._checkJoined()
            self._checkDimension()
            self._checkSameParents()
        if not self.errors and readers:
            self._checkGrid(box)
            self._checkFile()
            self._checkIntensity()
            self._checkModality()

    def check(self):
        """:raises ProSMAError: ``does_not_fit``, with the first of the errors."""
        if self.errors:
            raise self.errors[0]

    def _refuse(self, why, remedy):
        self.errors.append(ProSMAError("does_not_fit", why, remedy))

    @staticmethod
    def refuseStrokes(package):
        """:raises ProSMAError: ``bad_model``, for a model that answers strokes and segments nothing by itself."""
        if package.is_promptable:
            raise ProSMAError(
                "bad_model",
                _("The model '{name}' segments what strokes mean and has no structures of its own.").format(
                    name=package.name
                ),
                _("Choose another model, or use the Segment Editor's effect ProSMA Strokes."),
            )

    @staticmethod
    def channelsOf(package, reader):
        """How many channels a volume gives to a model: the opacity of an RGBA volume is left out, unless wanted."""
        return 3 if reader.components == 4 and len(package.channels) != 4 else reader.components

    def _checkChannels(self):
        wanted = len(self._package.channels)
        given = sum(self.channelsOf(self._package, reader) for reader in self._readers)
        if given == wanted:
            return
        if (given, wanted) == (3, 1) and len(self._readers) == 1:
            self.warnings.append(_("The model takes grey values: the colours will be turned into grey."))
        elif (given, wanted) == (1, 3) and self._package.dimension == 2:
            self.warnings.append(_("The model takes colours: the grey image will be used for all three."))
        elif wanted == 1:
            why = _("'{volume}' has {given} values in each voxel (a vector or complex image), but the model takes one.")
            out = _("Choose a scalar volume, or another model.")
            self._refuse(why.format(volume=self._readers[0].node.GetName(), given=given), out)
        else:
            names = ", ".join(channel["name"] for channel in self._package.channels)
            why = _("The model needs {wanted} channels ({names}), but {given} are chosen.")
            out = _("Choose a volume for each channel, or another model.")
            self._refuse(why.format(wanted=wanted, names=names, given=given), out)

    def _checkJoined(self):
        """Slicer stacks files of one slice whose names go on, such as case1.nrrd and case2.nrrd of two patients."""
        for reader in self._readers:
            storage = reader.node.GetStorageNode()
            number = storage.GetNumberOfFileNames() if storage is not None else 0
            name = os.path.basename(storage.GetFileName() or "") if number > 1 else ""
            if name.lower().endswith(WHOLE_IMAGES):
                text = _("'{volume}' was put together from {number} files, since their names go on from {name}.")
                self.warnings.append(
                    text.format(volume=reader.node.GetName(), number=number, name=name)
                    + " "
                    + _("If they are images of their own, load them again with the option Single File.")
                )

    def _checkDimension(self):
        flat = min(self._sizes) == 1
        if self._package.dimension == 3 and flat:
            self._refuse(_("The model works on volumes, but this is a single slice."), _("Choose a 2D model."))
        elif self._package.dimension == 2 and self._sizes[2] > 1:
            self.warnings.append(
                _("The model sees one slice at a time: each of the {number} slices is segmented on its own.").format(
                    number=self._sizes[2]
                )
            )

    def _checkSameParents(self):
        parents = {reader.node.GetTransformNodeID() for reader in self._readers}
        if len(parents) > 1:
            self._refuse(
                _("The channels are under different transforms."),
                _("Put all of them under the same transform, or harden the transforms."),
            )

    def _checkGrid(self, box):
        """Voxel size and extent, by the engine's own rules: what it would refuse is an error here."""
        from prosma.image.grid_fit import misfits_of_grid

        found = misfits_of_grid(self._package.model, self._sizes, self._readers[0].geometry(), box is not None)
        for misfit in found:
            why, remedy = GridSentences.told(misfit)
            if misfit.is_refused:
                self._refuse(why, remedy)
            else:
                self.warnings.append(f"{why} {remedy}")

    def _checkFile(self):
        """A NIfTI file can place its voxels twice, and differently; Slicer does not always take what other programs take.

        Then the same file would have its result elsewhere here than at the command line: a person has to decide.
        """
        from pathlib import Path

        from prosma.image.formats import nifti

        for reader in self._readers:
            storage = reader.node.GetStorageNode()
            path = Path((storage.GetFileName() if storage else "") or "")
            if not path.name.lower().endswith(nifti.SUFFIXES) or not path.is_file():
                continue
            apart = nifti.placed_elsewhere(path, reader.geometry())
            if apart:
                why = _(
                    "The file {name} places its voxels in two ways; Slicer took one that lies {mm:.3g} mm off the one that "
                    "most programs take."
                )
                out = _(
                    "Check in the views that left and right are right; then save the volume as .nrrd, which has one place. "
                    "Otherwise export the scan again."
                )
                self._refuse(why.format(name=path.name, mm=apart), out)

    def _checkModality(self):
        from prosma.image.modality import declared_otherwise

        wanted = self._package.model["modality"]
        kind = declared_otherwise(wanted, [reader.modality() for reader in self._readers])
        if kind is not None:
            self.warnings.append(
                _("The DICOM header says that this is {kind}; the model was trained on {wanted}.").format(
                    kind=kind, wanted=wanted
                )
                + " "
                + _("Choose a model for this kind of image.")
            )

    def _checkIntensity(self):
        if self._package.model["intensity"]["rule"] != "ct":
            return
        from prosma.image.intensity import lowest_without_air

        lowest = lowest_without_air(self._readers[0].array())
        if lowest is not None:
            self.warnings.append(
                _(
                    "The model expects a CT in Hounsfield units, where air is about -1000; here the lowest value is {low:g}."
                ).format(low=lowest)
                + " "
                + _("Choose a CT, or check its rescaling.")
            )
