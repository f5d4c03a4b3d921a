"""The winner of a search: rebuilt from storage, with the weights it was trained to, tested and retrained."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial
from torch import nn

from optnas import record
from optnas.estimation.run import Run
from optnas.objective import Objective
from optnas.search.luck import Leader, leaders, runs_anew
from optnas.search.study import check_values
from optnas.seeds import derive_seed, seed_everything

SHARE = 0.1
"""The share of a search's cost that a final may cost."""

FINALISTS = 5
"""The most trials that take part in a final."""

CHANCE = 0.1
"""A trial takes part in a final only with at least this probability of being the best."""

SURE = 0.95
"""If one trial is the best with at least this probability, there is no final."""


@dataclass(frozen=True)
class Best:
    """A finished trial and what can be done with it.

    Attributes:
        study: the study it belongs to.
        objective: how it was built and scored.
        trial: the trial itself; of a repeat (`twin_of`), the trial that was trained.
        expected: the score that it is expected to get when trained anew; None where that is not known.
        probability: that it is really the best of the study; where several are about equal, each has a part.
        scatter: by how much single trainings differ from what is expected of them: a standard deviation.
        near_best: probability that no other of the study is better by more than `scatter`. The last three
            are None where too few trials are complete to tell.

    Examples:
        >>> winner = optnas.best(study, objective)
        >>> winner.trial.params == study.best_params, winner.value == study.best_value
        (True, True)
    """

    study: optuna.Study
    objective: Objective
    trial: FrozenTrial
    expected: float | None = None
    probability: float | None = None
    scatter: float | None = None
    near_best: float | None = None

    @classmethod
    def of(cls, study: optuna.Study, objective: Objective, leader: Leader) -> Best:
        """From one of the leaders."""
        if math.isnan(leader.probability):
            return cls(study, objective, leader.trial)
        known = leader.expected, leader.probability, leader.scatter, leader.near_best
        return cls(study, objective, leader.trial, *known)

    @property
    def value(self) -> float:
        """The score it won the search with, of several objectives the first.

        Being the best of many, it is optimistic: see `retrain`.
        """
        return float(self.trial.values[0])

    @property
    def values(self) -> dict[str, float]:
        """Its value of each objective, by name."""
        return dict(zip(self.objective.values, self.trial.values, strict=True))

    @property
    def params(self) -> dict[str, Any]:
        """Every decision, of the space and beyond it."""
        return self.trial.params

    def model(self) -> nn.Module:
        """The network as it was when it got its score, in evaluation mode, on the CPU.

        Raises:
            FileNotFoundError: the weights are gone (only those of the best few trials are kept).
            NotImplementedError: the estimator keeps none.
            ParamsMismatchError: the space does not build the network again, or the task does not alter it
                as it did.
        """
        estimator = self.objective.estimator
        return estimator.trained(self.objective.build(self.trial), self.study, self.trial)

    def test(self) -> dict[str, float]:
        """Metrics of the trained network on the test data, which the search never saw.

        Raises:
            FileNotFoundError: as for `model`.
            UntestableError: there is no test data, or no `test_step`, or the estimator cannot test.
        """
        return self.objective.estimator.test(self.objective.build(self.trial), self.study, self.trial)

    def retrain(self, n_seeds: int = 3, max_epochs: int | None = None) -> list[dict[str, float]]:
        """Metrics, on validation and test data, of the network trained anew from `n_seeds` seeds.

        They are kept in the study: what was trained before is not trained again.
        """
        runs = record.retrained(self.study, self.trial.number, max_epochs)
        for i in range(len(runs), n_seeds):
            seed, origin = self.seed_of(i), record.origin(self.study)
            runs.append(train(self.objective, self.params, seed, max_epochs, origin=origin))
            record.write_retrained(self.study, self.trial.number, max_epochs, runs)
        return runs[:n_seeds]

    def seed_of(self, i: int) -> int:
        """The seed of the i-th retraining, the same for every network of the study, so that they pair."""
        return derive_seed(record.origin(self.study), "retrain", i)


