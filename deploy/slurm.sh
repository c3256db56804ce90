#!/bin/bash
# A Slurm array without a Ray cluster: each task is its own driver on one node, with its own shards. A task that is
# preempted, or that comes to the end of its time, is requeued and continues from what the store holds.
#   sbatch --array=0-31 --gpus=1 deploy/slurm.sh s3://bucket/objects.parquet s3://bucket/dataset 804 --profile fast
# Manifest, output, number of shards of the manifest, and options of `fit-shard`. docs/clusters.md shows each step.
#SBATCH --job-name=gaussianverse
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -euo pipefail

manifest=${1:?manifest}
out=${2:?output}
shards=${3:?number of shards of the manifest}
shift 3

count=${SLURM_ARRAY_TASK_COUNT:?submit with --array}
first=$((SLURM_ARRAY_TASK_ID * shards / count))
last=$(((SLURM_ARRAY_TASK_ID + 1) * shards / count - 1))
if ((last < first)); then
    echo "no shards for task ${SLURM_ARRAY_TASK_ID}"
    exit 0
fi

# a warning that comes before there is anything to end
trap : USR1
gaussianverse fit-shard --manifest "$manifest" --out "$out" --shards "${first}-${last}" --no-report \
    --workers "${SLURM_CPUS_PER_TASK:-8}" --events "events/${SLURM_ARRAY_JOB_ID:-0}_${SLURM_ARRAY_TASK_ID}.jsonl" \
    "$@" &
driver=$!
# five minutes before the time limit: end in order, and come back
out_of_time=
trap 'out_of_time=1; kill -TERM "$driver"' USR1
# Slurm sends it to the driver too, which ends in order
trap : TERM
while kill -0 "$driver" 2>/dev/null; do wait "$driver" || true; done
code=0
wait "$driver" || code=$?
if [ -n "$out_of_time" ] && ((code == 143)); then
    echo "out of time: requeued"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
