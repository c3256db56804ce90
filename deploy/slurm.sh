#!/bin/bash
# A Slurm array without a Ray cluster: each task is its own driver on one node, with its own shards.
# Preempted tasks are requeued and continue from what the store holds.
#   sbatch --array=0-31 deploy/slurm.sh s3://bucket/objects.parquet s3://bucket/dataset 804
#SBATCH --job-name=gaussianverse
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus=1
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

manifest=${1:?manifest}
out=${2:?output}
shards=${3:?number of shards of the manifest}

count=${SLURM_ARRAY_TASK_COUNT:?submit with --array}
first=$((SLURM_ARRAY_TASK_ID * shards / count))
last=$(((SLURM_ARRAY_TASK_ID + 1) * shards / count - 1))
if ((last < first)); then
    echo "no shards for task ${SLURM_ARRAY_TASK_ID}"
    exit 0
fi
exec gaussianverse fit-shard --manifest "$manifest" --out "$out" --profile paper \
    --shards "${first}-${last}" --workers "${SLURM_CPUS_PER_TASK:-8}"
