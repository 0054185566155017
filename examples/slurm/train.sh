#!/bin/bash
#SBATCH --job-name=us-i2v-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Trains one stage on all GPUs of the job:
#
#   sbatch examples/slurm/train.sh train-ldm my_clips --ae runs/ae -o runs/ldm --set optimiser.batch_size=64
#
# The run is continued if its folder holds a checkpoint, so that the same line serves after a stop. Two minutes before
# the job's time is over the processes get SIGTERM, and save. optimiser.batch_size must divide by the number of GPUs.
# Data and run folder must lie where all nodes see them.
set -euo pipefail

: "${SLURM_JOB_ID:?start this with sbatch}"
# `sed` reads all names; `head` would leave, and scontrol fail on the closed pipe.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
port=$((20000 + SLURM_JOB_ID % 20000))

# Since Slurm 22.05 srun does not take over sbatch's --cpus-per-task.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:$port" \
  -m us_i2v "$@" --resume
