"""What a new study learns from finished studies on other data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution

from optnas import record
from optnas.answers import contains, draw, params_key
from optnas.objective import Objective
from optnas.space.explore import asked_by, walk
from optnas.trial import Draw


def listen(
    study: optuna.Study,
    objective: Objective,
    others: Sequence[optuna.Study],
    try_first: int,
    *,
    learns: bool,
) -> None:
    """Store in a study what others say, unless it has that already, and enqueue their best `try_first`.

    Raises:
        ValueError: see `create_study`.
    """
    if not learns and not try_first:
        raise ValueError(
            "learn_from: this sampler cannot learn from other studies; PredictorSampler, the default, can. "
            "With try_first=5 any sampler begins with their five best architectures."
        )
    if record.heard(study):
        return
    asked = asked_by(objective.ask).keys()
    told = []
    for other in others:
        if _is_same(study, other):
            raise ValueError(
                f"learn_from: study {study.study_name!r} is the study itself, which "
                "knows its own trials; name others."
            )
        for found in _heard(study, other):
            if not asked & found.distributions.keys():
                raise ValueError(
                    f"learn_from: nothing that study {other.study_name!r} asked is asked here; it asked "
                    f"{', '.join(sorted(found.distributions))}, and the space asks "
                    f"{', '.join(sorted(asked))}."
                )
            told.append(found)
    for params in itertools.islice(_best(told, objective), try_first):
        study.enqueue_trial(params, skip_if_exists=True)
    record.write_heard(study, told)


def _heard(study: optuna.Study, other: optuna.Study) -> list[record.Heard]:
    """What another study says of each objective that both have; if each has one value, of that one."""
    from optnas.surrogate.prior import hear  # imported here because scipy takes a second

    if len(study.directions) == len(other.directions) == 1:
        return [hear(other)]
    own, theirs = study.metric_names or [], other.metric_names or []
    shared = [name for name in own if name in theirs]
    if not shared:
        raise ValueError(
            f"learn_from: study {other.study_name!r} has none of the objectives of this one. It has "
            f"{', '.join(theirs) or 'no names for them'}, and this one {', '.join(own) or 'no names'}; of "
            "several, each is learned from that of the same name."
        )
    return [replace(hear(other, name), objective=name) for name in shared]


def _is_same(one: optuna.Study, other: optuna.Study) -> bool:
    known = [(s.study_name, record.SEED.of(s), record.PROVENANCE.of(s)) for s in (one, other)]
    return known[0] == known[1]


def _best(told: Sequence[record.Heard], objective: Objective) -> Iterator[dict[str, Any]]:
    """The best architectures of each study in turn, as far as the space has them."""
    orders = [np.argsort(one.scores, kind="stable") for one in told]
    seen = set()
    for rank in range(max(map(len, orders))):
        for one, order in zip(told, orders, strict=True):
            params = _fitting(one.params[order[rank]], objective) if rank < len(order) else None
            if params is not None and params_key(params) not in seen:
                seen.add(params_key(params))
                yield params


def _fitting(params: Mapping[str, Any], objective: Objective) -> dict[str, Any] | None:
    """These answers, if the space, task and data ask for exactly them and accept them; otherwise None."""

    class Misfit(Exception):
        pass

    def pick(name: str, distribution: BaseDistribution) -> Any:
        if distribution.single():
            return draw(distribution, np.random.default_rng(0))
        if name not in params or not contains(distribution, params[name]):
            raise Misfit
        return params[name]

    asked = Draw(pick)
    try:
        return asked.params if walk(objective.ask, asked) is None else None
    except Misfit:
        return None
