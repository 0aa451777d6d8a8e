from slicer.i18n import tr as _


class GridSentences:
    """What the engine says about a grid that does not suit a model (``prosma.image.grid_fit``), in the user's language."""

    @staticmethod
    def translations():
        """By kind of misfit: why, what to do, and what to do instead if there is an ROI; the engine's words in English."""
        return {
            "tiny": (
                _(
                    "The voxels measure {have} mm, the model was trained with {want} mm: metres were taken for mm, it seems."
                ),
                _("Correct the image's voxel size."),
            ),
            "huge": (
                _(
                    "The voxels measure {have} mm, the model was trained with {want} mm: microns were taken for mm, it seems."
                ),
                _("Correct the image's voxel size."),
            ),
            "merged": (
                _("The model works with voxels of {want} mm, of which the whole image has only {size}."),
                _("Choose a model for smaller voxels, or correct the image's voxel size."),
                _("Make the ROI larger."),
            ),
            "multiplied": (
                _(
                    "The model works with voxels of {want} mm; of these the image has {size}, {times} times its own number."
                ),
                _("Choose a model for larger voxels, or a finer scan."),
            ),
            "coarse": (
                _("The voxels measure {have} mm; the model was trained with {want} mm, so expect a poorer result."),
                _("Use a scan with smaller voxels, or another model."),
            ),
            "fine": (
                _("The voxels measure {have} mm; the model works with {want} mm and sees nothing finer."),
                _("Use a model for smaller voxels where that matters."),
            ),
            "large": (
                _("The region measures {have} mm; the model knows regions of up to {limit} mm."),
                _("Place an ROI around the structure."),
                _("Make the ROI smaller."),
            ),
            "small": (
                _("The region measures {have} mm; the model expects at least {limit} mm around the structure."),
                _("Use a scan that shows more."),
                _("Make the ROI larger."),
            ),
            "unsized": (
                _("The model works with pixels of {want} mm, but the size of this picture's pixels is not known."),
                _("Use an image with a known pixel size."),
            ),
        }

    @classmethod
    def told(cls, misfit):
        """The two sentences about a misfit: why, and what to do."""
        why, *remedies = cls.translations()[misfit.kind]
        return why.format(**misfit.values), remedies[-1 if misfit.has_roi else 0]
