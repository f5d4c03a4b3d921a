import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage

from optnas.benchmarks import synthetic
from optnas.record import CHANGED, PARENT, START
from optnas.strategy.local_search import LocalSearchSampler


def run(sampler, n_trials, objective):
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return study


def separable(trial):
    """Five decisions of four answers; every local optimum is the global one."""
    return float(sum(trial.suggest_categorical(f"x{i}", [0, 1, 2, 3]) != i % 4 for i in range(5)))


def test_reaches_the_only_optimum_within_its_neighborhoods() -> None:
    for seed in range(10):
        study = run(LocalSearchSampler(1, seed=seed), 1 + 6 * 15, separable)
        assert study.best_value == 0


def test_every_trial_changes_one_decision_of_the_best_so_far_and_none_is_repeated() -> None:
    trials = run(LocalSearchSampler(4, seed=0), 60, separable).trials
    seen = set()
    for trial in trials:
        if START.of(trial) is not None:
            break
        if trial.number >= 4:
            parent = trials[PARENT.of(trial)]
            assert parent.value == min(t.value for t in trials[: trial.number])
            differ = {name for name in trial.params if trial.params[name] != parent.params[name]}
            assert differ == {CHANGED.of(trial)}
            assert tuple(trial.params.values()) not in seen
        seen.add(tuple(trial.params.values()))
    assert len(seen) > 20


def test_starts_again_when_no_neighbor_is_better() -> None:
    trials = run(LocalSearchSampler(1, seed=3), 150, separable).trials
    optimum = next(trial.number for trial in trials if trial.value == 0)
    starts = sorted({START.of(t) for t in trials if START.of(t) is not None})
    assert starts[0] > optimum
    before = trials[optimum + 1 : starts[0]]
    assert all(PARENT.of(t) == optimum for t in before)
    tried = {tuple(t.params.values()) for t in trials[: starts[0]]}
    best = trials[optimum].params
    for name in best:
        for value in range(4):
            assert tuple({**best, name: value}.values()) in tried
    children = [t for t in trials if START.of(t) == starts[0] and t.number != starts[0]]
    assert all(PARENT.of(t) >= starts[0] for t in children)
    assert children


def test_new_decisions_of_a_neighbor_are_drawn_and_old_ones_kept() -> None:
    trials = run(LocalSearchSampler(5, seed=0), 120, synthetic.loss).trials
    appeared = 0
    for child in trials[5:]:
        parent = trials[PARENT.of(child)]
        shared = parent.params.keys() & child.params.keys()
        assert {n for n in shared if parent.params[n] != child.params[n]} == {CHANGED.of(child)}
        appeared += bool(child.params.keys() - parent.params.keys())
    assert appeared > 5


def test_beats_random_on_a_space_with_a_known_optimum() -> None:
    for seed in range(3):
        ours = run(LocalSearchSampler(seed=seed), 150, synthetic.loss).best_value
        assert ours < run(RandomSampler(seed=seed), 150, synthetic.loss).best_value - 0.5


def test_impossible_settings_are_named() -> None:
    with pytest.raises(ValueError, match="n_start=0"):
        LocalSearchSampler(0)


def test_a_worker_that_looks_while_another_says_what_it_changes() -> None:
    """Where each attribute is a transaction of its own."""

    class Watched(InMemoryStorage):
        watching = False

        def set_trial_system_attr(self, trial_id, key, value):
            super().set_trial_system_attr(trial_id, key, value)
            if not self.watching:
                self.watching = True
                study.ask().suggest_categorical("x0", range(4))
                self.watching = False

    sampler = LocalSearchSampler(n_start=2, seed=0)
    study = optuna.create_study(storage=Watched(), sampler=sampler)
    for _ in range(4):
        trial = study.ask()
        study.tell(trial, trial.suggest_categorical("x0", range(4)))
