"""A whole volume with ProSMA, MONAI and nnU-Net, side by side: what `prosma benchmark --only whole` measures.

python Testing/benchmarks/whole_volume.py [--full] [--shape 256 256 160] [--python INTERPRETER] [--json FILE]
"""

import sys

from prosma.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", "--only", "whole", *sys.argv[1:]]))
