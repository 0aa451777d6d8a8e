import json
import os
import re
import shutil
import time
from pathlib import Path

from slicer.i18n import tr as _

from prosma.files import write_text
from prosma.image.constants import CHANNEL
from ProSMASegmentationLib.Base import OwnedFolder
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

ENDING = ".nii.gz"
IMAGES, LABELS, RECORDS = "imagesTr", "labelsTr", "records"
DESCRIPTION = "dataset.json"
WRITING, WHOLE = ".saving-", ".saved-"  # folders of cases that are not in their place yet
HOURS_UNTIL_ABANDONED = 24  # folders that another computer writes


class TrainingFolder:
    """Corrected cases on disk, as nnU-Net has its raw data sets: imagesTr, labelsTr, dataset.json; and records.

    A case is first written whole into a folder of its own, and then moved to its place. If that is interrupted, the next
    one who opens the folder brings it to its end, so there never is a part of a case.

    :param path: the folder, which need not exist yet.
    """

    def __init__(self, path):
        if not str(path).strip():
            raise ProSMAError(
                "bad_folder", _("No folder for training cases is chosen."), _("Choose one, for example a new one.")
            )
        self.path = Path(path).expanduser().absolute()
        if self.path.exists() and not self.path.is_dir():
            self._refuse(_("'{path}' is a file, not a folder.").format(path=self.path))

    # ---- what is there

    def cases(self):
        """Names of the cases, which have images and labels, in alphabetical order."""
        names = {_caseOf(path) for path in self._files(IMAGES)} - {None}
        return sorted(name for name in names if self.labels(name).is_file())

    def lastCase(self):
        """The name of the case that was saved last, or None."""
        names = self.cases()
        return max(names, key=lambda name: self.labels(name).stat().st_mtime) if names else None

    def images(self, name):
        """The files of a case's channels, in order."""
        return sorted(path for path in self._files(IMAGES) if _caseOf(path) == name)

    def labels(self, name):
        """The file of a case's label map."""
        return self.path / LABELS / f"{name}{ENDING}"

    def isFree(self, name):
        """Whether no case has this name, nor slices of one; some file systems know no upper and lower case."""
        stems = [_stem(path) for path in self._files(IMAGES)]
        taken = {match["case"] if (match := CHANNEL.fullmatch(stem)) else stem for stem in stems}
        taken |= {_stem(path) for part in (LABELS, RECORDS) for path in self._files(part)}
        slices = re.compile(re.escape(name) + r"(_s\d+)?", re.IGNORECASE)
        return not any(slices.fullmatch(other) for other in taken)

    def freeName(self, name):
        """The name itself, or with the next number that makes it a new one."""
        candidate, number = name, 2
        while not self.isFree(candidate):
            candidate, number = f"{name}_{number}", number + 1
        return candidate

    def _files(self, part):
        folder = self.path / part
        return list(folder.iterdir()) if folder.is_dir() else []

    # ---- what the cases are of

    def description(self):
        """The content of dataset.json; empty where there is none. :raises ProSMAError: ``bad_folder``."""
        path = self.path / DESCRIPTION
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            self._refuse(_("'{path}' cannot be read: {error}.").format(path=path, error=error))
        if not isinstance(content, dict) or not isinstance(content.get("labels", {}), dict):
            self._refuse(_("'{path}' does not describe a data set as nnU-Net has them.").format(path=path))
        return content

    def check(self, package):
        """:raises ProSMAError: ``bad_folder``, if it holds cases that cannot go together with those of this model."""
        found = self.description()
        wanted = descriptionFor(package)
        if not found:
            return
        if found.get("file_ending", ENDING) != ENDING:
            self._refuse(
                _("The images in '{path}' end with '{ending}', but cases are saved as '{own}'.").format(
                    path=self.path, ending=found["file_ending"], own=ENDING
                )
            )
        channels = found.get("channel_names") or found.get("modality") or wanted["channel_names"]
        if len(channels) != len(wanted["channel_names"]):
            self._refuse(
                _("The cases in '{path}' have {have} channels, the model '{name}' has {want}.").format(
                    path=self.path, have=len(channels), name=package.name, want=len(wanted["channel_names"])
                )
            )
        have, want = (_byName(each.get("labels", wanted["labels"])) for each in (found, wanted))
        if have != want:
            other = ", ".join(f"{name} = {value}" for name, value in have.items())
            own = ", ".join(f"{name} = {value}" for name, value in want.items())
            self._refuse(
                _("The cases in '{path}' have other labels ({other}) than the model '{name}' ({own}).").format(
                    path=self.path, other=other, name=package.name, own=own
                )
            )

    def _refuse(self, why):
        raise ProSMAError("bad_folder", why, _("Choose another folder."))

    # ---- saving

    def newStage(self, package):
        """A folder to write cases into, in the same layout; it becomes part of this one by ``take``."""
        self.path.mkdir(parents=True, exist_ok=True)
        stage = OwnedFolder.newFolder(WRITING, self.path)
        for part in (IMAGES, LABELS, RECORDS):
            (stage / part).mkdir()
        write_text(stage / DESCRIPTION, _asText(descriptionFor(package)))
        return stage

    def take(self, stage):
        """Move the cases of a finished stage to their places."""
        whole = stage.with_name(stage.name.replace(WRITING, WHOLE, 1))
        os.rename(stage, whole)
        self._takeWhole(whole)

    def finishInterrupted(self):
        """Bring to its end what was interrupted: whole cases are taken, the beginnings of others go."""
        for stage in self.path.glob(f"{WHOLE}*"):
            self._takeWhole(stage)
        oldest = time.time() - HOURS_UNTIL_ABANDONED * 3600
        for stage in self.path.glob(f"{WRITING}*"):
            abandoned = OwnedFolder.isAbandoned(stage, WRITING)
            if abandoned or (abandoned is None and stage.stat().st_mtime < oldest):
                shutil.rmtree(stage, ignore_errors=True)

    def _takeWhole(self, stage):
        """The images come last: without labels they would be a fault, labels without images are nothing.

        Where the description is gone, all had been moved, and only the removal of the stage was cut off.
        """
        if (stage / DESCRIPTION).is_file():
            for part in (RECORDS, LABELS, IMAGES):
                (self.path / part).mkdir(exist_ok=True)
                for file in sorted((stage / part).glob("*")):
                    os.replace(file, self.path / part / file.name)
            new = json.loads((stage / DESCRIPTION).read_text(encoding="utf-8"))
            description = {**new, **self.description(), "numTraining": len(self.cases())}
            write_text(self.path / DESCRIPTION, _asText(description))
        shutil.rmtree(stage, ignore_errors=True)


def descriptionFor(package):
    """What dataset.json says of cases of this model."""
    return {
        "name": package.name,
        "channel_names": {str(number): channel["name"] for number, channel in enumerate(package.channels)},
        "labels": {"background": 0, **{label["name"]: label["value"] for label in package.labels}},
        "numTraining": 0,
        "file_ending": ENDING,
    }


def _caseOf(path):
    """The case that an image file is a channel of, or None."""
    match = CHANNEL.fullmatch(path.name.removesuffix(ENDING)) if path.name.endswith(ENDING) else None
    return match["case"] if match else None


def _stem(path):
    """The name of a file without its endings."""
    return path.name.split(".")[0]


def caseName(text):
    """A text as the name of a file on every system: letters, digits, '-' and '_'."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_-") or "case"


def _byName(labels):
    """Values by name, without the background; from today's form {name: value} or the older one {value: name}."""
    if labels and all(key.isdigit() for key in labels):
        labels = {str(name): int(key) for key, name in labels.items()}
    return {name.casefold(): value for name, value in labels.items() if value != 0}


def _asText(content):
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
