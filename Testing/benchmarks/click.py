"""A cold and a warm click through the worker process: what `prosma benchmark --only click` measures.

python Testing/benchmarks/click.py [--full] [--json FILE]
"""

import sys

from prosma.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", "--only", "click", *sys.argv[1:]]))
