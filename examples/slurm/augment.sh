#!/bin/bash
#SBATCH --job-name=us-i2v-augment
#SBATCH --ntasks=16
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=2
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Makes a data set of clips with all tasks of the job:
#
#   sbatch examples/slurm/augment.sh my_stills my_clips --clips-per-image 4
#
# The tasks talk through files in the output folder, which all must see; no ports are opened. A task that dies does not
# end the others: task 0 makes what it has left. The same line continues after a stop.
set -euo pipefail

: "${SLURM_JOB_ID:?start this with sbatch}"

# --gpus-per-task shows each task its own GPU as number 0, so LOCAL_RANK stays 0.
# Since Slurm 22.05 srun does not take over sbatch's --cpus-per-task.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --wait=0 \
  bash -c 'RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=0 exec us-i2v augment "$@"' augment "$@"
