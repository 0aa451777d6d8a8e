"""`python -m prosma.cli`, as Slicer starts it."""

import os
import sys

from .app import main

os.environ.pop("ITK_AUTOLOAD_PATH", None)  # Slicer's image plug-ins, which would crash SimpleITK here
sys.exit(main())