def best(study: optuna.Study, objective: Objective, finalists: int = 1, n_seeds: int = 3) -> Best:
    """The best trial of a study: the one with the best expected score.

    The best of many single trainings owes its place partly to luck: a surrogate estimates how much, and
    whether another trial is expected to do better (`search.luck.leaders`). The result is one of the trials
    whose weights are kept, if any are. With `finalists` above 1, that many of the best are trained anew from
    `n_seeds` seeds (`Best.retrain` keeps them in the study), and the one with the best mean wins; ranked are
    the validation metrics that the search decided by, never those of the test. A trial whose score is one of
    weights that others trained (shared or inherited) is trained anew in any case, before it is called the
    best.

    Raises:
        ValueError: no trial is COMPLETE yet; `finalists` or `n_seeds` is less than 1; or the study has
            several objectives, of which no trial is the best in all: see `front` and `pick`.
        ParamsMismatchError: the study optimizes something else than the objective.

    Examples:
        >>> winner = optnas.best(study, objective)
        >>> winner.trial.number == study.best_trial.number
        True
    """
    check_values(study, objective)
    if len(study.directions) > 1:
        raise ValueError(
            f"Study {study.study_name!r} has {len(study.directions)} objectives, and no single best trial; "
            "take optnas.pick(optnas.front(study, objective)), or pick(..., limits={'flops': 2e6})."
        )
    if finalists < 1 or n_seeds < 1:
        raise ValueError(f"finalists={finalists} and n_seeds={n_seeds} must both be at least 1.")
    known = leaders(study, objective)
    if finalists == 1:
        # The winner must have weights: a network whose weights are deleted cannot be tested.
        known = [leader for leader in known if objective.estimator.has_trained(study, leader.trial)] or known
    found = [Best.of(study, objective, leader) for leader in known[:finalists]]
    if not found:
        reasons = [f"Trial {t.number}: {words}" for t in study.trials if (words := record.why(t))]
        raise ValueError(
            f"Study {study.study_name!r} has no COMPLETE trial yet. "
            + (reasons[-1] if reasons else "Run optnas.optimize(study, objective).")
        )
    if len(found) == 1 and record.WEIGHTS.of(found[0].trial) is None:
        return found[0]
    [(metric, direction)] = objective.values.items()
    means = [
        # Facts such as `n_params` do not change when a network is trained anew.
        statistics.fmean(run.get(metric, leader.value) for run in leader.retrain(n_seeds))
        for leader in found
    ]
    return found[means.index(max(means) if direction == "maximize" else min(means))]


def final(study: optuna.Study, objective: Objective, finalists: int | None = None) -> int:
    """Train the leaders anew that differ by no more than noise, until one is ahead or the budget is spent.

    The budget is a tenth of what the search has cost, and includes earlier trainings anew. The results are
    kept in the study, where `best` finds them.

    Args:
        finalists: the most trials that take part. Each of them is trained at least once, even if that costs
            more than the budget. None: all that may well be the best, as far as the budget suffices.

    Returns:
        The number of trainings.
    """
    longest, trials = objective.estimator.max_reports, study.get_trials(deepcopy=False)
    cost = record.n_reported(trials) / longest if longest else record.n_counted(trials)
    played = sum(len(kept["runs"]) for kept in record.all_retrained(study) if isinstance(kept["who"], int))
    most = max(int(SHARE * cost), finalists or 0) - played
    n_trained = 0
    while n_trained < most:
        known = leaders(study, objective)
        known = sorted(known, key=lambda leader: -leader.probability)[: finalists or FINALISTS]
        contenders = [leader for leader in known if leader.probability >= CHANCE]
        if len(contenders) < 2 or known[0].probability > SURE:
            break
        n_runs = [len(runs_anew(study, leader.trial)) for leader in contenders]
        next_one = contenders[n_runs.index(min(n_runs))]
        Best(study, objective, next_one.trial).retrain(min(n_runs) + 1)
        n_trained += 1
    return n_trained


def train(
    objective: Objective,
    params: dict[str, Any],
    seed: int,
    max_epochs: int | None = None,
    origin: int | str | None = None,
) -> dict[str, float]:
    """Train the network of `params` from scratch, outside any study.

    Args:
        max_epochs: number of epochs instead of the estimator's own; only for an estimator that has
            `with_max_epochs`.
        origin: of the study (`record.origin`) on whose split of the data to train.

    Returns:
        Its metrics, including those on test data if the estimator can `test` and has test data.

    Examples:
        >>> optnas.search.train(objective, study.best_params, seed=1)
        {'score': 0.99705}
    """
    estimator = objective.estimator
    if max_epochs is not None:
        estimator = estimator.with_max_epochs(max_epochs)
    trial = FixedTrial(params)
    record.SEED.write(trial, seed)
    if origin is not None:
        record.ORIGIN.write(trial, str(origin))
    seed_everything(seed)
    return dict(estimator.estimate_and_test(objective.build(trial), Run.of(trial)))


@dataclass(frozen=True)
class Mean:
    """A mean with its spread; prints as `0.9731 ± 0.0021`."""

    mean: float
    deviation: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Mean and sample standard deviation (NaN for a single value)."""
        spread = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), spread, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.deviation:.4f}" if self.n > 1 else f"{self.mean:.4f}"
