#!/bin/bash
#SBATCH --job-name=us-i2v-table2
#SBATCH --array=1-16
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Trains the cells of Table 2, each job of the array one part of them:
#
#   job=$(sbatch --parsable examples/slurm/table2.sh -o table2 --videos busv --images busi)
#   sbatch --dependency="afterok:$job" --gpus=1 --wrap "us-i2v reproduce table2 -o table2 --videos busv --images busi --report"
#
# Finished cells are kept; a cell that another job works on is left to it. Count the array from 1.
set -euo pipefail

: "${SLURM_ARRAY_TASK_ID:?start this with sbatch, which makes the array}"

# Since Slurm 22.05 srun does not take over sbatch's --cpus-per-task.
srun --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  us-i2v reproduce table2 --cells "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
