#!/bin/bash
# A search by eight workers on SLURM: sbatch studies/cluster/slurm.sh
# Submit it again at any time: workers join the search, or go on with what was interrupted. A job whose time is
# over, or that was preempted, comes back by itself.
#SBATCH --job-name=optnas
#SBATCH --array=1-8
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
# A minute and a half before the time is over, this script is told (see below). On preemption SLURM sends SIGTERM
# to the worker itself, if the partition has a GraceTime, and queues the job again.
#SBATCH --signal=B:USR1@90
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
    optnas worker studies/digits_cnn.py --study-name digits_cnn --trials 200 &
worker=$!

# The worker saves its training, queues its trial again and leaves; then the job queues itself again.
again=
trap 'again=yes; kill -TERM "$worker"' USR1
while true; do
    status=0
    wait "$worker" || status=$?  # a signal ends it early
    kill -0 "$worker" 2> /dev/null || break
done
if [[ $again ]]; then
    scontrol requeue "${SLURM_JOB_ID:?}"
fi
exit "$status"
