"""Each check passes for a sound sampler and catches the fault that is planted for it."""

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler

from optnas import answers
from optnas.strategy.base import TrialSampler, sound_trials
from optnas.testing import samplers as checks


class Sound(TrialSampler):
    """Random, from the seed and the trial's number alone."""

    def prepare(self, study, trial, rng):
        return lambda name, distribution: answers.draw(distribution, rng)


class OutOfRange(Sound):
    def prepare(self, study, trial, rng):
        return lambda name, d: 13 if name == "layer.0.width" else answers.draw(d, rng)


class Unseeded(Sound):
    def __init__(self, seed):
        super().__init__(None)


class StateInProcess(Sound):
    asked = 0

    def prepare(self, study, trial, rng):
        self.asked += 1
        return super().prepare(study, trial, checks_rng(self.seed, self.asked))


class SameForAll(Sound):
    def prepare(self, study, trial, rng):
        n_done = len(sound_trials(study))
        return super().prepare(study, trial, checks_rng(self.seed, n_done))


class Minimizes(Sound):
    def prepare(self, study, trial, rng):
        done = sound_trials(study)
        best = min(done, key=lambda t: t.value) if done else None
        base = super().prepare(study, trial, rng)
        return lambda name, d: (
            best.params[name] if best and name == "dropout" and trial.number % 2 else base(name, d)
        )


class NeedsParams(Sound):
    def prepare(self, study, trial, rng):
        for other in study.get_trials(deepcopy=False)[: trial.number]:
            assert other.params["depth"] > 0
        return super().prepare(study, trial, rng)


class NeedsItsMark(Sound):
    def prepare(self, study, trial, rng):
        for other in sound_trials(study):
            assert other.system_attrs["mine"]
        study._storage.set_trial_system_attr(trial._trial_id, "mine", True)
        return super().prepare(study, trial, rng)


class Unpicklable(Sound):
    def __init__(self, seed):
        super().__init__(seed)
        self.rule = lambda: None


def checks_rng(*seed):
    return np.random.default_rng(seed)


class Both(Sound):
    several = True


class FirstOnly(Both):
    def prepare(self, study, trial, rng):
        best = max((t.value for t in sound_trials(study)), default=0.0)  # of several values there is no one
        assert best < 1e9
        return super().prepare(study, trial, rng)


def test_a_sampler_that_claims_several_objectives_is_tried_with_two() -> None:
    checks.check_sampler(Both)
    with pytest.raises(Exception, match="multi-objective"):
        checks.check_sampler(FirstOnly)
    with pytest.raises(AssertionError, match="with two objectives, check_resume"):
        checks.check_sampler(Forgetful)


class Forgetful(Both):
    """Keeps in its process how often it was asked, of two objectives."""

    asked = 0

    def prepare(self, study, trial, rng):
        self.asked += len(study.directions) > 1
        return super().prepare(study, trial, checks_rng(self.seed, trial.number, self.asked))


def test_a_sampler_of_one_objective_refuses_two() -> None:
    with pytest.raises(AssertionError, match="check_refusal"):
        checks.check_refusal(lambda seed: RandomSampler(seed=seed))
    checks.check_refusal(Sound)


def test_a_sound_sampler_passes() -> None:
    checks.check_sampler(Sound)


@pytest.mark.parametrize(
    ("check", "faulty", "message"),
    [
        (checks.check_answers, OutOfRange, r"layer\.0\.width"),
        (checks.check_determinism, Unseeded, "although the seeds are equal"),
        (checks.check_determinism, lambda seed: Sound(0), "is the seed used"),
        (checks.check_resume, StateInProcess, "after a restart"),
        (checks.check_resume, lambda seed: RandomSampler(seed=seed), "after a restart"),
        (checks.check_workers, SameForAll, "15 of 15"),
        (checks.check_directions, Minimizes, "is negated"),
        (checks.check_unfinished, NeedsParams, "KeyError"),
        (checks.check_foreign, NeedsItsMark, "KeyError"),
        (checks.check_pickle, Unpicklable, "pickle"),
    ],
)
def test_each_check_catches_its_planted_fault(check, faulty, message) -> None:
    with pytest.raises(AssertionError, match=message):
        check(faulty)


def test_every_check_has_a_planted_fault() -> None:
    marks = test_each_check_catches_its_planted_fault.pytestmark
    assert {row[0] for mark in marks for row in mark.args[1]} == set(checks.CHECKS)


def test_the_space_of_the_checks_is_conditional() -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    study.optimize(checks.conditional, n_trials=30)
    assert len({frozenset(trial.params) for trial in study.trials}) > 5
    assert isinstance(study.sampler, BaseSampler)
