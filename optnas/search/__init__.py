"""Searches: studies, the loop over trials, workers, recovery, and the winner."""

from optnas.errors import SearchFailedError
from optnas.record import counts
from optnas.search.best import Best, best, train
from optnas.search.fits import check_fits
from optnas.search.optimize import optimize
from optnas.search.study import create_study

__all__ = ["Best", "SearchFailedError", "best", "check_fits", "counts", "create_study", "optimize", "train"]
