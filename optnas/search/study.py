"""A study with the defaults that architecture search needs; everything about it stays Optuna's."""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from optnas import private, record
from optnas.errors import ParamsMismatchError
from optnas.facts.fact import USUAL
from optnas.limits import Within
from optnas.objective import Objective
from optnas.search.hearsay import listen
from optnas.search.provenance import changes, provenance
from optnas.seeds import derive_seed
from optnas.storage.open import open_storage, storage_of
from optnas.strategy.base import TrialSampler
from optnas.strategy.halving import HalvingPruner
from optnas.strategy.limited import LimitedSampler
from optnas.strategy.screening import ScreeningPruner
from optnas.strategy.seeded import SeededSampler
from optnas.trial import name_of

SamplerFactory = Callable[[int], BaseSampler]


def create_study(
    objective: Objective,
    *,
    study_name: str | None = None,
    storage: str | optuna.storages.BaseStorage | None = None,
    sampler: BaseSampler | SamplerFactory | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
    seed: int | None = None,
    learn_from: Sequence[optuna.Study] = (),
    try_first: int = 0,
) -> optuna.Study:
    """Create a study, or go on with the one of that name in that storage.

    Args:
        objective: says what is optimized in which direction, and what the study records of its origin.
        study_name: by default the name of the space function.
        storage: where trials live, such as `"sqlite:///nas.db"`; None keeps them in memory only.
        sampler: an Optuna sampler, or a function `seed -> sampler`, so that each worker and each resumed run
            draws differently. By default `PredictorSampler`, the best of those measured in
            studies/benchmarks/README.md.
        pruner: by default `default_pruner` for the objective.
        seed: of the study, from which every trial's seed is derived; random when None. A study that exists
            keeps the seed that it began with.
        learn_from: finished studies on other data or tasks, of spaces that ask the same, at least in part.
            The sampler begins with what they predict, and relies on it to the extent that it predicts the
            trials; a study that cannot predict even its own trials is ignored. What was learned is stored in
            this study, so that the others are not needed later; a study that exists keeps what it learned at
            its beginning. Where one of the studies has several objectives, each is learned from that of the
            same name.
        try_first: number of their best architectures that are enqueued when this study begins, taken from
            each study in turn.

    Raises:
        ValueError: `learn_from` has a study without any of the objectives, where there are several, with
            fewer than five trials that have a value or a report, or that shares no question with this space;
            or the sampler cannot learn from others.
        ParamsMismatchError: the study of that name optimizes another metric, or in the other direction; or an
            older optnas began it.

    Warns:
        UserWarning: the study began under other circumstances (versions, source of the space, data, ...);
            the message lists what changed.

    Examples:
        >>> new = optnas.create_study(objective, study_name="small", storage="sqlite:///nas.db", seed=0)
        >>> new.study_name
        'small'
    """
    study = optuna.create_study(
        study_name=study_name or name_of(objective.space),
        storage=open_storage(storage),
        directions=objective.directions,
        pruner=pruner or default_pruner(objective),
        load_if_exists=True,
    )
    _check_not_older(study)
    check_values(study, objective)
    # If several processes begin a study at the same moment, one of them decides.
    first = storage_of(study).settle_study_user_attr
    first(private.study_id(study), record.SEED.name, secrets.randbelow(2**31) if seed is None else seed)
    first(private.study_id(study), record.LIMITS.name, record.limits_as_kept(objective.limits))
    now = provenance(objective)
    began = first(private.study_id(study), record.PROVENANCE.name, now)
    record.write_fact_kinds(study, {fact.name: fact.kind for fact in (*USUAL, *objective.facts)})
    if study.metric_names is None:
        with _experimental():  # set_metric_names
            study.set_metric_names(list(objective.values))
    if changed := _describe_changes(study, began, now):
        warnings.warn(changed, stacklevel=2)
    made = _make_sampler(study, sampler or _default_sampler(objective))
    if learn_from:
        listen(study, objective, learn_from, try_first, learns=isinstance(made, TrialSampler) and made.hears)
    elif try_first:
        raise ValueError(f"try_first={try_first}: name the studies to take them from with learn_from.")
    study.sampler = limited(study, objective, made, objective.within)
    return study


def _default_sampler(objective: Objective) -> SamplerFactory:
    from optnas.strategy.predictor import PredictorSampler  # imported here because scipy takes a second

    return lambda seed: PredictorSampler(
        objective.seen, example=objective.example_for, costs=objective.costs, seed=seed
    )


