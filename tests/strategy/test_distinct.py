import pickle
from collections import Counter

import optuna
import pytest
from optuna.samplers import (
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.testing.pytest_samplers import MultiObjectiveSamplerTestCase

from optnas.errors import SpaceExhausted
from optnas.record import PLAN
from optnas.space import count, enumerate_params
from optnas.strategy.cmaes import MixedCmaEsSampler
from optnas.strategy.distinct import DistinctSampler
from optnas.strategy.evolution import RegularizedEvolutionSampler
from optnas.strategy.local_search import LocalSearchSampler
from optnas.strategy.padded import PaddedSampler
from optnas.strategy.predictor import PredictorSampler
from optnas.strategy.reinforce import ReinforceSampler
from optnas.strategy.seeded import SeededSampler
from optnas.testing.samplers import check_sampler, conditional
from optnas.trial import Trial, replay


def space81(trial):
    """27 + 2 * 27 architectures."""
    if trial.suggest_categorical("kind", ["plain", "deep"]) == "plain":
        return [trial.suggest_categorical(f"op{i}", ["a", "b", "c"]) for i in range(3)]
    n = trial.suggest_int("n", 1, 2)
    return [trial.suggest_categorical(f"deep{n}.{i}", ["a", "b", "c"]) for i in range(3)]


def objective(trial):
    return sum(op == "a" for op in space81(trial)) + 0.1 * (trial.params["kind"] == "deep")


def genotypes(study):
    return Counter(tuple(sorted(trial.params.items())) for trial in study.trials)


def make_random(seed):
    return RandomSampler(seed=seed)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomSampler(seed=0),
        lambda: TPESampler(seed=0),
        lambda: TPESampler(seed=0, multivariate=True, group=True),
        lambda: CmaEsSampler(seed=0, warn_independent_sampling=False),
        lambda: NSGAIISampler(population_size=10, seed=0),
        lambda: NSGAIIISampler(population_size=10, seed=0),
        lambda: QMCSampler(seed=0, warn_independent_sampling=False, warn_asynchronous_seeding=False),
        lambda: GPSampler(seed=0, n_startup_trials=30),
        lambda: BruteForceSampler(seed=0),
        lambda: RegularizedEvolutionSampler(10, 3, seed=0),
        lambda: LocalSearchSampler(seed=0),
        lambda: MixedCmaEsSampler(space81, seed=0),
        lambda: ReinforceSampler(seed=0),
        lambda: PredictorSampler(space81, seed=0),
        lambda: PaddedSampler(TPESampler(seed=0), space81),
        lambda: SeededSampler(make_random, 0),
    ],
    ids=[
        *("random", "tpe", "tpe-group", "cmaes", "nsga2", "nsga3", "qmc", "gp", "brute", "evolution"),
        *("local-search", "mixed-cmaes", "reinforce", "predictor", "padded", "seeded"),
    ],
)
def test_every_sampler_visits_40_in_40(make) -> None:
    study = optuna.create_study(sampler=DistinctSampler(make(), space81, seed=0))
    study.optimize(objective, n_trials=40)
    assert len(genotypes(study)) == 40


def test_without_it_half_of_the_trials_are_repeats() -> None:
    study = optuna.create_study(sampler=TPESampler(seed=0))
    study.optimize(objective, n_trials=40)
    assert len(genotypes(study)) < 30


def test_an_exhausted_space_ends_the_search_after_the_last_architecture() -> None:
    study = optuna.create_study(sampler=DistinctSampler(TPESampler(seed=0), space81, seed=0))
    with pytest.raises(SpaceExhausted, match="All 81 distinct architectures"):
        study.optimize(objective, n_trials=100)
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert len(complete) == count(space81) == 81
    assert len(genotypes(study)) == 82  # the failed trial has no params


def test_conforms() -> None:
    check_sampler(lambda seed: DistinctSampler(SeededSampler(make_random, seed), conditional, seed=seed))
    check_sampler(
        lambda seed: DistinctSampler(RegularizedEvolutionSampler(8, 3, seed=seed), conditional, seed=seed)
    )


