import optuna
import pytest
from optuna.pruners import MedianPruner, NopPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.data.digits import Digits
from optnas.estimation.run import Run
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.strategy.front_pruner import FrontPruner
from optnas.tasks.classification import Classification
from optnas.training.training import Training

VALUES = {"score": "maximize", "n_params": "minimize"}
STEPS = 6


def space(trial):
    return nn.Linear(1, trial.suggest_int("width", 1, 400))


class Curve:
    """A curve that rises to the answer `level` of the trial."""

    def example(self, trial):
        return (2, 1)

    def __call__(self, model, run):
        level = run.suggest_float("level", 0, 1)
        for step in range(STEPS):
            run.report(step, {"score": level * (step + 1) / STEPS})
            if run.should_prune():
                raise optuna.TrialPruned
        return {"score": level}


def searched(pruner, *trials, values=VALUES):
    objective = Objective(space, Curve(), values=values)
    study = create_study(objective, pruner=pruner, seed=0)
    for width, level in trials:
        study.enqueue_trial({"width": width, "level": level})
    optimize(study, objective, n_trials=len(trials))
    return study


def ends(study):
    return [trial.state == TrialState.PRUNED for trial in study.trials]


GOOD = [(10, 0.5), (20, 0.6), (30, 0.7), (40, 0.8), (50, 0.9)]


def test_what_is_worse_than_cheaper_ones_stops_and_what_is_cheap_goes_on():
    pruner = FrontPruner(MedianPruner(n_startup_trials=2))
    # As bad as the sixth is, nothing is cheaper; the seventh is as bad, and dearer than all.
    study = searched(pruner, *GOOD, (5, 0.1), (100, 0.1))
    assert ends(study) == [False] * 6 + [True]
    assert list(record.REPORTS.of(study.trials[6])) == ["0"]
    assert record.why(study.trials[6]) == "pruned"
    assert record.counts(study.trials[6])


def test_optunas_pruners_stop_nothing_of_several_objectives_unless_they_are_wrapped():
    assert not any(ends(searched(MedianPruner(n_startup_trials=2), *GOOD, (100, 0.1))))


@pytest.mark.parametrize(
    "pruner",
    [
        MedianPruner(n_startup_trials=2, n_warmup_steps=2),
        PercentilePruner(80.0, n_startup_trials=2),
        SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    ],
)
def test_any_pruner_of_one_objective_decides(pruner):
    study = searched(FrontPruner(pruner), *GOOD, (100, 0.01))
    assert ends(study)[-1]
    assert not any(ends(searched(FrontPruner(NopPruner()), *GOOD, (100, 0.01))))


def test_nothing_on_the_front_is_lost_where_curves_do_not_cross():
    trials = [(5 * i, ((i * 7) % 20) / 20) for i in range(1, 40)]
    study = searched(FrontPruner(PercentilePruner(100.0 / 3, n_startup_trials=1)), *trials)
    assert sum(ends(study)) > 10
    front = {w for w, level in trials if all(level > other for v, other in trials if v < w)}
    complete = {t.params["width"] for t in study.trials if t.state == TrialState.COMPLETE}
    assert front <= complete


def test_an_objective_that_nobody_knows_before_is_named():
    class Two(Curve):
        def __call__(self, model, run):
            return {**super().__call__(model, run), "other": 1.0}

    objective = Objective(space, Two(), values={"score": "maximize", "other": "minimize"})
    study = create_study(objective, pruner=FrontPruner(), seed=0)
    with pytest.raises(ValueError, match="score, other is not known before training"):
        study.optimize(objective, n_trials=1)


def test_the_first_report_of_all_prunes_nothing():
    study = create_study(Objective(space, Curve(), values=VALUES), pruner=FrontPruner())
    run = Run.of(study.ask())
    record.write_facts(run, {"n_params": 3})
    assert not run.should_prune()
    run.report(0, {"score": 0.5})
    assert not run.should_prune()


def test_a_training_reports_every_validation_and_is_pruned():
    training = Training(Classification(10), Digits(), monitor="val_acc", mode="max", max_epochs=3)

    def net(trial):
        width = trial.suggest_int("width", 4, 64)
        dead = trial.suggest_categorical("dead", [False, True])
        layers = [nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)]
        return nn.Sequential(nn.Flatten(), *([nn.Threshold(1e6, 0.0)] if dead else []), *layers)

    objective = Objective(net, training, values={"val_acc": "maximize", "n_params": "minimize"})
    pruner = FrontPruner(PercentilePruner(60.0, n_startup_trials=1))
    study = create_study(objective, pruner=pruner, seed=0)
    for width, dead in ((8, False), (16, False), (32, True)):
        study.enqueue_trial({"width": width, "dead": dead})
    optimize(study, objective, n_trials=3)
    assert [len(record.REPORTS.of(trial)) for trial in study.trials] == [3, 3, 1]
    assert study.trials[2].state == TrialState.PRUNED
    assert record.why(study.trials[2]).startswith("pruned at step 0: val_acc is")