def limited(
    study: optuna.Study, objective: Objective, sampler: BaseSampler, within: Within | None
) -> BaseSampler:
    """The sampler; if some limits can be computed before a trial, it proposes nothing beyond them."""
    inner = sampler.sampler if isinstance(sampler, LimitedSampler) else sampler
    if isinstance(inner, TrialSampler):
        inner.within = within
    if within is None:
        return sampler
    return LimitedSampler(inner, objective.ask, within, derive_seed(record.origin(study), "limited"))


def describe_changes(study: optuna.Study, objective: Objective) -> str:
    """What has changed since the study began (versions, source of the space, data, ...); "" if nothing."""
    before = record.PROVENANCE.of(study)
    return _describe_changes(study, before, provenance(objective)) if before else ""


def _describe_changes(study: optuna.Study, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    differences = changes(before, now)
    began = f"Study {study.study_name!r} began under other circumstances; results may not be comparable:"
    return "\n  ".join([began, *differences]) if differences else ""


def default_pruner(objective: Objective) -> optuna.pruners.BasePruner:
    """`HalvingPruner` for an estimator that goes on where it stopped, as `Training` does.

    For `Screening` it is `ScreeningPruner`. For any other, what is stopped is lost. Then it is Optuna's
    default, the median, but not in the first eighth of a training: the first epochs say little of the last,
    and pruned by them a given number of trials ends with worse architectures. What both find is measured in
    studies/benchmarks/README.md.
    """
    estimator = objective.estimator
    if (share := estimator.share_in_full) < 1:
        from optnas.strategy.structures import Structures  # only here: it takes a second to import

        return ScreeningPruner(share, Structures(objective.space, objective.example_for))
    if estimator.resumes:
        return HalvingPruner()
    return optuna.pruners.MedianPruner(n_warmup_steps=math.ceil(estimator.max_reports / 8))


def _check_not_older(study: optuna.Study) -> None:
    theirs = study.user_attrs
    began = theirs.get("provenance")
    if record.PROVENANCE.of(study) is None and "seed" in theirs and isinstance(began, dict):
        raise ParamsMismatchError(
            f"Study {study.study_name!r} was begun by optnas {began.get('optnas', 'of an older version')}, "
            "which recorded its trials under other names; this optnas cannot read them. Start a study of "
            "another name, or go on with the optnas that began it."
        )


def check_values(study: optuna.Study, objective: Objective) -> None:
    """Check that a study optimizes what the objective does, within the same limits.

    Raises:
        ParamsMismatchError: another metric, in the other direction, or several; or other limits; or the study
            is being made from another one.
    """
    if coming := record.COMING.of(study):
        raise ParamsMismatchError(
            f"Study {study.study_name!r} is being made from study {coming.get('from')!r}, or this was "
            f"interrupted: then optnas.{coming.get('how')}, called again as before, finishes it."
        )
    begun = [direction.name.lower() for direction in study.directions]
    names = study.metric_names or ["a value"] * len(begun)  # studies of plain Optuna may have no names
    if begun != objective.directions or study.metric_names not in (None, list(objective.values)):
        values = ", ".join(f"{direction} {name}" for name, direction in zip(names, begun, strict=True))
        asked = ", ".join(f"{direction} {name}" for name, direction in objective.values.items())
        way_out = "" if study.metric_names else " with optnas.create_study(objective)"
        raise ParamsMismatchError(
            f"Study {study.study_name!r} began in order to {values}, and the objective is now to {asked}. "
            f"Start a study of another name{way_out}."
        )
    kept, now = record.LIMITS.of(study), record.limits_as_kept(objective.limits)
    if kept is None and record.PROVENANCE.of(study) is not None:
        kept = {}
    if kept is not None and kept != now:
        before = "; ".join(map(str, record.limits(study))) or "no limits"
        raise ParamsMismatchError(
            f"Study {study.study_name!r} began with {before}, and the objective has now "
            f"{'; '.join(map(str, objective.limits)) or 'no limits'}. Which of its trials keep them was "
            "decided when they ran: start a study of another name."
        )


def _make_sampler(study: optuna.Study, sampler: BaseSampler | SamplerFactory) -> BaseSampler:
    if isinstance(sampler, BaseSampler):
        return sampler
    # The answers to trial n depend on the seed, n and the stored trials, so resumed runs and workers do not
    # repeat each other. Our samplers do that themselves, and keep what they learned between trials.
    seed = derive_seed(record.origin(study), "sampler")
    with _experimental():
        made = sampler(seed)
    return made if isinstance(made, TrialSampler) else SeededSampler(sampler, seed)


@contextmanager
def _experimental() -> Iterator[None]:
    """Use a feature that Optuna calls experimental, without its warning: optnas has tested it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
