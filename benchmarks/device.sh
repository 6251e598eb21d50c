#!/usr/bin/env bash
# Everything that only a GPU can tell, in at most eight minutes, on a machine that has torch,
# transformers and safetensors; no network, nothing to install:
#
#   benchmarks/device.sh [FOLDER]     parity, seconds per step, one training step; tables of
#                                     docs/performance.md, and everything else into FOLDER
#                                     ($OUT, or runs/device)
#   benchmarks/device.sh --dry [FOLDER]   rehearsed on a CPU with small sizes, docs untouched
#
# FOLDER: parity.json, steps.json, training.json, device.log, and the page performance.md with its
# new tables. A part that fails or outlasts its time does not end the others; the exit status is 1
# then.
set -u
cd "$(dirname "$0")/.." || exit 1
dry=()
limit() { echo "$1"; }
if [ "${1:-}" = --dry ]; then
    dry=(--dry); shift
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # small networks, on a machine at work
    limit() { echo $((10 * $1)); }
fi
folder=${1:-${OUT:-runs/device}}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# recordings and training leave pieces of many sizes behind
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}
mkdir -p "$folder" || exit 1
: > "$folder/device.log"

failed=
part() {  # name, seconds, script
    echo "== $1" | tee -a "$folder/device.log"
    begin=$SECONDS
    timeout --kill-after=5 "$(limit "$2")" "$python" "benchmarks/$3" "${dry[@]}" --json "$folder/$1.json" \
        2>&1 | tee -a "$folder/device.log"
    code=${PIPESTATUS[0]}
    [ "$code" = 124 ] && echo "$1: stopped after its $2 s" | tee -a "$folder/device.log"
    [ "$code" = 0 ] || failed="$failed $1"
    echo "== $1: exit status $code, $((SECONDS - begin)) s" | tee -a "$folder/device.log"
}
command -v nvidia-smi > /dev/null && nvidia-smi 2>&1 | tee -a "$folder/device.log"
part steps 220 gpu_steps.py
part parity 120 device_parity.py
part training 130 device_training.py
cp docs/performance.md "$folder/performance.md"
[ -z "$failed" ] || { echo "failed:$failed" | tee -a "$folder/device.log" >&2; exit 1; }
