#!/bin/sh
# The tests that need an accelerator, then the benchmark of it: at most nine and a half minutes.
#   sh benchmarks/on_a_device.sh [folder]        (default: $OUT, else benchmarks/results)
# Needs torch with CUDA, transformers, diffusers (a wheel suffices), hypothesis, pytest,
# lazy_loader, tqdm, pillow, numpy and safetensors beside the package; `python3`, or $PYTHON. The
# network is never used. What is missing is named first; the benchmark runs whatever the tests say.
# Written: device.txt, gpu_tests.txt, accelerator.txt, accelerator_<device>.json (after each loop).
set -u
cd "$(dirname "$0")/.." || exit 1
folder=${1:-${OUT:-benchmarks/results}}
mkdir -p "$folder" || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
python=${PYTHON:-python3}
minutes=${MINUTES:-5.5} seconds=${TEST_SECONDS:-195}

"$python" - <<'CHECK' 2>&1 | tee "$folder/device.txt"
import importlib, platform

print("python", platform.python_version())
names = "torch transformers diffusers hypothesis pytest lazy_loader tqdm PIL numpy safetensors"
for name in names.split():
    try:
        print(name, getattr(importlib.import_module(name), "__version__", "is there"))
    except Exception as error:
        print(f"MISSING {name}: {type(error).__name__}: {error}")
import torch

there = torch.cuda.is_available()
print("device", torch.cuda.get_device_name() if there else "none: everything below is on the CPU")
CHECK

# the files with such tests, not the whole suite, which takes a minute to collect
timeout -k 10 "$seconds" "$python" -m pytest -q -m "gpu and not slow" -rfE -p no:cacheprovider \
  --maxfail=25 --durations=5 --continue-on-collection-errors \
  $(grep -lE 'mark\.gpu|\(accelerator[,)]' tests/test_*.py) >"$folder/gpu_tests.txt" 2>&1
tests=$?
tail -n 40 "$folder/gpu_tests.txt"
[ $tests -eq 124 ] && echo "the tests took longer than $seconds seconds and were cut"

# it ends itself 30 seconds after its minutes, whatever it is at; this is for what stops even that
cut=$(awk "BEGIN { print int(60 * $minutes + 45) }")
timeout -k 10 "$cut" "$python" benchmarks/accelerator.py --minutes "$minutes" --out "$folder" \
  ${SIZE:+--size "$SIZE"} 2>&1 | tee "$folder/accelerator.txt"
ls "$folder"/accelerator_*.json >/dev/null 2>&1 || echo "the benchmark ended before its first result"
ls -l "$folder"
exit $tests