class TestOptunasOwn(MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: DistinctSampler(NSGAIISampler(seed=0), space81, seed=0)


class Stubborn(RandomSampler):
    """Answers as it always does."""

    def sample_independent(self, study, trial, param_name, param_distribution):
        return param_distribution.choices[0] if param_name != "n" else 1


def test_when_redrawing_does_not_help_a_neighbor_is_taken_and_recorded() -> None:
    study = optuna.create_study(sampler=DistinctSampler(Stubborn(), space81, redraws=2, seed=0))
    study.optimize(objective, n_trials=30)
    plans = [PLAN.of(trial) for trial in study.trials]
    assert plans[0]["how"] == "drawn"
    assert all(plan["params"] == trial.params for plan, trial in zip(plans, study.trials, strict=True))
    how = Counter(plan["how"] for plan in plans)
    assert how["drawn"] == 1
    assert how["neighbor"] > 15
    assert how["random"] > 0
    assert {plan["redraws"] for plan in plans[1:]} == {2}
    first = study.trials[0].params
    for trial, plan in zip(study.trials, plans, strict=True):
        if plan["how"] == "neighbor":
            assert sum(trial.params.get(name, value) != value for name, value in first.items()) == 1


def test_identity_can_say_that_different_answers_are_the_same_network() -> None:
    def identity(params):
        return "".join(sorted(space81(replay(params))))

    distinct = {identity(params) for params in enumerate_params(space81)}
    sampler = DistinctSampler(RandomSampler(seed=0), space81, identity=identity, seed=0)
    study = optuna.create_study(sampler=sampler)
    with pytest.raises(SpaceExhausted, match="All 10 distinct"):
        study.optimize(objective, n_trials=81)
    assert {identity(trial.params) for trial in study.trials if trial.params} == distinct
    assert len(study.trials) - 1 == len(distinct) == 10


def test_what_trials_have_recorded_is_not_worked_out_again() -> None:
    def identity(params):
        return "".join(sorted(space81(replay(params))))

    def recording(trial):
        value = objective(trial)
        trial.set_user_attr("network", identity(trial.params))
        return value

    def search(recorded):
        """Eight trials, after four of which the process ends; what the second process works out."""
        study = optuna.create_study()
        for _ in range(2):
            worked_out = []
            study.sampler = DistinctSampler(
                SeededSampler(make_random, 0),
                space81,
                lambda params, seen=worked_out: seen.append(params) or identity(params),
                recorded,
                seed=0,
            )
            study.optimize(recording, n_trials=4)
        return [trial.params for trial in study.trials], worked_out

    plain, worked_out = search(None)
    recorded, less = search(lambda trial: trial.user_attrs["network"])
    assert recorded == plain
    assert len({identity(params) for params in plain}) == 8
    assert all(params in worked_out for params in plain[:4])
    assert not any(params in less for params in plain[:4])


def test_enqueued_answers_win_even_when_they_repeat() -> None:
    study = optuna.create_study(sampler=DistinctSampler(RandomSampler(seed=0), space81, seed=0))
    whole = {"kind": "deep", "n": 1, "deep1.0": "a", "deep1.1": "b", "deep1.2": "c"}
    for _ in range(2):
        study.enqueue_trial(whole)
    for _ in range(20):
        study.enqueue_trial({"kind": "deep", "n": 1, "deep1.0": "b"})
    study.optimize(objective, n_trials=22)
    assert [t.params for t in study.trials[:2]] == [whole, whole]
    rest = Counter(tuple(sorted(t.params.items())) for t in study.trials[2:])
    assert all(t.params["deep1.0"] == "b" for t in study.trials[2:])
    assert len(rest) == 9  # 3 * 3 are possible; after that, repeats
    assert Counter(PLAN.of(t)["how"] == "repeat" for t in study.trials[2:]) == {True: 11, False: 9}


def test_a_waiting_trial_is_not_anticipated() -> None:
    study = optuna.create_study(sampler=DistinctSampler(RandomSampler(seed=0), space81, seed=0))
    waiting = next(enumerate_params(space81))
    trials = []
    for i in range(80):
        trials.append(study.ask())
        if i == 0:
            study.enqueue_trial(waiting)
            continue
    # The first ask took no enqueued trial; the second did; all others keep away from it.
    for trial in trials:
        objective(trial)
    assert Counter(trial.params == waiting for trial in trials) == {True: 1, False: 79}


def test_running_trials_of_other_workers_are_seen_before_they_answer() -> None:
    study = optuna.create_study()
    workers = [DistinctSampler(RandomSampler(seed=0), space81, seed=0) for _ in range(3)]
    running = []
    for i in range(60):
        study.sampler = workers[i % 3]
        trial = study.ask()
        trial.suggest_categorical("kind", ["plain", "deep"])  # the plan is made at the first question
        running.append(trial)
    for trial in running:
        objective(trial)
    assert len({tuple(sorted(trial.params.items())) for trial in running}) == 60


def test_questions_beyond_the_space_go_to_the_inner_sampler() -> None:
    study = optuna.create_study(sampler=DistinctSampler(TPESampler(seed=0), space81, seed=0))

    def joint(trial):
        return objective(trial) + (trial.suggest_float("lr", 0, 1) - 0.7) ** 2

    study.optimize(joint, n_trials=60)
    assert len({tuple(t.params[k] for k in t.params if k != "lr") for t in study.trials}) == 60
    late = [trial.params["lr"] for trial in study.trials[30:]]
    assert sum(abs(lr - 0.7) < 0.2 for lr in late) > 20  # 12 by chance


def test_a_space_with_a_rare_continuous_branch_is_not_exhausted() -> None:
    def space(trial):
        if trial.suggest_int("rare", 0, 60) == 60:
            trial.suggest_float("x", 0, 1)

    study = optuna.create_study(sampler=DistinctSampler(RandomSampler(seed=0), space, redraws=0, seed=0))
    study.optimize(lambda trial: space(trial) or 0.0, n_trials=70)
    assert len(genotypes(study)) == 70


def test_negative_redraws_are_refused() -> None:
    with pytest.raises(ValueError, match="redraws=-1"):
        DistinctSampler(RandomSampler(), space81, redraws=-1)


def test_an_architecture_that_cannot_be_built_fails_once_with_its_own_error() -> None:
    def space(trial):
        if trial.suggest_int("a", 0, 9) % 2:
            raise ValueError("odd")
        return 0.0

    def identity(params):
        space(replay(params))
        return params["a"]

    sampler = DistinctSampler(RandomSampler(seed=0), space, identity=identity, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(space, n_trials=10, catch=ValueError)
    states = {trial.params["a"]: trial.state.name for trial in study.trials}
    assert states == {a: "FAIL" if a % 2 else "COMPLETE" for a in range(10)}


def test_the_end_of_a_small_space_is_known_without_a_trial_more() -> None:
    sampler = DistinctSampler(RandomSampler(seed=0), space81, seed=0)
    study = optuna.create_study(sampler=sampler)
    while sampler.exhausted(study) is None:
        study.optimize(objective, n_trials=1)
    assert len(study.trials) == 81
    assert "All 81 distinct architectures" in str(sampler.exhausted(study))
    study.enqueue_trial(study.trials[0].params)
    assert sampler.exhausted(study) is None  # it waits to be run


def test_the_end_of_a_large_or_a_continuous_space_is_not_looked_for() -> None:
    built = []

    def large(trial):
        built.append(trial)
        return float(sum(trial.suggest_int(f"n{i}", 0, 9) for i in range(4)))

    def continuous(trial):
        built.append(trial)
        return trial.suggest_float("x", 0, 1)

    for space in (large, continuous):
        built.clear()
        sampler = DistinctSampler(RandomSampler(seed=0), space, seed=0)
        study = optuna.create_study()
        for number in range(400):
            study.add_trial(optuna.trial.create_trial(value=float(number)))
            assert sampler.exhausted(study) is None
        assert len(built) <= 3 * 200


def test_an_end_is_looked_for_no_further_than_the_first_that_nobody_tried() -> None:
    """Networks that nobody asked for may be huge, or end the process that builds them."""
    built = []

    def space(trial: Trial) -> int:
        width = trial.suggest_int("width", 1, 9)
        built.append(width)
        return width

    sampler = DistinctSampler(optuna.samplers.RandomSampler(seed=0), space, seed=0)
    study = optuna.create_study(sampler=sampler)
    for width in (1, 2, 3):
        study.enqueue_trial({"width": width})
    study.optimize(space, n_trials=3)
    for _ in range(2):
        built.clear()
        assert sampler.exhausted(study) is None
        assert max(built, default=0) <= 4
    study.optimize(space, n_trials=6)
    assert "All 9 distinct" in str(sampler.exhausted(study))
    assert pickle.loads(pickle.dumps(DistinctSampler(optuna.samplers.RandomSampler(), len))).exhausted
