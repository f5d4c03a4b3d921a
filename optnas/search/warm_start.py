"""Begin a search with the architectures that cheap facts find most promising."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from optnas import record
from optnas.answers import ParamsKey, keep_or_draw, params_key
from optnas.errors import SpaceError, ToldOnce, is_infrastructure
from optnas.facts.fact import N_PARAMS, Fact
from optnas.facts.scores import jacob_cov, log_ranks, zero_cost
from optnas.objective import Objective
from optnas.seeds import derive_seed, seeded
from optnas.space.explore import walk
from optnas.trial import Draw

logger = logging.getLogger(__name__)

PROMISING = (zero_cost(jacob_cov), N_PARAMS)
"""The pair of facts whose summed log ranks ranked best on NAS-Bench-201 (studies/benchmarks/zero_cost.py)."""

_TRIES = 20  # draws for each wanted architecture


@dataclass(frozen=True)
class Candidate:
    """An architecture and its facts; `score` is 0 for one that is the most promising in every fact."""

    params: dict[str, Any]
    facts: dict[str, float]
    score: float


def warm_start(
    study: optuna.Study,
    objective: Objective,
    *,
    n_trials: int = 5,
    n_samples: int = 100,
    facts: Sequence[Fact] = PROMISING,
    seed: int | None = None,
) -> list[Candidate]:
    """Enqueue the most promising of many random architectures; nothing is trained.

    Random architectures are built and measured, and ranked by `log_ranks` of the facts. Larger is more
    promising in every fact, parameters included. Returned is all of them, the most promising first; those
    that the study has begun to train are not among them.

    Args:
        n_trials: how many are enqueued.
        n_samples: how many are drawn and measured; fewer where the space has no more.
        facts: zero-cost scores, parameters, a fact of your own.
        seed: of the draws and of the initial weights; by default the study's.

    Raises:
        ValueError: `n_trials` is not in 1..`n_samples`, or none of the architectures could be measured.

    Examples:
        >>> begun = optnas.create_study(objective)
        >>> chosen = optnas.warm_start(begun, objective, n_trials=3, n_samples=6)
        >>> len(begun.trials)
        3
    """
    if not 1 <= n_trials <= n_samples:
        raise ValueError(f"warm_start(n_trials={n_trials}): enqueue between 1 and n_samples={n_samples}.")
    origin = record.origin(study) if seed is None else seed
    rng = np.random.default_rng(derive_seed(origin, "warm start"))
    begun = [params_key(trial.params) for trial in study.get_trials(deepcopy=False)]
    seen: set[ParamsKey] = set()
    drawn: list[tuple[dict[str, Any], dict[str, float]]] = []
    tell = ToldOnce(logger)
    for _ in range(_TRIES * n_samples):
        asked = Draw(keep_or_draw({}, rng))
        params = asked.params
        if walk(objective.space, asked) is not None:
            continue
        key = params_key(params)
        # A trial has answers to what the task asks, too.
        if key not in seen and not any(key <= of_trial for of_trial in begun):
            seen.add(key)
            if found := _measure(objective, params, facts, rng, derive_seed(origin, "weights"), tell):
                drawn.append((params, found))
        if len(drawn) == n_samples:
            break
    if not drawn:
        raise ValueError(
            f"warm_start: of no architecture could {', '.join(f.name for f in facts)} be measured."
        )
    scores = log_ranks({f.name: [found.get(f.name, np.nan) for _, found in drawn] for f in facts})
    candidates = [
        Candidate(params, found, float(score)) for (params, found), score in zip(drawn, scores, strict=True)
    ]
    candidates.sort(key=lambda candidate: -candidate.score)
    for candidate in candidates[:n_trials]:
        study.enqueue_trial(candidate.params, skip_if_exists=True)
    return candidates


def _measure(
    objective: Objective,
    params: dict[str, Any],
    facts: Sequence[Fact],
    rng: np.random.Generator,
    seed: int,
    tell: ToldOnce,
) -> dict[str, float]:
    """The facts of an architecture that could be computed; task and data get random answers."""
    found: dict[str, float] = {}
    trial = Draw(keep_or_draw(params, rng))
    with seeded(seed):
        try:
            example = objective.example_for(trial)
            model = objective.build(trial)
        except SpaceError as error:
            logger.debug("An architecture does not run.", exc_info=error)
            return found
        for fact in facts:
            try:
                found[fact.name] = fact.of(model, example)
            except Exception as error:
                if is_infrastructure(error):
                    raise
                tell(error, f"{fact.name} of an architecture cannot be had: it ranks last in that.")
    return found
