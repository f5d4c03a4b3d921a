"""A conditional study as if every trial had been asked everything."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from optnas.answers import draw


def padded(trials: Sequence[FrozenTrial], seed: int = 0) -> list[FrozenTrial]:
    """The trials, with a random answer to each question that others were asked and they were not.

    Those answers change nothing, as those of `PaddedSampler` do not, so they are noise to whoever looks for
    what matters. Not for storing: the params are no longer those of an architecture.
    """
    asked: dict[str, BaseDistribution] = {}
    for trial in trials:
        asked |= trial.distributions
    rng = np.random.default_rng(seed)
    filled = []
    for trial in trials:
        missing = {name: d for name, d in asked.items() if name not in trial.params}
        other = copy.copy(trial)
        other.distributions = {**trial.distributions, **missing}
        other.params = {**trial.params, **{name: draw(d, rng) for name, d in missing.items()}}
        filled.append(other)
    return filled
