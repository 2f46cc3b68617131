#!/usr/bin/env bash
# Checks, times and profiles the kernels on the GPU of this machine, in about six minutes after the
# build:
#
#   benches/card.sh FOLDER [--peers]
#
# FOLDER gets card.txt (card, driver, commit), check.log, times.jsonl, explain.txt, energy.txt, with
# --peers peers.json and peers.txt, and profile.csv where Nsight Compute (ncu) is installed. What
# fails is said and ends the script: times of kernels that compute something else are worth nothing.
#
# AMATCH names a program to use instead of building one, SECONDS_EACH how long each figure is
# measured (0.5).
set -euo pipefail
out=$(mkdir -p "${1:?usage: benches/card.sh FOLDER [--peers]}" && cd "$1" && pwd)
peers=${2:-}
cd "$(dirname "$0")/.."
each=${SECONDS_EACH:-0.5}

{
    date -u +'%Y-%m-%d %H:%M UTC'
    git rev-parse HEAD
    nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,memory.total,power.limit --format=csv
} | tee "$out/card.txt"

if [ -z "${AMATCH:-}" ]; then
    AMATCH_CUDA_ARCHS=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
    export AMATCH_CUDA_ARCHS AMATCH_CUDA=on
    cargo build --release
    AMATCH=target/release/amatch
fi

# Derivatives of all precisions against f64, and 200 steps beside the CPU.
tests/run --gpu --test cuda -- agree_with_f64 follows_the_cpu > "$out/check.log" 2>&1 ||
    { tail -20 "$out/check.log" >&2; exit 1; }

bench() { "$AMATCH" bench "$1" --rows "$2" --device cuda --precision "$3" --seconds "$each" --json; }
for precision in bf16 f16; do
    for workload in hydrogen hydrogen-regression embryoid embryoid-regression entropic-hydrogen \
        entropic-hydrogen-exact toy2d wide; do
        bench "$workload" 65536 "$precision"
    done
    bench hydrogen 1000 "$precision"
    bench toy2d 4096 "$precision"
    bench embryoid 512 "$precision"
    bench sampling-hydrogen 200000 "$precision"
    bench sampling-toy2d 1000000 "$precision"
done | tee "$out/times.jsonl"
for precision in tf32 f32; do
    bench hydrogen 65536 "$precision"
done | tee -a "$out/times.jsonl"
for workload in hydrogen toy2d wide sampling-hydrogen; do
    echo "$workload"
    "$AMATCH" bench "$workload" --rows 65536 --device cuda --explain
done > "$out/explain.txt"

# Energy of a step: power while steps of the hydrogen example are measured for ten seconds.
nvidia-smi --query-gpu=power.draw --format=csv,noheader,nounits --loop-ms=100 > "$out/power.txt" &
meter=$!
step=$("$AMATCH" bench hydrogen --rows 1000 --device cuda --precision bf16 --seconds 10 --json)
kill "$meter"
python3 - "$out/power.txt" "$step" <<'PYTHON' | tee "$out/energy.txt"
import json, sys

watts = [float(line) for line in open(sys.argv[1]) if line.strip()]
busy = sorted(watts)[len(watts) // 2]
seconds = json.loads(sys.argv[2])["seconds_per_step"]
print(f"hydrogen, 1000 rows, bf16: {seconds * 1e3:.4f} ms a step at {busy:.0f} W (median): {busy * seconds * 1e3:.3f} mJ")
PYTHON

if [ "$peers" = --peers ]; then
    python3 benches/peers.py --device cuda --precision bf16 --rows 65536 --seconds 0.3 --out "$out/peers.json" |
        tee "$out/peers.txt"
fi
if command -v ncu >/dev/null; then
    ncu --csv --set full --launch-skip 20 --launch-count 12 "$AMATCH" bench hydrogen --rows 65536 --device cuda \
        --precision bf16 --seconds 0.2 > "$out/profile.csv"
fi
