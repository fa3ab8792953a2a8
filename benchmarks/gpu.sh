#!/usr/bin/env bash
# Every check that needs a GPU, in one command and under ten minutes; on a machine without one it runs what it can and
# says what it left out.
#
#     benchmarks/gpu.sh [path/to/nanoGPT]
#
# PYTHON names the interpreter (default: .venv/bin/python where there is one, else python3). Everything goes to
# benchmarks/results/gpu/: summary.json {machine, seconds, checks {name: passed | failed | skipped, reason}}, and what
# each check wrote. Exit status 1 when a check failed.
set -u
cd "$(dirname "$0")/.."
nanogpt=${1:-}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
case $python in [!/]*/*) python=$PWD/$python ;; esac # the demo runs in another directory
out=benchmarks/results/gpu
mkdir -p "$out"
rm -f "$out"/*
started=$SECONDS
deadline=$((SECONDS + 570))
checks=()

note() { # name, result, reason
    checks+=("$1|$2|${3:-}")
    printf '== %-12s %s  %s\n' "$1" "$2" "${3:-}"
}

check() { # name, most seconds it may take, command…
    local name=$1 limit=$2 left=$((deadline - SECONDS))
    shift 2
    ((limit > left)) && limit=$left
    if ((limit < 10)); then
        note "$name" skipped "the ten minutes are used up"
        return
    fi
    printf '\n== %s\n' "$name"
    timeout -k 5 "$limit" "$@" 2>&1 | tee "$out/$name.log"
    local status=${PIPESTATUS[0]}
    case $status in
        0) note "$name" passed ;;
        124 | 137) note "$name" failed "took longer than $limit s" ;;
        *) note "$name" failed "exit status $status, see $out/$name.log" ;;
    esac
}

if [ "$("$python" -c 'import torch; print(torch.cuda.is_available())')" = True ]; then
    device=cuda
    nvidia-smi >"$out/nvidia-smi.txt" 2>&1 || true
    check tests 120 "$python" -m pytest -m gpu -q -p no:cacheprovider
    check step_speed 240 "$python" benchmarks/step_speed.py --device cuda --limit 75 --out "$out/step_speed.json"
    size="--device cuda --n-layer 12 --n-head 12 --n-embd 768 --block-size 1024 --micro-batch 8"
    size+=" --accumulation 2 --rounds 1 --warmup 5 --steps 20"
else
    device=cpu
    note tests skipped "torch finds no CUDA device"
    small="--device cpu --n-layer 2 --n-head 4 --n-embd 128 --block-size 128 --vocab-size 1000 --micro-batch 4"
    check step_speed 200 "$python" benchmarks/step_speed.py $small --steps 3 --warmup 1 --out "$out/step_speed.json"
    size="--device cpu --n-layer 2 --n-head 4 --n-embd 128 --block-size 128 --micro-batch 4"
    size+=" --rounds 1 --warmup 1 --steps 3"
fi
here=$(mktemp -d) # the whole journey, `train` and `sample` in it
check demo 180 env -C "$here" GANEUM_RESULTS="$here/results" "$python" -m ganeum demo --minutes 1.5
rm -rf "$here"
if [ -n "$nanogpt" ]; then
    check throughput 240 "$python" benchmarks/throughput.py --nanogpt "$nanogpt" $size --out "$out/throughput.json"
else
    note throughput skipped "no path to a nanoGPT clone was given"
fi
if [ "$device" = cpu ]; then
    check doctor 120 "$python" benchmarks/doctor_gpu.py --device cpu --out "$out/doctor.json"
else
    check doctor 90 "$python" benchmarks/doctor_gpu.py --out "$out/doctor.json"
    check plan_time 120 "$python" benchmarks/plan_time.py --device cuda --rounds 1 --out "$out/plan_time.json"
    check accuracy 240 "$python" benchmarks/memory_accuracy.py --device cuda --limit 225
    # last, because it takes what time is left
    check memory 300 "$python" benchmarks/memory.py --rounds 1 --steps 10 --warmup 3 --out "$out/memory.json"
fi

printf '%s\n' "${checks[@]}" | DEVICE=$device SECONDS_TAKEN=$((SECONDS - started)) "$python" -c '
import json, os, platform, sys, time
import torch
checks = {}
for line in sys.stdin.read().splitlines():
    name, result, reason = line.split("|", 2)
    checks[name] = {"result": result, "reason": reason}
gpu = torch.cuda.get_device_name() if os.environ["DEVICE"] == "cuda" else None
machine = {"gpu": gpu, "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
result = {"machine": machine, "seconds": int(os.environ["SECONDS_TAKEN"]), "date": time.strftime("%Y-%m-%d")}
print(json.dumps(result | {"checks": checks}, indent=2))
' >"$out/summary.json"
printf '\n'
cat "$out/summary.json"
! grep -q '"failed"' "$out/summary.json"
