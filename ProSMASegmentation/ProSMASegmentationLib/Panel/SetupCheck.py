import contextlib
import importlib.abc
import importlib.metadata
import importlib.util
import logging
import os
import platform
import shutil
import sys

import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Engine.EngineClient import EngineClient

TORCH_REQUIREMENT = ">=2.4"
SAFETENSORS_REQUIREMENT = "safetensors>=0.4"
BYTES_PER_GB = 1e9


class SetupCheck:
    """Says whether this computer can segment and with what, and installs what is missing."""

    def __init__(self, engine, library):
        self._engine = engine
        self._library = library

    def report(self):
        """Lines of text for a person, and for a question in the forum."""
        return "\n".join([*self._engineLines(), *self._packageLines(), *self._computerLines(), *self._modelLines()])

    @staticmethod
    def canInstallTorch():
        """Whether Slicer's PyTorch extension is there."""
        return importlib.util.find_spec("PyTorchUtils") is not None

    def install(self):
        """Install torch through the PyTorch extension, and safetensors, then start the engine afresh.

        :raises ProSMAError: ``no_torch``, with what to do.
        """
        try:
            import PyTorchUtils
        except ImportError as error:
            raise ProSMAError(
                "no_torch",
                _("PyTorch cannot be installed, because Slicer's extension 'PyTorch' is missing."),
                _("Install 'PyTorch' in the Extensions Manager, restart Slicer, and come back here."),
            ) from error
        self._engine.stop()  # files of packages that are in use cannot be replaced everywhere
        try:
            with _keptOut("torch", "torchvision"):
                PyTorchUtils.PyTorchUtilsLogic().installTorch(
                    askConfirmation=False, torchVersionRequirement=TORCH_REQUIREMENT
                )
            self._ensure([SAFETENSORS_REQUIREMENT])
        except Exception as error:
            logging.exception("ProSMA: installing PyTorch failed")
            raise ProSMAError(
                "no_torch",
                _("PyTorch could not be installed: {error}").format(error=error),
                _("Check the internet connection and the free disk space, and try again; the log has the details."),
            ) from error
        finally:
            self._engine.start()
        importlib.invalidate_caches()
        if not _isInstalled("torch"):
            raise ProSMAError("no_torch", _("PyTorch was not installed."), _("Click Install PyTorch to try again."))

    @classmethod
    def installTraining(cls, requirements):
        """Install what fine-tuning needs. :raises ProSMAError: ``no_training``, with what to do."""
        try:
            cls._ensure(requirements)
        except Exception as error:
            logging.exception("ProSMA: installing the packages for training failed")
            raise ProSMAError(
                "no_training",
                _("The packages for fine-tuning could not be installed: {error}").format(error=error),
                _("Check the internet connection and the free disk space, and try again; the log has the details."),
            ) from error

    @staticmethod
    def _ensure(requirements):
        try:
            from slicer import packaging
        except ImportError:  # before Slicer 5.12
            slicer.util.pip_install(" ".join(requirements))
            return
        if not packaging.pip_check(requirements):
            packaging.pip_ensure(requirements, prompt_install=False, requester="ProSMA")

    def _engineLines(self):
        ready = self._engine.ready
        if self._engine.state == EngineClient.STARTING:
            return [_("Engine: starting...")]
        if self._engine.state == EngineClient.OFF:
            return [_("Engine: not running; it starts when it is needed.")]
        lines = [
            _("Engine: running, process {pid}, ProSMA {version}").format(pid=ready["pid"], version=ready["prosma"])
        ]
        lines.append(_("PyTorch: {version}").format(version=ready.get("torch") or _("missing")))
        if self._engine.problem:
            problem = self._engine.problem
            lines.append(_("Problem: {text}").format(text=f"{problem['message']} {problem['remedy']}"))
        for device in ready.get("devices", []):
            usable = _("can be used") if device["usable"] else _("cannot be used: {why}").format(why=device["reason"])
            lines.append(_("Device {name} ({label}): {usable}").format(usable=usable, **_only(device, "name", "label")))
        return lines

    @staticmethod
    def _packageLines():
        names = ("numpy", "scipy", "safetensors", "SimpleITK")
        return [_("Packages: ") + ", ".join(f"{name} {_versionOf(name)}" for name in names)]

    @staticmethod
    def _computerLines():
        disk = shutil.disk_usage(slicer.app.temporaryPath).free / BYTES_PER_GB
        lines = [
            _("Computer: {system}, {cores} processor cores").format(system=platform.platform(), cores=os.cpu_count()),
            _("Slicer {slicer}, Python {python}").format(
                slicer=slicer.app.applicationVersion, python=sys.version.split()[0]
            ),
            _("Free disk space for temporary files: {disk:.1f} GB").format(disk=disk),
        ]
        if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
            memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / BYTES_PER_GB
            lines.append(_("Free memory: {memory:.1f} GB").format(memory=memory))
        return lines

    def _modelLines(self):
        lines = [
            _("Model {id} {version}: can be used").format(id=package.id, version=package.version)
            for package in self._library.packages
        ]
        return lines + [
            _("Model in {folder}: cannot be used: {why}").format(folder=package.folder.name, why=package.reason)
            for package in self._library.broken
        ]


@contextlib.contextmanager
def _keptOut(*names):
    """Let nothing import these packages into Slicer's process meanwhile.

    The PyTorch extension imports what it has installed, to return it: seconds and hundreds of MB for nothing, since the
    engine has a process of its own, and on Windows the files could not be replaced until Slicer ends.
    """
    guard = _Guard(names)
    sys.meta_path.insert(0, guard)
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in names:
            raise
    finally:
        sys.meta_path.remove(guard)


class _Guard(importlib.abc.MetaPathFinder):
    def __init__(self, names):
        self._names = names

    def find_spec(self, name, path=None, target=None):
        """Where a module is to be loaded from: here never."""
        if name in self._names:
            raise ModuleNotFoundError(f"{name} is not imported into Slicer's own process", name=name)


def _isInstalled(name):
    """Whether a package is there, without importing it."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _only(mapping, *keys):
    return {key: mapping[key] for key in keys}


def _versionOf(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return _("missing")
