"""No wasted trials: let any sampler answer, but never the same architecture twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.answers import params_key
from optnas.errors import ParamsMismatchError, SpaceExhausted
from optnas.limits import Within
from optnas.space.explore import enumerate_params, walk
from optnas.storage.base import is_held
from optnas.strategy.base import expected_params
from optnas.strategy.inner import Inner, PlanningSampler
from optnas.strategy.ways import Ways
from optnas.trial import Draw, Space, replay

Params = Mapping[str, Any]
Identity = Callable[[Params], Hashable]
Recorded = Callable[[FrozenTrial], Hashable | None]

CLAIMS = 5
SMALL = 200


@dataclass(frozen=True)
class _Found:
    params: Params
    how: str
    redraws: int


class DistinctSampler(PlanningSampler):
    """Wraps a sampler, and asks it again when its answers would repeat a network of the study.

    Before a trial asks its first question, the space is replayed through the inner sampler. If what comes out
    has been seen, it is drawn again, up to `redraws` times; then the nearest architecture not yet seen is
    taken (one decision changed, at random), then a random one. What was done stands in the trial's system
    attribute `optnas:plan` (`how`: `drawn`, `redrawn`, `neighbor`, `random`, or `repeat` where the enqueued
    answers allow nothing else), together with the planned answers, which concurrent workers respect.

    An architecture is known if another trial of the study has it, finished, running, or waiting with complete
    answers. Questions that `space` does not ask go to the inner sampler as always.

    Args:
        sampler: Any sampler of a single- or multi-objective study.
        space: Asks everything that tells two trials apart. For a joint search of architecture and
            hyperparameters that is more than the architecture; a function may ask for both.
        identity: Maps params to what must not repeat. The default takes the params themselves; a function
            that returns a fingerprint recognizes different answers that build the same network.
        recorded: Maps a finished trial to the identity that it recorded. If it is None, `identity` is called
            instead, which may have to build all earlier networks before a resumed search continues.
        redraws: How often the inner sampler is asked again.
        within: Says which params keep the limits of an objective (`Objective.within`); no others are
            proposed. Wrap the inner sampler in `LimitedSampler`, so that what it draws keeps them too.
        seed: Seed of the neighbor and of the random choice; see `TrialSampler`.

    Raises:
        SpaceExhausted: (at the trial's first question) no architecture is left.
        ValueError: `redraws` is negative.

    Examples:
        >>> sampler = optnas.DistinctSampler(optuna.samplers.RandomSampler(seed=0), space)
        >>> distinct = optuna.create_study(sampler=sampler)
        >>> distinct.optimize(lambda trial: float(len(space(trial))), n_trials=20)
        >>> len({str(sorted(trial.params.items())) for trial in distinct.trials})
        20
    """

    def __init__(
        self,
        sampler: BaseSampler,
        space: Space[Any],
        identity: Identity | None = None,
        recorded: Recorded | None = None,
        redraws: int = 3,
        within: Within | None = None,
        seed: int | None = None,
    ) -> None:
        if redraws < 0:
            raise ValueError(f"redraws={redraws} is negative; 0 never asks the inner sampler again.")
        super().__init__(sampler)
        self.space = space
        self.redraws = redraws
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._within = within
        self._identity = identity
        self._recorded = recorded
        self._identities: dict[Hashable, Hashable] = {}
        self._finished: dict[tuple[int, int], Hashable | None] = {}  # (study, trial) to identity
        self._walk: Iterator[Params] | None = None  # over the space, to the first that was not tried
        self._untried: Params | None = None
        self._n_walked = 0

    def plan(
        self, study: Study, trial: FrozenTrial
    ) -> tuple[Inner, Mapping[str, Any], Mapping[str, BaseDistribution]]:
        """The answers to all questions of the space."""
        inner, planned = self._claim(study, trial)
        return inner, planned.params, planned.distributions

    def exhausted(self, study: Study) -> SpaceExhausted | None:
        """Why no further trial can be new, where that is known before one begins.

        It is for a small space (at most `SMALL` sets of answers), all of whose trials have finished or are
        paused. No network is built for it beyond the first that nobody tried.
        """
        trials = study.get_trials(deepcopy=False)
        if not all(trial.state.is_finished() or is_held(trial) for trial in trials):
            return None
        seen = self._seen(study)
        if self._walk is None:
            self._walk = enumerate_params(self.space)
        while self._n_walked <= SMALL:
            untried = self._untried
            if untried is not None and self._is_within(untried) and self._is_new(untried, seen):
                return None
            try:
                self._untried = next(self._walk, None)
            except Exception:  # continuous, or some cannot be built: the trials will say so
                self._n_walked = SMALL + 1
                return None
            if self._untried is None:
                return _exhausted(study, seen, self._within)
            self._n_walked += 1
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Another process walks the space by itself."""
        return {**self.__dict__, "_walk": None, "_untried": None, "_n_walked": 0}

    def _claim(self, study: Study, trial: FrozenTrial) -> tuple[Inner, Draw]:
        """Publish a plan, then look whether a concurrent worker published the same; if so, plan again."""
        rng = np.random.default_rng((self.seed, trial.number))
        fixed = expected_params(trial)
        for _ in range(CLAIMS):
            inner, found = self._plan(study, trial, fixed, rng)
            plan: Any = {"params": found.params, "how": found.how, "redraws": found.redraws}
            record.PLAN.write(study, trial, plan)
            if found.how == "repeat" or self._is_new(found.params, self._seen(study, trial.number)):
                break
        return inner, self._ask(replay(found.params))

    def _plan(
        self, study: Study, trial: FrozenTrial, fixed: Params, rng: np.random.Generator
    ) -> tuple[Inner, _Found]:
        seen = self._seen(study, trial.number)
        for redraws in range(self.redraws + 1):
            inner = Inner(self.sampler, study, trial, fixed)
            drawn = self._ask(Draw(inner))
            if self._is_new(drawn.params, seen) and self._is_within(drawn.params):
                return inner, _Found(drawn.params, "redrawn" if redraws else "drawn", redraws)
            if drawn.params.keys() <= fixed.keys():
                return inner, _Found(drawn.params, "repeat", redraws)
        for params, how in Ways(self.space, fixed, rng, self._within).all(drawn):
            if self._is_new(params, seen):
                return inner, _Found(params, how, self.redraws)
        if fixed:
            return inner, _Found(drawn.params, "repeat", self.redraws)
        raise _exhausted(study, seen, self._within)

    def _ask(self, asked: Draw) -> Draw:
        """What the space asks; one that raises, until then (the trial with these answers will raise, too)."""
        walk(self.space, asked)
        return asked

    def _is_new(self, params: Params, seen: set[Hashable]) -> bool:
        return params_key(params) not in seen and self._key(params) not in seen

    def _is_within(self, params: Params) -> bool:
        return self._within is None or self._within(params)

    def _key(self, params: Params) -> Hashable:
        key = params_key(params)
        if self._identity is None:
            return key
        if key not in self._identities:
            try:
                self._identities[key] = self._identity(params)
            except Exception:  # a network that cannot be built: the trial will say so
                self._identities[key] = key
        return self._identities[key]

    def _seen(self, study: Study, but: int | None = None) -> set[Hashable]:
        """What all trials are or will be, `but` one number."""
        seen = set()
        for other in private.storage(study).get_all_trials(private.study_id(study), deepcopy=False):
            place = private.place(study, other)
            if other.number == but:
                continue
            key = self._finished[place] if place in self._finished else self._key_of(other)
            if other.state.is_finished():
                self._finished[place] = key
            if key is not None:
                seen.add(key)
        return seen

    def _key_of(self, trial: FrozenTrial) -> Hashable | None:
        """What a trial is or will be; None where that is not known."""
        if trial.state == TrialState.FAIL:  # building its network may be what killed its workers
            return params_key(trial.params) if trial.params else None
        if self._recorded and trial.state.is_finished() and (key := self._recorded(trial)) is not None:
            return key
        try:
            return self._key(self._ask(replay(expected_params(trial))).params)
        except ParamsMismatchError:
            return None


_ONLY = "The only architecture of the space has"


def _exhausted(study: Study, seen: set[Hashable], within: Within | None) -> SpaceExhausted:
    if within is not None and not seen:
        return SpaceExhausted(f"Nothing within the limits was found: {within}.")
    if within is not None:
        return SpaceExhausted(
            f"Beside the {len(seen)} architectures that were tried, none within the limits was found: "
            f"{within}. {_failures(study)}"
        )
    tried = f"All {len(seen)} distinct architectures of the space have" if len(seen) > 1 else _ONLY
    return SpaceExhausted(f"{tried} been tried. {_failures(study)}")


def _failures(study: Study) -> str:
    """What is to be done now, which depends on whether trials have failed."""
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    known = [trial for trial in failed if trial.params]  # one that was not asked anything tried nothing
    if not known:
        return "The search is complete. To estimate some of them again, say Objective(reuse_twins=False)."
    last = known[-1]
    numbers = ", ".join(str(trial.number) for trial in known[:10]) + (", ..." if len(known) > 10 else "")
    return (
        f"But {len(known)} of them failed (trial {numbers}), the last one for this reason: "
        f"{record.why(last) or 'none was recorded'}. Fix it, and enqueue them again: "
        f"study.enqueue_trial(study.trials[{last.number}].params)."
    )
