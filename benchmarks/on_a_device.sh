#!/bin/sh
# The tests that need an accelerator, then the benchmark of it: at most nine minutes, three files.
#   sh benchmarks/on_a_device.sh [folder]        (default: $OUT, else benchmarks/results)
# Needs torch, diffusers, hypothesis and pytest beside the package; the network is never used.
set -u
cd "$(dirname "$0")/.." || exit 1
folder=${1:-${OUT:-benchmarks/results}}
mkdir -p "$folder"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
python=${PYTHON:-python3}
timeout "${TEST_SECONDS:-150}" "$python" -m pytest -q -m gpu -rfE -p no:cacheprovider \
  --maxfail=25 --durations=5 >"$folder/gpu_tests.txt" 2>&1
tests=$?
tail -n 40 "$folder/gpu_tests.txt"
"$python" benchmarks/accelerator.py --minutes "${MINUTES:-6}" --out "$folder" ${SIZE:+--size "$SIZE"} \
  2>&1 | tee "$folder/accelerator.txt"
exit $tests
