"""A table of samplers and of what surrounds them, in searches with several objectives: each with each."""

from itertools import pairwise

import optuna
import pytest
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from torch import nn

from optnas import record
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.storage.open import open_storage
from optnas.strategy.distinct import DistinctSampler
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.local_search import LocalSearchSampler
from optnas.strategy.padded import PaddedSampler
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.seeded import SeededSampler
from optnas.testing.samplers import check_sampler, conditional

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def predictor(seed: int) -> BaseSampler:
    return PredictorSampler(space, n_startup_trials=4, seed=seed)


def evolution(seed: int) -> BaseSampler:
    return RegularizedEvolutionSampler(5, 2, seed=seed)


def local_search(seed: int) -> BaseSampler:
    return LocalSearchSampler(3, seed=seed)


def nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=4, seed=seed)


def nsga3(seed: int) -> BaseSampler:
    return NSGAIIISampler(population_size=4, seed=seed)


def tpe(seed: int) -> BaseSampler:
    return TPESampler(n_startup_trials=4, seed=seed)


def gp(seed: int) -> BaseSampler:
    return GPSampler(n_startup_trials=7, seed=seed)


SAMPLERS = {make.__name__: make for make in (predictor, evolution, local_search, nsga2, nsga3, tpe, gp)}


def space(trial):
    """Some answers come to the same network: dropout of nothing."""
    depth = trial.suggest_int("depth", 1, 2)
    sizes = [4, *(trial.suggest_categorical(f"units.{i}", (1, 2, 4, 8)) for i in range(depth)), 2]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    idle = trial.suggest_categorical("extra", ["nothing", "dropout"]) == "dropout"
    return nn.Sequential(*layers, *([nn.Dropout(0.0)] if idle else []))


def score(model, run):
    return {"score": float(sum(p.numel() for p in model.parameters()) ** 0.5)}


VALUES = {"score": "maximize", "flops": "minimize"}


def objective_of(estimate=score) -> Objective:
    return Objective(space, estimate, values=VALUES, example=(2, 4))


def assert_sound(study: optuna.Study, n_trials: int) -> None:
    assert record.n_counted(study.trials) == n_trials
    for trial in study.trials:
        assert record.end(trial) in (record.End.COMPLETE, record.End.TWIN)
        assert trial.values == [trial.values[0], record.facts(trial)["flops"]]


def resumes(make, folder) -> None:
    """In another process's place: a new study object, sampler and storage."""
    for n_trials in (4, 8):
        objective = objective_of()
        study = create_study(objective, storage=f"sqlite:///{folder}/a.db", sampler=make, seed=0)
        optimize(study, objective, n_trials=n_trials)
        assert_sound(study, n_trials)


def shares(make, folder) -> None:
    """Two that take turns on one storage repeat nothing."""
    url = f"sqlite:///{folder}/a.db"
    objective = objective_of()
    studies = [create_study(objective, storage=open_storage(url), sampler=make, seed=0) for _ in range(2)]
    for n_trials in range(1, 9):
        optimize(studies[n_trials % 2], objective, n_trials=n_trials)
    assert_sound(studies[0], 8)
    params = [str(sorted(trial.params.items())) for trial in studies[0].trials]
    assert len(set(params)) == len(params)


def reuses(make, folder) -> None:
    """A twin takes over all values, and does not count."""
    objective = objective_of()
    study = create_study(objective, sampler=make, seed=0)
    for extra in ("nothing", "dropout"):
        study.enqueue_trial({"depth": 1, "units.0": 2, "extra": extra})
    optimize(study, objective, n_trials=6)
    assert_sound(study, 6)
    kinds = [record.TWIN_OF.of(study.trials[1]), record.AUDIT_OF.of(study.trials[1])]
    assert 0 in kinds
    assert study.trials[1].values == study.trials[0].values


def recovers(make, folder) -> None:
    """A trial that was interrupted goes on under its number, with its answers."""

    def interrupted(model, run):
        if run.number == 5 and not (folder / "again").exists():
            (folder / "again").touch()
            raise KeyboardInterrupt
        return score(model, run)

    objective = objective_of(interrupted)
    study = create_study(objective, storage=f"sqlite:///{folder}/a.db", sampler=make, seed=0)
    with pytest.raises(KeyboardInterrupt):
        optimize(study, objective, n_trials=8)
    before = study.trials[5].params
    optimize(study, objective, n_trials=8)
    assert_sound(study, 8)
    assert study.trials[5].params == before
    assert len(record.attempts(study.trials[5])) == 2


def limited(make, folder) -> None:
    """What breaks a limit that can be computed is not proposed."""
    objective = Objective(space, score, values=VALUES, example=(2, 4), limits={"flops": 160})
    study = create_study(objective, sampler=make, seed=0)
    optimize(study, objective, n_trials=8)
    assert_sound(study, 8)
    assert max(trial.values[1] for trial in study.trials) <= 160


def distinct(make, folder) -> None:
    """Under plain Optuna too, in a view without repeats."""
    study = create_study(objective_of(), seed=0)
    study.sampler = DistinctSampler(SeededSampler(make, 0), space, seed=0)
    study.optimize(objective_of(), n_trials=8)
    params = [str(sorted(trial.params.items())) for trial in study.trials]
    assert len(set(params)) == len(params)


def padded(make, folder) -> None:
    """A view of fixed length, for samplers that leave conditional decisions to chance."""
    objective = objective_of()
    study = create_study(objective, sampler=lambda seed: PaddedSampler(make(seed), space), seed=0)
    optimize(study, objective, n_trials=8)
    assert_sound(study, 8)


ABILITIES = [resumes, shares, reuses, recovers, limited, distinct, padded]


@pytest.mark.parametrize("ability", ABILITIES, ids=lambda ability: ability.__name__)
@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_each_goes_with_each(make, ability, tmp_path) -> None:
    ability(make, tmp_path)


@pytest.mark.parametrize("make", [evolution, local_search], ids=lambda make: make.__name__)
def test_ours_conform_with_two_objectives_as_they_claim(make) -> None:
    assert make(0).several
    check_sampler(make)


def test_the_predictor_conforms_with_two_objectives() -> None:
    check_sampler(lambda seed: PredictorSampler(conditional, n_startup_trials=25, seed=seed), several=True)


@pytest.mark.parametrize("make", [nsga2, tpe], ids=lambda make: make.__name__)
def test_optunas_conform_with_two_objectives(make) -> None:
    check_sampler(lambda seed: SeededSampler(make, seed), several=True)
