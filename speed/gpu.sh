#!/bin/sh
# Every measurement that needs a GPU, in at most nine minutes: sh speed/gpu.sh [options of speed/gpu.py]
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
exec "$python" speed/gpu.py "$@"
