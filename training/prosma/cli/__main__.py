"""`python -m prosma.cli`."""

import sys

from .app import main

sys.exit(main())
