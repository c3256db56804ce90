#!/usr/bin/env bash
# The GPU benchmark on a bare machine: one with a GPU, Python 3.12, torch for CUDA, nvcc and g++, and no network.
#
#   bash bench/gpu/machine.sh pack FOLDER            where there is a package index: wheels that such a machine lacks
#   bash bench/gpu/machine.sh run FOLDER [ARGS ..]   there, in a copy of this checkout: install, compile, measure
#
# FOLDER is inside the checkout, so that it travels with it. ARGS are those of `python -m bench.gpu`.
set -euo pipefail
cd "$(dirname "$0")/../.."
verb=${1:?pack or run} wheels=${2:?a folder for wheels}
shift 2

# What the benchmark imports beside what images with torch and scientific packages have.
PACKAGES="gsplat lpips pytorch-msssim"

case $verb in
pack)
    mkdir -p "$wheels"
    for name in $PACKAGES; do
        python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
            --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --dest "$wheels" \
            "$(grep -i "^$name==" constraints.txt)"
    done
    du -sh "$wheels"
    ;;
run)
    site=$(mktemp -d)
    python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl
    # gsplat's kernels are compiled by the benchmark's first section
    python3 setup.py --quiet build_ext --inplace
    export PYTHONPATH="$site:$PWD" OMP_NUM_THREADS=1 MAX_JOBS="${MAX_JOBS:-$(nproc)}"
    nvidia-smi -L || echo "no nvidia-smi"
    python3 -m bench.gpu "$@"
    ;;
*)
    echo "error: $verb is neither pack nor run" >&2
    exit 2
    ;;
esac
