"""Time and memory as volumes and classes grow: what `prosma benchmark --only growth` measures.

python Testing/benchmarks/growth.py [--full] [--json FILE]
"""

import sys

from prosma.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", "--only", "growth", *sys.argv[1:]]))
