import time

import numpy as np
import optuna
import pytest

from optnas import record
from optnas.benchmarks.tabular import Table, Tabular
from optnas.hub import nasbench201


def choose(trial):
    kind = trial.suggest_categorical("kind", ["a", "b"])
    return (kind, trial.suggest_int("n", 0, 2)) if kind == "a" else (kind,)


KEYS = [("a", 0), ("a", 1), ("a", 2), ("b",)]


def make_table(**columns):
    values = np.array([[1.0, 3.0], [5.0, np.nan], [4.0, 4.0], [0.0, 1.0]])
    return Table("toy", choose, KEYS, "loss", "minimize", values, **columns)


def fixed(params):
    study = optuna.create_study()
    study.enqueue_trial(params)
    return study.ask()


def test_value_is_the_mean_of_the_published_trainings() -> None:
    tabular = Tabular(make_table(test=np.arange(4.0), seconds=np.full(4, 7.0)))
    trial = fixed({"kind": "a", "n": 0})
    assert tabular.objective(trial) == 2.0
    assert record.METRICS.of(trial) == {"loss": 2.0, "test": 0.0, "seconds": 7.0}
    assert tabular.objective(fixed({"kind": "a", "n": 1})) == 5.0


def test_with_a_seed_each_trial_draws_one_training_for_ever() -> None:
    tabular = Tabular(make_table(), seed=3)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(tabular.objective, n_trials=60)
    for trial in study.trials:
        assert tabular(None, trial)["loss"] == trial.value
    b_values = {t.value for t in study.trials if t.params == {"kind": "b"}}
    assert b_values == {0.0, 1.0}
    assert {t.value for t in study.trials if t.params.get("n") == 1} == {5.0}


def test_curves_are_reported_and_pruned() -> None:
    curves = np.array([[9.0, 8.0, 7.0]] * 3 + [[90.0, 80.0, 70.0]])
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=85))
    for params in ({"kind": "a", "n": 2}, {"kind": "b"}):
        study.enqueue_trial(params)
    seconds = np.array([6.0, 6.0, 6.0, 9.0])
    study.optimize(Tabular(make_table(curves=curves, seconds=seconds)).objective, n_trials=2)
    good, bad = study.trials
    assert good.state == optuna.trial.TrialState.COMPLETE
    assert good.intermediate_values == {0: 9.0, 1: 8.0, 2: 7.0}
    assert bad.state == optuna.trial.TrialState.PRUNED
    assert bad.intermediate_values == {0: 90.0}
    assert record.METRICS.of(good)["seconds"] == 6.0
    assert record.METRICS.of(bad) == {"seconds": 3.0}  # of one step in three


def test_best_follows_the_direction() -> None:
    assert KEYS[make_table().best] == ("b",)
    values = np.array([[1.0], [5.0], [4.0], [0.0]])
    assert Table("toy", choose, KEYS, "acc", "maximize", values).best == 1


def test_unknown_key_and_wrong_columns_say_what_to_do() -> None:
    with pytest.raises(KeyError, match="no row for"):
        make_table().row("c")
    with pytest.raises(ValueError, match="column 'test' has 3 rows for 4 keys"):
        make_table(test=np.zeros(3))
    with pytest.raises(ValueError, match="1 keys appear twice"):
        Table("toy", choose, [*KEYS[:3], KEYS[0]], "loss", "minimize", np.zeros((4, 1)))


def test_a_lookup_costs_well_below_a_millisecond() -> None:
    tabular = Tabular(nasbench201.table())
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(tabular.objective, n_trials=1)
    start = time.thread_time()  # of this thread alone: others may keep the machine busy
    for _ in range(200):
        tabular(None, study.trials[0])
    assert (time.thread_time() - start) / 200 < 1e-3
