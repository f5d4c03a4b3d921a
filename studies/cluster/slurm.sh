#!/bin/bash
# A search by eight workers on SLURM: sbatch studies/cluster/slurm.sh
# Submit it again at any time: workers join the search, or go on with what was interrupted.
#SBATCH --job-name=optnas
#SBATCH --array=1-8
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
# A minute before the time is over, what srun has started gets SIGTERM: the worker queues its trial again.
# On preemption SLURM sends the same, if the partition has a GraceTime.
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
# For an accelerator each: --gpus-per-task=1.
set -euo pipefail

# From the environment of whoever submits, which sbatch passes on. The password is in ~/.pgpass (mode 600),
# where Postgres clients look for it.
: "${OPTNAS_STORAGE:?export OPTNAS_STORAGE=postgresql://user@host/database}"
export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"

# A folder that all nodes share: an interrupted trial goes on from its last epoch on any of them.
cd "$SLURM_SUBMIT_DIR"
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    optnas worker studies/digits_cnn.py --study-name digits_cnn --trials 200
