"""A study with the defaults that architecture search needs; everything about it stays Optuna's."""

from __future__ import annotations

import math
import secrets
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
import torch
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from optnas.errors import ParamsMismatchError
from optnas.objective import Objective
from optnas.search.provenance import changes, provenance
from optnas.seeds import derive_seed
from optnas.space.explore import draw_value
from optnas.storage.open import open_storage, storage_of
from optnas.strategy.base import TrialSampler, fixed_params, hashable
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.seeded import SeededSampler
from optnas.trial import Draw, replay

SamplerFactory = Callable[[int], BaseSampler]

# Trials to build for an answer that the space did not ask for: it may, where other answers are others.
_TRIES = 3


def create_study(
    objective: Objective,
    *,
    study_name: str | None = None,
    storage: str | optuna.storages.BaseStorage | None = None,
    sampler: BaseSampler | SamplerFactory | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
    seed: int | None = None,
) -> optuna.Study:
    """Create a study, or go on with the one of that name in that storage.

    Args:
        objective: gives the directions, and what the study records of its origin.
        study_name: by default the name of the space function.
        storage: where trials live, such as `"sqlite:///nas.db"`; None keeps them in memory only.
        sampler: an Optuna sampler, or a function `seed -> sampler`, so that each worker and each resumed run
            draws differently. By default `PredictorSampler`, the best of those measured in
            studies/benchmarks/README.md.
        pruner: by default `default_pruner` for the estimator's `max_epochs`.
        seed: of the study, from which every trial's seed is derived; random when None. A study that exists
            keeps the seed that it began with.

    Raises:
        ParamsMismatchError: the study of that name optimizes another metric, or in the other direction.

    Warns:
        UserWarning: the study began under other circumstances (versions, source of the space, data, ...);
            the message lists what changed.
    """
    study = optuna.create_study(
        study_name=study_name or getattr(objective.space, "__name__", type(objective.space).__name__),
        storage=open_storage(storage),
        directions=objective.directions,
        pruner=pruner or default_pruner(getattr(objective.estimator, "max_epochs", 0)),
        load_if_exists=True,
    )
    check_values(study, objective)
    # Of several processes that begin a study at one moment, one decides.
    first = storage_of(study).settle_study_user_attr
    first(study._study_id, "seed", secrets.randbelow(2**31) if seed is None else seed)
    origin = provenance(objective)
    began = first(study._study_id, "provenance", origin)
    if study.metric_names is None:
        with _experimental():  # set_metric_names
            study.set_metric_names(list(objective.values))
    if changed := _describe_changes(study, began, origin):
        warnings.warn(changed, stacklevel=2)
    study.sampler = _make_sampler(
        study, sampler or (lambda seed: PredictorSampler(objective.space, seed=seed))
    )
    return study


def describe_changes(study: optuna.Study, objective: Objective) -> str:
    """What is not as it was when the study began (versions, source of the space, data, ...); or ""."""
    before = study.user_attrs.get("provenance")
    return _describe_changes(study, before, provenance(objective)) if before else ""


def _describe_changes(study: optuna.Study, before: dict[str, Any], now: dict[str, Any]) -> str:
    differences = changes(before, now)
    began = f"Study {study.study_name!r} began under other circumstances; results may not be comparable:"
    return "\n  ".join([began, *differences]) if differences else ""


def default_pruner(max_epochs: int) -> optuna.pruners.MedianPruner:
    """Optuna's default, the median, but not in the first eighth of a training.

    The first epochs say little of the last. Pruned by them, a given number of trials ends with worse
    architectures; see studies/benchmarks/README.md, also for pruners that suit a given time better.
    """
    return optuna.pruners.MedianPruner(n_warmup_steps=math.ceil(max_epochs / 8))


def check_values(study: optuna.Study, objective: Objective) -> None:
    """Check that a study optimizes what the objective does.

    Raises:
        ParamsMismatchError: another metric, in the other direction, or several.
    """
    begun = [direction.name.lower() for direction in study.directions]
    names = study.metric_names or ["a value"] * len(begun)  # Optuna's own studies have no names
    if begun != objective.directions or study.metric_names not in (None, list(objective.values)):
        values = ", ".join(f"{direction} {name}" for name, direction in zip(names, begun, strict=True))
        asked = ", ".join(f"{direction} {name}" for name, direction in objective.values.items())
        way_out = "" if study.metric_names else " with optnas.create_study(objective)"
        raise ParamsMismatchError(
            f"Study {study.study_name!r} began in order to {values}, and the objective is now to {asked}. "
            f"Start a study of another name{way_out}."
        )


def _make_sampler(study: optuna.Study, sampler: BaseSampler | SamplerFactory) -> BaseSampler:
    if isinstance(sampler, BaseSampler):
        return sampler
    # Trial n is answered from the seed, n and the stored trials: resumed runs and workers do not repeat.
    # Ours are made so, and keep what they learned from one trial to the next.
    seed = derive_seed(study.user_attrs["seed"], "sampler")
    with _experimental():
        made = sampler(seed)
    return made if isinstance(made, TrialSampler) else SeededSampler(sampler, seed)


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial counts toward `n_trials`: its estimate ran, and it ended COMPLETE or PRUNED."""
    return (
        trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        and "twin_of" not in trial.user_attrs
        and "infeasible" not in trial.user_attrs
    )


def check_fits(study: optuna.Study, objective: Objective) -> None:
    """Check that stored trials still fit the space: the last ten that finished, and all that wait.

    Of thousands that wait, those are built that give an answer which no other gave: some for each answer. One
    that only fails to fit by a range that depends on other answers says so when it runs.

    Raises:
        ParamsMismatchError: naming the trial, the parameter and the way out.
    """
    trials = study.get_trials(deepcopy=False)
    finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    waiting = [t for t in trials if t.state == TrialState.WAITING]
    tried: Counter[tuple[str, str]] = Counter()
    for trial in finished[-10:] + waiting:
        given = fixed_params(trial)
        if trial.state == TrialState.WAITING and all(tried[answer] >= _TRIES for answer in hashable(given)):
            continue
        answers = _complete(given) if trial.state == TrialState.WAITING else replay(given)
        try:
            with torch.device("meta"):
                objective.space(answers)
            _check_all_asked(trial, answers)
        except ParamsMismatchError as error:
            raise ParamsMismatchError(
                f"Study {study.study_name!r} does not fit the space: trial {trial.number}: {error}"
            ) from None
        except Exception:  # the model cannot be built on meta, or at all: no question of what is stored
            pass
        for answer in hashable(given):
            tried[answer] += _TRIES if answer[0] in answers.params else 1


def _check_all_asked(trial: FrozenTrial, answers: Draw) -> None:
    if "asked" not in trial.user_attrs:  # not finished: who asked for its parameters is not known
        return
    more = trial.params.keys() - trial.user_attrs["asked"].keys() - answers.params.keys()
    if more:
        raise ParamsMismatchError(
            f"The space no longer asks for {', '.join(map(repr, sorted(more)))} and would build another "
            "model. Start a study of another name, or use the space of that time."
        )


def _complete(given: dict[str, Any]) -> Draw:
    """Answers as given, and anything possible for the rest, which the sampler will answer."""
    rng = np.random.default_rng(0)
    return Draw(lambda name, distribution: given[name] if name in given else draw_value(distribution, rng))


@contextmanager
def _experimental() -> Iterator[None]:
    """Use what Optuna calls experimental, which was measured to work (a warning helps no user of ours)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
