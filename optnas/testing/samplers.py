"""Conformance of a sampler with what a long, interrupted, parallel search on a conditional space needs.

Optuna's own `optuna.testing.pytest_samplers` checks single answers; these checks run small studies.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from optnas.answers import contains
from optnas.strategy.base import TrialSampler
from optnas.trial import Trial, replay

MakeSampler = Callable[[int], BaseSampler]
"""Makes a new sampler from a seed."""

N_TRIALS = 30


def check_sampler(make_sampler: MakeSampler, *, several: bool | None = None) -> None:
    """Run every check of `CHECKS` on samplers that `make_sampler(seed)` makes.

    Args:
        several: whether it searches for several values at once, and is tried with two as well. By default
            a sampler of optnas is asked (`TrialSampler.several`), and any other is tried: it may refuse the
            first trial of a study with two objectives by a ValueError, as Optuna's do.

    Raises:
        AssertionError: a check failed; the message names it and says what the sampler did.

    Examples:
        >>> optnas.testing.check_sampler(lambda seed: optnas.RegularizedEvolutionSampler(seed=seed))
    """
    for check in CHECKS:
        check(make_sampler)
    if _takes_several(make_sampler) if several is None else several:
        # Optuna's NSGA-II and NSGA-III order equals by their values: negated, another search as good.
        exact = isinstance(make_sampler(0), TrialSampler)
        for check in (c for c in CHECKS if exact or c is not check_directions):
            try:
                check(make_sampler, TWO)
            except AssertionError as error:
                raise AssertionError(f"with two objectives, {error}") from error
    else:
        check_refusal(make_sampler)


def _takes_several(make_sampler: MakeSampler) -> bool:
    if isinstance(sampler := make_sampler(0), TrialSampler):
        return sampler.several
    try:
        _run(sampler, TWO, 1)
    except ValueError:
        return False
    return True


def check_refusal(make_sampler: MakeSampler) -> None:
    """A sampler of one value says so, rather than search for the first of two."""
    try:
        _run(make_sampler(9), TWO)
    except ValueError:
        return
    raise AssertionError("check_refusal: it took a study with two objectives; raise a ValueError.")


def conditional(trial: Trial) -> float:
    """The space of the checks: all three kinds of questions, most of which depend on earlier answers."""
    return two(trial)[0]


def two(trial: Trial) -> tuple[float, float]:
    """The value of `conditional`, and one against it: the sum of the widths. Less of both is better."""
    total, widths = 0.0, 0
    for i in range(trial.suggest_int("depth", 1, 3)):
        op = trial.suggest_categorical(f"layer.{i}.op", ["conv", "pool", "skip"])
        if op == "conv":
            width = trial.suggest_int(f"layer.{i}.width", 8, 64, step=8)
            total -= width / 64
            widths += width
        total += {"conv": 0.0, "pool": 0.3, "skip": 0.6}[op]
    return total + (trial.suggest_float("dropout", 0.0, 0.9) - 0.25) ** 2, float(widths)


@dataclass(frozen=True)
class Kind:
    """What a check searches for: the function, and which way is better."""

    values: Callable[[Any], Any]
    directions: tuple[Literal["minimize", "maximize"], ...]

    def study(self, sampler: BaseSampler | None = None, *, negated: bool = False) -> optuna.Study:
        """A new one, of as many objectives; `negated`: in the other directions."""
        ways = [_OTHER[way] for way in self.directions] if negated else list(self.directions)
        return optuna.create_study(directions=ways, sampler=sampler)

    def negated(self, trial: optuna.Trial) -> Any:
        """Minus the values."""
        found = self.values(trial)
        return tuple(-value for value in found) if len(self.directions) > 1 else -found


_OTHER: dict[str, Literal["minimize", "maximize"]] = {"minimize": "maximize", "maximize": "minimize"}
ONE = Kind(conditional, ("minimize",))
TWO = Kind(two, ("minimize", "minimize"))


def check_answers(make_sampler: MakeSampler, kind: Kind = ONE) -> None:
    """Every answer is possible, and of the type that was asked for."""
    for trial in _run(make_sampler(0), kind).trials:
        try:
            conditional(replay(trial.params))
        except ValueError as error:
            raise AssertionError(f"check_answers: trial {trial.number}: {error}") from None
        for name, distribution in trial.distributions.items():
            _require(
                contains(distribution, trial.params[name]),
                f"check_answers: trial {trial.number} has {name!r}={trial.params[name]!r}: {distribution}.",
            )


def check_determinism(make_sampler: MakeSampler, kind: Kind = ONE) -> None:
    """Equal seeds give equal trials, other seeds other trials."""
    first, again, other = (_params(_run(make_sampler(seed), kind)) for seed in (1, 1, 2))
    _require(first == again, f"check_determinism: {_difference(first, again)} although the seeds are equal.")
    _require(first != other, "check_determinism: seeds 1 and 2 gave the same trials; is the seed used?")


def check_resume(make_sampler: MakeSampler, kind: Kind = ONE) -> None:
    """A new sampler on the storage of an interrupted search goes on as the old one would have."""
    whole = _run(make_sampler(3), kind)
    resumed = _run(make_sampler(3), kind, N_TRIALS // 2)
    resumed.sampler = make_sampler(3)
    resumed.optimize(kind.values, n_trials=N_TRIALS - N_TRIALS // 2)
    _require(
        _params(whole) == _params(resumed),
        f"check_resume: {_difference(_params(whole), _params(resumed))} after a restart. State that "
        "is kept in the sampler is lost with its process; derive it from the study's trials.",
    )


def check_workers(make_sampler: MakeSampler, kind: Kind = ONE) -> None:
    """Two samplers with equal seeds that share a storage do not repeat each other, and survive overlap."""
    study = kind.study()
    workers = [make_sampler(4), make_sampler(4)]
    for _ in range(N_TRIALS // 2):
        running = []
        for sampler in workers:
            study.sampler = sampler
            running.append(study.ask())
        values = [kind.values(trial) for trial in running]
        for sampler, trial, value in reversed(list(zip(workers, running, values, strict=True))):
            study.sampler = sampler
            study.tell(trial, value)
    pairs = list(zip(study.trials[::2], study.trials[1::2], strict=True))
    same = sum(a.params == b.params for a, b in pairs)
    _require(
        same <= len(pairs) // 3,
        f"check_workers: two workers gave the same answers in {same} of {len(pairs)} simultaneous trials.",
    )


def check_directions(make_sampler: MakeSampler, kind: Kind = ONE) -> None:
    """Maximizing the negated objective is the same search."""
    down = _run(make_sampler(5), kind)
    up = kind.study(make_sampler(5), negated=True)
    up.optimize(kind.negated, n_trials=N_TRIALS)
    _require(
        _params(down) == _params(up),
        f"check_directions: {_difference(_params(down), _params(up))} when the objective is negated.",
    )


def check_unfinished(make_sampler: MakeSampler, kind: Kind = ONE) -> None:
    """Failed, pruned, infeasible and abandoned trials, some without parameters, do no harm."""
    study = kind.study(make_sampler(6))

    def leave_unfinished(state: TrialState, asks: bool) -> None:
        trial = study.ask()
        if asks:
            conditional(trial)
            trial.set_constraint("too large", 1.0)
            if len(kind.directions) == 1:  # of several, Optuna takes no reports
                trial.report(float("nan") if state == TrialState.FAIL else 3.0, 0)
        if state != TrialState.RUNNING:
            study.tell(trial, state=state)

    def objective(trial: optuna.Trial) -> Any:
        values = kind.values(trial)
        if trial.number % 3 == 1:
            raise optuna.TrialPruned
        failed = [float("nan")] * len(kind.directions)
        return failed if trial.number % 3 == 2 else values

    try:
        for state in (TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING):
            for asks in (False, True):
                leave_unfinished(state, asks)
        study.optimize(objective, n_trials=N_TRIALS)
    except Exception as error:
        raise AssertionError(
            f"check_unfinished: {type(error).__name__} among failed, pruned and abandoned trials: {error}"
        ) from error


def check_foreign(make_sampler: MakeSampler, kind: Kind = ONE) -> None:
    """Trials that another sampler made, and enqueued ones, are welcome; enqueued answers are kept."""
    study = _run(optuna.samplers.RandomSampler(seed=7), kind)
    study.sampler = make_sampler(7)
    enqueued = {"depth": 2, "layer.0.op": "conv", "layer.0.width": 24}
    study.enqueue_trial(enqueued)
    try:
        study.optimize(kind.values, n_trials=N_TRIALS)
    except Exception as error:
        raise AssertionError(
            f"check_foreign: {type(error).__name__} after foreign trials: {error}"
        ) from error
    got = {name: study.trials[N_TRIALS].params.get(name) for name in enqueued}
    _require(got == enqueued, f"check_foreign: enqueued {enqueued}, the trial has {got}.")


def check_pickle(make_sampler: MakeSampler, kind: Kind = ONE) -> None:
    """A sampler can be sent to another process, also after use."""
    sampler = make_sampler(8)
    _run(sampler, kind, N_TRIALS // 2)
    try:
        copy = pickle.loads(pickle.dumps(sampler))
    except Exception as error:
        raise AssertionError(f"check_pickle: {type(error).__name__}: {error}") from error
    _run(copy, kind, 2)


CHECKS = (
    check_answers,
    check_determinism,
    check_resume,
    check_workers,
    check_directions,
    check_unfinished,
    check_foreign,
    check_pickle,
)


def _run(sampler: BaseSampler, kind: Kind, n_trials: int = N_TRIALS) -> optuna.Study:
    study = kind.study(sampler)
    study.optimize(kind.values, n_trials=n_trials)
    return study


def _params(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def _difference(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> str:
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        if a != b:
            return f"trial {number} is {a} in one run and {b} in the other"
    return "all trials are equal"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
