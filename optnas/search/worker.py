"""`python -m optnas.search.worker`: what `optimize(..., n_workers=...)` starts; reads its job from stdin."""

import sys

from optnas.search.workers import run_worker

if __name__ == "__main__":
    sys.exit(run_worker())
