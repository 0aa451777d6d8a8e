"""What a forward pass costs, plain, attention and ProSMA, in 2D and 3D: what `prosma benchmark --only forward` measures.

python Testing/benchmarks/forward.py [--threads 1] [--json FILE]
"""

import sys

from prosma.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", "--only", "forward", *sys.argv[1:]]))
