"""Searches with several objectives, through `optimize` and what surrounds it."""

from itertools import pairwise

import optuna
import pytest
from optuna.samplers import GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from torch import nn

from optnas import pareto, private, record
from optnas.errors import ParamsMismatchError, SpaceError
from optnas.facts.fact import Fact
from optnas.objective import Objective
from optnas.record import End
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.strategy.cmaes import MixedCmaEsSampler
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.halving import HalvingPruner
from optnas.strategy.local_search import LocalSearchSampler
from optnas.strategy.padded import PaddedSampler

UNITS = (1, 2, 4, 8, 16, 32)
VALUES = {"score": "maximize", "flops": "minimize"}


def space(trial):
    sizes = [4, *(trial.suggest_categorical(f"units.{i}", UNITS) for i in range(3)), 2]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    # Two answers, one network: dropout with p=0 is the identity.
    extra = trial.suggest_categorical("extra", ["nothing", "dropout"])
    return nn.Sequential(*layers, *([nn.Dropout(0.0)] if extra == "dropout" else []))


class Score:
    """The first layer counts most, the last hardly."""

    settings = None

    def __init__(self):
        self.calls = []

    def example(self, trial):
        return (2, 4)

    def __call__(self, model, run):
        self.calls.append(run.number)
        return {"score": sum(model[i].out_features ** 0.5 / 4**i for i in range(3))}


def make(**more):
    score = Score()
    return Objective(space, score, **{"values": VALUES, **more}), score


SAMPLERS = {
    "predictor": None,
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(population_size=8, seed=seed),
    "nsga3": lambda seed: NSGAIIISampler(population_size=8, seed=seed),
    "gp": lambda seed: GPSampler(seed=seed, n_startup_trials=11),
    "evolution": lambda seed: RegularizedEvolutionSampler(6, 3, seed=seed),
    "local-search": lambda seed: LocalSearchSampler(4, seed=seed),
    "padded": PaddedSampler(TPESampler(seed=0), space),
}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_sampler_that_takes_several_goes_on_where_it_was(sampler):
    objective, _ = make(limits={"n_params": 500})
    study = create_study(objective, seed=0, sampler=sampler)
    assert study.metric_names == ["score", "flops"]
    optimize(study, objective, n_trials=7)
    optimize(study, objective, n_trials=12)
    assert sum(map(record.counts, study.trials)) == 12
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        assert trial.values == [record.metrics(trial)["score"], record.facts(trial)["flops"]]
        assert record.facts(trial)["n_params"] <= 500
    assert len({str(trial.params) for trial in study.trials}) == len(study.trials)


@pytest.mark.parametrize("sampler", [None, SAMPLERS["evolution"], SAMPLERS["local-search"]])
def test_ours_find_more_of_the_front_than_chance(sampler):
    def losses(make_sampler):
        objective, _ = make()
        study = create_study(objective, seed=1, sampler=make_sampler)
        optimize(study, objective, n_trials=40)
        return pareto.losses(study, pareto.front_trials(study))

    reference = pareto.reference_point(pareto.losses(*_ends()))
    ours = private.hypervolume(losses(sampler), reference)
    assert ours > private.hypervolume(losses(SAMPLERS["random"]), reference)


def _ends():
    """A study with some dear and some bad networks, which say how far values go."""
    objective, _ = make()
    study = optuna.create_study(directions=objective.directions)
    for units in (1, 32):
        study.enqueue_trial({**{f"units.{i}": units for i in range(3)}, "extra": "nothing"})
    study.optimize(objective, n_trials=2)
    return study, study.trials


def test_a_twin_takes_over_all_values(monkeypatch):
    monkeypatch.setattr("optnas.twins.AUDITS", 0)
    objective, score = make()
    study = create_study(objective, seed=0)
    for extra in ("nothing", "dropout"):
        study.enqueue_trial({"units.0": 2, "units.1": 4, "units.2": 8, "extra": extra})
    optimize(study, objective, n_trials=2)
    assert record.TWIN_OF.of(study.trials[1]) == 0
    assert study.trials[1].values == study.trials[0].values
    assert len(score.calls) == 2  # the third trial is another network


def test_twins_of_which_one_value_differs_end_all_reuse():
    class Odd(Score):
        def __call__(self, model, run):
            return {**super().__call__(model, run), "other": float(run.params["extra"] == "dropout")}

    objective = Objective(space, Odd(), values={"score": "maximize", "other": "minimize"})
    study = create_study(objective, seed=0)
    for extra in ("nothing", "dropout"):
        study.enqueue_trial({"units.0": 2, "units.1": 4, "units.2": 8, "extra": extra})
    study.optimize(objective, n_trials=2)
    assert "got 1 instead of 0" in record.TWINS_DIFFER.of(study)


def test_facts_of_the_users_own_and_only_facts_are_objectives():
    width = Fact("width", lambda model, example: model[0].out_features, better="higher")
    objective, _ = make(facts=[width], values={"width": "maximize", "n_params": "minimize"})
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=12)
    front = pareto.front_trials(study)
    assert max(trial.values[0] for trial in front) == 32


def test_a_value_that_is_not_finite_ends_the_trial_and_names_itself():
    class Diverges(Score):
        def __call__(self, model, run):
            return {"score": float("nan")}

    objective = Objective(space, Diverges(), values=VALUES)
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=1)
    assert record.why(study.trials[0]) == "diverged: score is nan"
    assert record.end(study.trials[0]) is End.PRUNED


def test_an_objective_that_nobody_measures_is_named_with_why():
    def broken(model, example):
        raise RuntimeError("no meter")

    objective, _ = make(facts=[Fact("energy", broken)], values={"score": "maximize", "energy": "minimize"})
    study = create_study(objective, seed=0)
    with pytest.raises(ValueError, match=r"values names 'energy'.*no meter"):
        study.optimize(objective, n_trials=1)


def test_a_study_of_other_objectives_is_refused():
    objective, _ = make()
    study = create_study(objective, seed=0)
    other, _ = make(values={"score": "maximize", "n_params": "minimize"})
    with pytest.raises(ParamsMismatchError, match="maximize score, minimize flops"):
        optimize(study, other, n_trials=1)


def test_a_sampler_of_one_objective_says_what_to_take():
    objective, _ = make()
    study = create_study(objective, seed=0, sampler=lambda seed: MixedCmaEsSampler(space, seed=seed))
    with pytest.raises(SpaceError, match=r"MixedCmaEsSampler searches for one value.*PredictorSampler"):
        study.optimize(objective, n_trials=1)


def test_workers_share_a_search_with_several_objectives(tmp_path):
    objective, _ = make()
    study = create_study(objective, storage=f"sqlite:///{tmp_path}/a.db", seed=0)
    optimize(study, objective, n_trials=6, n_workers=2)
    assert record.n_counted(study.trials) == 6
    assert all(len(trial.values) == 2 for trial in study.trials)


def test_the_default_pruner_of_trainings_lets_a_search_with_several_objectives_end():
    """It ranks what is paused by one value, and with several nothing is."""
    objective, _ = make()
    study = create_study(objective, seed=0, pruner=HalvingPruner())
    optimize(study, objective, n_trials=3)
    optimize(study, objective, n_trials=4)
    assert record.n_counted(study.trials) == 4
