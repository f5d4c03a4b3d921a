"""Let a model of the finished trials propose the next: Bayesian optimization of architectures.

In the family of BANANAS (White et al., AAAI 2021, arXiv:1910.11858), NPENAS (Wei et al. 2022) and WeakNAS (Wu
et al. 2021); the model and what it maximizes were chosen by experiment (studies/benchmarks/predictor.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.answers import ParamsKey, Pick, keep_or_draw, params_key
from optnas.facts.inputs import Example
from optnas.limits import Within
from optnas.pareto import losses, standing
from optnas.strategy.base import TrialSampler, expected_params, fixed_params, is_sound
from optnas.strategy.candidates import Candidates, Params, Questions
from optnas.strategy.structures import Structures
from optnas.surrogate.encoder import Features
from optnas.surrogate.front import Costs, FrontSurrogate
from optnas.surrogate.model import Surrogate
from optnas.surrogate.prior import Prior, Priors
from optnas.surrogate.screened import screen
from optnas.surrogate.standing import observe, standings
from optnas.trial import Space, Trial

N_PARENTS = 5
MOST_PARENTS = 20  # of a front
N_RANDOM = 25
N_MUTATIONS = 12
ROUNDS = 3
LOOKED = 24
STARTUP = 0.2  # of the budget, after which a surrogate of FEWEST trials is asked
FEWEST = 3
HEARD_FIRST = (0, 1, 3)
"""Where a study was told of others, these of its first five trials try what those let expect to be best; the
other two are random, or nobody could tell whether that is so here."""
N_HEARD_FIRST = 5


class PredictorSampler(TrialSampler):
    """Proposes the network of which a surrogate of the finished trials expects the largest improvement.

    Of several objectives that is the improvement of the hypervolume (`optnas.surrogate.front`).

    The space is replayed to make candidates: at random, and by mutation of the best trials, then of the best
    candidates (a local search of the expected improvement). Trials that run elsewhere are allowed for, and no
    candidate repeats the answers of a trial unless nothing else is left. Questions that the space does not
    ask, such as a task's learning rate, are learned from the trials and searched jointly. The whole plan
    stands in the trial's system attribute `optnas:plan`, where other workers see it before it is asked.

    In a study that learns from others (`create_study(learn_from=...)`), what those predict is the mean of the
    surrogate, to the extent that it predicts the trials; for several objectives, each has its own.

    Args:
        space: The space of the study. It is called with other trials, on the meta device, some hundred times
            for a suggestion; a function that asks the same questions and builds nothing is faster.
        n_startup_trials: Number of random trials at the start, each as different from the others as a few
            draws allow. After them the surrogate proposes, as soon as half as many trials have a value or a
            report; those of pruned and running trials count. `optnas.optimize` limits the start to a fifth of
            the budget.
        features: See `Surrogate`.
        costs: For several objectives: maps params to those objectives that are known without a trial, by
            name, such as `Objective.costs`; these are computed instead of predicted.
        example: Inputs of the networks, or a function of a trial that returns them, such as
            `Objective.example_for`. With it the surrogate sees how each network is put together
            (`optnas.facts.structure`) beside its answers, where that predicts better.
        seed: See `TrialSampler`.

    Raises:
        ValueError: `n_startup_trials` is less than 2.

    Examples:
        >>> predicted = optnas.create_study(
        ...     objective, sampler=lambda seed: optnas.PredictorSampler(space, seed=seed)
        ... )
        >>> optnas.optimize(predicted, objective, n_trials=3)
    """

    several = True
    hears = True

    def __init__(
        self,
        space: Space[Any],
        n_startup_trials: int = 10,
        features: Features | None = None,
        costs: Costs | None = None,
        example: Example | Callable[[Trial], Example] | None = None,
        seed: int | None = None,
    ) -> None:
        if n_startup_trials < 2:
            raise ValueError(f"n_startup_trials={n_startup_trials}: a surrogate needs at least 2 trials.")
        super().__init__(seed)
        self.n_startup_trials = n_startup_trials
        self._structures = None if example is None else Structures(space, example)
        self._questions = Questions(space if self._structures is None else self._structures.space)
        self._features = features
        self._costs = costs
        self._priors: dict[int, Prior | Priors | None] = {}
        self._known_features: dict[ParamsKey, Mapping[str, float]] = {}
        self._proposed: dict[tuple[int, int], list[Params]] = {}
        self._finished: dict[tuple[int, int], ParamsKey] = {}  # (study, trial) to its answers

    def prepare(self, study: Study, trial: FrozenTrial, rng: np.random.Generator) -> Pick:
        """Plan all answers."""
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        proposed = self._proposed.setdefault(private.place(study, trial), [])
        plan = self._plan(study, others, proposed, fixed_params(trial), rng)
        proposed.append(plan)
        record.PLAN.write(study, trial, {"params": plan})
        return keep_or_draw(plan, rng)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Forget what was proposed for this trial."""
        super().after_trial(study, trial, state, values)
        self._proposed.pop(private.place(study, trial), None)

    def _plan(
        self,
        study: Study,
        others: list[FrozenTrial],
        proposed: list[Params],
        fixed: Params,
        rng: np.random.Generator,
    ) -> Params:
        unfinished = [expected_params(t) for t in others if not t.state.is_finished()]
        seen = {*(self._answers_of(study, t) for t in others), *map(params_key, (*unfinished, *proposed))}
        told, best = self._ranked(study, others)
        known = {trial.number for trial in told}
        running = [expected_params(t) for t in others if not t.state.is_finished() and t.number not in known]
        self._questions.learn([t.params for t in others if t.state.is_finished()])
        candidates = Candidates(self._questions, self._asked_beyond(best), fixed, rng)
        # Where trials run in parallel, those under way are as good a start as those that told something.
        n_started, n_startup = len(told) + len(running), self.n_startup_trials
        if record.spent(study, others) >= STARTUP:
            n_startup = min(n_startup, FEWEST)
        prior = self._prior(study)
        parents: list[Params] = [trial.params for trial in best]
        if prior is not None:
            n_startup = min(n_startup, N_HEARD_FIRST)
            parents += [params for p in prior.best if (params := candidates.asked(p)) is not None]
        if n_started < n_startup or len(told) < max(2, n_startup / 2):
            if prior is not None and len(others) in HEARD_FIRST:
                pool = _Pool(prior.leaning(rng), candidates, seen, self.within, None)
                pool.add(parents)
                return _climb(pool, candidates, parents) or _most_different(candidates, seen, self.within)
            return _most_different(candidates, seen, self.within)
        surrogate: Surrogate | FrontSurrogate
        if len(study.directions) > 1:
            priors = prior.of if isinstance(prior, Priors) else None
            surrogate = FrontSurrogate(study, self._looked_at, self._costs, priors).fit(others)
        else:
            alone = prior if isinstance(prior, Prior) else None
            surrogate = Surrogate(study.direction, self._looked_at, prior=alone).fit(others)
        surrogate = surrogate.believe([params for params in (*running, *proposed) if params])
        if self._structures is not None:
            self._structures.looking = surrogate.looks
        # Features and costs of the user's own are taken to be quick.
        looked = None if self._structures is None else LOOKED
        pool = _Pool(surrogate, candidates, seen, self.within, looked)
        if prior is not None:
            pool.add(parents)
        return _climb(pool, candidates, parents) or _most_different(candidates, seen, self.within)

    def _prior(self, study: Study) -> Prior | Priors | None:
        """What the study was told of others, if that makes sense; it does not change."""
        study_id = private.study_id(study)
        if study_id not in self._priors:
            told = record.heard(study)
            prior = Priors(told) if len(study.directions) > 1 else Prior(told)
            self._priors[study_id] = prior or None
        return self._priors[study_id]

    def _ranked(self, study: Study, trials: list[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """The trials that tell something, and those of which candidates are bred, the best first."""
        if len(study.directions) > 1:
            told = [t for t in trials if is_sound(t) and np.isfinite(t.values).all()]
            order = np.argsort(standing(study, told))
            n_parents = max(N_PARENTS, int((private.ranks(losses(study, told)) == 0).sum()) if told else 0)
            return told, [told[i] for i in order[: min(n_parents, MOST_PARENTS)]]
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        observed, screened = observe(trials, sign), screen(trials, sign)
        order = np.argsort(standings(observed), kind="stable")
        told = [o.trial for o in observed]
        best = [told[i] for i in order[:N_PARENTS]]
        best += [screened.trials[i] for i in np.argsort(screened.scores, kind="stable")[:N_PARENTS]]
        told += screened.trials
        return [*_once(told)], [*_once(best)]

    def _answers_of(self, study: Study, trial: FrozenTrial) -> ParamsKey:
        place = private.place(study, trial)
        known = self._finished.get(place) or params_key(trial.params)
        if trial.state.is_finished():
            self._finished[place] = known
        return known

    def _asked_beyond(self, trials: list[FrozenTrial]) -> dict[str, BaseDistribution]:
        """What trials were asked that the space does not ask, given their answers."""
        beyond: dict[str, BaseDistribution] = {}
        for trial in trials:
            own = Candidates(self._questions, {}, {}, np.random.default_rng(0)).asked(trial.params) or {}
            beyond |= {name: d for name, d in trial.distributions.items() if name not in own}
        return beyond

    def _looked_at(self, params: Params) -> Mapping[str, float]:
        """All that is known of an architecture beside its answers."""
        key = params_key(params)
        if self._features is not None and key not in self._known_features:
            self._known_features[key] = self._features(params)
        structure = {} if self._structures is None else self._structures(params)
        return {**structure, **self._known_features.get(key, {})}


def _once(trials: Iterable[FrozenTrial]) -> Iterable[FrozenTrial]:
    """Each of the trials, where it stands first."""
    return {trial.number: trial for trial in trials}.values()


class _Pool:
    """Distinct candidates and the improvement expected of each; those that break a limit win nothing.

    Where that takes a look at their networks, of each batch only so many are looked at: those that promise
    most by their answers alone.
    """

    def __init__(
        self,
        surrogate: Surrogate | FrontSurrogate | Prior | Priors,
        candidates: Candidates,
        seen: set[ParamsKey],
        within: Within | None,
        looked: int | None,
    ) -> None:
        self._surrogate = surrogate
        self._by_answers = surrogate.without_features() if surrogate.looks else None
        self._looked = looked
        self._candidates = candidates
        self._within = within
        self._met = set(seen)
        self._scored: list[tuple[float, Params]] = []

    def add(self, candidates: Iterable[Params | None]) -> None:
        new = [params for params in candidates if params is not None and self._is_new(params)]
        if self._by_answers is not None and self._looked is not None and len(new) > self._looked:
            promise = self._by_answers.improvement(new)
            asked = (self._asked(new[i]) for i in np.argsort(-promise, kind="stable"))
            new = list(itertools.islice((params for params in asked if params is not None), self._looked))
        if new:
            scores = self._surrogate.improvement(new)
            self._scored += zip(scores.tolist(), new, strict=True)
            self._scored.sort(key=lambda scored: -scored[0])

    def _is_new(self, params: Params) -> bool:
        known = len(self._met)
        self._met.add(params_key(params))
        return len(self._met) > known

    def _allowed(self) -> Iterator[Params]:
        return (params for _, params in self._scored if self._within is None or self._within(params))

    def top(self, n: int) -> list[Params]:
        return list(itertools.islice(self._allowed(), n))

    def best(self) -> Params | None:
        """None where nothing is left."""
        asked = (self._asked(params) for params in self._allowed())
        return next((params for params in asked if params is not None), None)

    def _asked(self, params: Params) -> Params | None:
        """What the space asks in the end; None where it raises, or where that was met before."""
        asked = self._candidates.asked(params)
        if asked is None or params_key(asked) == params_key(params) or self._is_new(asked):
            return asked
        return None


def _climb(pool: _Pool, candidates: Candidates, parents: Sequence[Params]) -> Params | None:
    """The best candidate of a local search from `parents`; None where there is nothing new."""
    pool.add(candidates.random() for _ in range(N_RANDOM))
    n = len(parents)
    for _ in range(ROUNDS):
        before = pool.top(1)
        pool.add(candidates.mutation(params) for params in parents for _ in range(N_MUTATIONS))
        parents = pool.top(n)
        if parents[:1] == before:
            break
    return pool.best()


def _most_different(candidates: Candidates, seen: Iterable[ParamsKey], within: Within | None) -> Params:
    """The random candidate that shares least with what was seen, of those that keep the limits, if any do.

    There are no answers where the space always raises.
    """
    draws = [params for _ in range(N_RANDOM) if (params := candidates.random()) is not None]
    draws.sort(key=lambda params: -_distance(params_key(params), seen))
    asked = (params for draw in draws if (params := candidates.asked(draw)) is not None)
    sound = asked if within is None else filter(within, asked)
    return next(sound, draws[0] if draws else {})


def _distance(answers: ParamsKey, others: Iterable[ParamsKey]) -> float:
    """To the closest of the others (Jaccard): 0 for the same answers, 1 for none in common."""
    return min((len(answers ^ other) / (len(answers | other) or 1) for other in others), default=1.0)
