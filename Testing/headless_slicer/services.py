"""Small modules of Slicer's Python that scripted modules import: i18n, packaging, SampleData."""

import logging
import os
import pathlib
import shutil
import types
import urllib.parse

import slicer


def translate(context, text):
    """Slicer without a language pack: the text itself."""
    return text


def tr(text):
    return text


def i18nModule():
    return _module("slicer.i18n", tr=tr, translate=translate, getContext=lambda name: os.path.splitext(name)[0])


def _module(name, **contents):
    module = types.ModuleType(name)
    vars(module).update(contents)
    return module


def pip_install(requirements, *_more, **_keywords):
    """Tests install nothing."""
    raise RuntimeError(f"pip_install({requirements!r}) was called; headless_slicer installs nothing")


def pip_check(requirements=None, **_keywords):
    """Whether requirements such as 'name>=1' are met here."""
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    for text in [requirements] if isinstance(requirements, str) else requirements:
        wanted = Requirement(str(text))
        try:
            if not wanted.specifier.contains(version(wanted.name), prereleases=True):
                return False
        except PackageNotFoundError:
            return False
    return True


def packagingModule():
    return _module("slicer.packaging", pip_install=pip_install, pip_uninstall=pip_install, pip_check=pip_check)


def _listed(value):
    return list(value) if isinstance(value, list | tuple) else [value]


class SampleDataSource:
    """One or several files with the names of the nodes they become."""

    def __init__(
        self,
        sampleName=None,
        sampleDescription=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        checksums=None,
        loadFiles=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileType=None,
        loadFileProperties=None,
    ):
        self.sampleName, self.sampleDescription = sampleName, sampleDescription or sampleName
        self.uris = _listed(uris)
        fields = {"fileNames": fileNames, "nodeNames": nodeNames, "checksums": checksums}
        fields |= {"loadFiles": loadFiles, "loadFileType": loadFileType}
        for name, value in fields.items():
            wanted = (
                _listed(value) if value is not None and not _isOneFor(value, self.uris) else [value] * len(self.uris)
            )
            if len(wanted) != len(self.uris):
                raise ValueError(f"sample '{sampleName}': {name} has {len(wanted)} entries for {len(self.uris)} URIs")
            setattr(self, name, wanted)
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        self.loadFileProperties = loadFileProperties or {}

    def __eq__(self, other):
        return isinstance(other, SampleDataSource) and vars(self) == vars(other)

    __hash__ = None


def _isOneFor(value, uris):
    return isinstance(value, str) and len(uris) > 1


class SampleDataLogic:
    """Registers sample data and loads it from local files (file:// addresses or paths)."""

    def __init__(self, logMessage=None):
        self._log = logMessage or (lambda text, level=logging.INFO: logging.log(level, text))

    def logMessage(self, message, logLevel=logging.INFO):
        self._log(message, logLevel)

    @staticmethod
    def _sources():
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        return slicer.modules.sampleDataSources

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileType="VolumeFile",
        loadFiles=None,
        loadFileProperties=None,
        checksums=None,
    ):
        source = SampleDataSource(
            sampleName,
            None,
            uris,
            fileNames,
            nodeNames,
            checksums,
            loadFiles,
            customDownloader,
            thumbnailFileName,
            loadFileType,
            loadFileProperties,
        )
        if not SampleDataLogic.isSampleDataSourceRegistered(category, source):
            SampleDataLogic._sources().setdefault(category, []).append(source)

    @staticmethod
    def sampleDataSourcesByCategory(category=None):
        sources = SampleDataLogic._sources()
        return sources if category is None else sources.get(category, [])

    @staticmethod
    def isSampleDataSourceRegistered(category, source):
        return source in SampleDataLogic._sources().get(category, [])

    def sourceForSampleName(self, sampleName):
        everything = [source for sources in self._sources().values() for source in sources]
        return next((each for each in everything if each.sampleName == sampleName), None)

    def downloadSample(self, sampleName):
        return self.downloadSamples(sampleName)[0]

    def downloadSamples(self, sampleName):
        source = self.sourceForSampleName(sampleName)
        if source is None:
            raise ValueError(f"there is no sample named '{sampleName}'")
        return self.downloadFromSource(source)

    def downloadFromSource(self, source, maximumAttemptsCount=3):
        if source.customDownloader:
            return source.customDownloader(source)
        found = [self._load(source, index) for index in range(len(source.uris))]
        return [each for each in found if each is not None]

    def _load(self, source, index):
        """The node or path; None, with a line in the log, for a file that is not what it should be: Slicer goes on."""
        try:
            path = self._fetch(source.uris[index], source.fileNames[index], source.checksums[index])
        except ValueError as error:
            self.logMessage(f"Load failed: {error}", logging.ERROR)
            return None
        if source.loadFiles[index] is False:
            return path
        properties = {**source.loadFileProperties, "name": source.nodeNames[index]}
        return slicer.util.loadNodeFromFile(path, source.loadFileType[index] or "VolumeFile", properties)

    @staticmethod
    def _fetch(uri, fileName, checksum):
        parts = urllib.parse.urlparse(uri)
        if parts.scheme not in ("", "file"):
            raise RuntimeError(f"headless_slicer downloads nothing: {uri}")
        target = pathlib.Path(slicer.app.cachePath) / fileName
        shutil.copyfile(urllib.parse.unquote(parts.path), target)
        if checksum:
            algorithm, digest = slicer.util.extractAlgoAndDigest(checksum)
            if slicer.util.computeChecksum(algorithm, str(target)) != digest:
                raise ValueError(f"{uri} does not have the checksum {checksum}")
        return str(target)


def downloadSample(sampleName):
    return SampleDataLogic().downloadSample(sampleName)


def downloadSamples(sampleName):
    return SampleDataLogic().downloadSamples(sampleName)


def sampleDataModule():
    return _module(
        "SampleData",
        SampleDataLogic=SampleDataLogic,
        SampleDataSource=SampleDataSource,
        downloadSample=downloadSample,
        downloadSamples=downloadSamples,
    )
