#!/usr/bin/env bash
# Proof from a CUDA card in at most 8 minutes: tests, forward passes, a whole volume beside nnU-Net's predictor, training steps.
#
#   Testing/benchmarks/cuda.sh [OUT.json] [--device cpu] [--seconds 480]
#
# PYTHON names the interpreter (default: the repository's .venv, else python3); nnU-Net is measured where it has it. Each part
# has a limit of its own, and OUT.json holds what there is after each of them. Without a card nothing runs and the exit code is
# 2; --device cpu rehearses all of it on small sizes. 1: some part has a problem, which OUT.json names.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
exec env PYTHONPATH="$PWD/training:$PWD/Testing${PYTHONPATH:+:$PYTHONPATH}" "$python" Testing/benchmarks/cuda.py "$@"
