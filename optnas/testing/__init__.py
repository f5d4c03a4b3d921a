"""Conformance checks for what users write: call them from your own tests."""

from optnas.errors import ConformanceError
from optnas.testing.estimators import check_estimator
from optnas.testing.samplers import check_sampler
from optnas.testing.search import Finding, check_search
from optnas.testing.spaces import check_space

__all__ = ["ConformanceError", "Finding", "check_estimator", "check_sampler", "check_search", "check_space"]
