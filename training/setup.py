"""Puts the bundled models of a checkout into what is built from it, so that an installed `prosma` has them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODELS = Path(__file__).resolve().parent.parent / "ProSMASegmentation" / "Resources" / "Models"


class BuildWithModels(build_py):
    def run(self):
        built = Path(self.build_lib, "prosma")
        shutil.rmtree(built, ignore_errors=True)  # files that an earlier build left and that are no more
        super().run()
        if MODELS.is_dir() and not self.editable_mode:
            shutil.copytree(MODELS, built / "bundled_models")


setup(cmdclass={"build_py": BuildWithModels})
