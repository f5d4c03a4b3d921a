#!/bin/bash
# A search by one worker on each of several machines: studies/cluster/ssh.sh one.example.org two.example.org
# Every machine has this repository, with its environment in .venv, in the folder ~/optnas. Workers outlive
# this script and its connections; kill one with `ssh HOST 'kill $(cat optnas/worker.pid)'`: it queues its
# trial again, for the others or for later.
set -euo pipefail

# The password is in ~/.pgpass (mode 600) of every machine, where Postgres clients look for it.
: "${OPTNAS_STORAGE:?export OPTNAS_STORAGE=postgresql://user@host/database}"
(($#)) || { echo "usage: $0 HOST..." >&2; exit 2; }

for host in "$@"; do
    ssh "$host" "cd optnas && export OPTNAS_STORAGE=$(printf %q "$OPTNAS_STORAGE") && { \
        nohup .venv/bin/optnas worker studies/digits_cnn.py --study-name digits_cnn --trials 200 \
        < /dev/null > worker.log 2>&1 & echo \$! > worker.pid; }"
done
