"""When a value is reused, and when not."""

import optuna
import pytest
from fixtures.counting import CountingEstimator, mlp, run
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.objective import Objective


@pytest.fixture
def trusted(monkeypatch):
    """Twins are believed at once."""
    monkeypatch.setattr("optnas.twins.AUDITS", 0)


def test_twin_reuses_the_value_and_names_its_trial(trusted):
    estimator = CountingEstimator()
    twins = [{"width": 3, "skip": s, "lr": 0.1} for s in ("identity", "dropout0")]
    study = run(Objective(mlp, estimator), twins)
    assert estimator.calls == [0]
    first, second = study.trials
    assert second.state == TrialState.COMPLETE
    assert second.value == first.value
    assert record.TWIN_OF.of(second) == 0
    assert record.METRICS.of(second) == record.METRICS.of(first)


TWINS = [{"width": w, "skip": s, "lr": 0.1} for w in (3, 4, 5) for s in ("identity", "dropout0")]


def test_the_first_twins_are_trained_all_the_same_from_the_others_seed():
    estimator = CountingEstimator()
    study = run(Objective(mlp, estimator), TWINS)
    assert estimator.calls == [0, 1, 2, 3, 4]
    assert [record.AUDIT_OF.of(t) for t in study.trials] == [None, 0, None, 2, None, None]
    assert [record.TWIN_OF.of(t) for t in study.trials] == [None] * 5 + [4]
    seeds = [record.SEED.of(t) for t in study.trials]
    assert (seeds[1], seeds[3]) == (seeds[0], seeds[2])
    assert [record.counts(t) for t in study.trials] == [True, False, True, False, True, False]
    assert record.TWINS_DIFFER.of(study) is None


class AfterTheFirst(optuna.pruners.BasePruner):
    """Prunes every trial but the first."""

    def prune(self, study, trial):
        return trial.number > 0


def test_a_twin_that_is_trained_to_compare_values_is_not_pruned():
    class Reporting(CountingEstimator):
        def __call__(self, model, trial):
            trial.report(0.5, 0)
            if trial.should_prune():
                raise optuna.TrialPruned
            return super().__call__(model, trial)

    estimator = Reporting()
    objective = Objective(mlp, estimator)
    study = optuna.create_study(directions=objective.directions, pruner=AfterTheFirst())
    run(objective, [*TWINS[:2], {"width": 6, "skip": "identity", "lr": 0.1}], study)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert record.AUDIT_OF.of(study.trials[1]) == 0
    assert study.trials[1].value == study.trials[0].value


def test_twins_that_train_to_other_values_end_all_reuse_with_a_message(caplog):
    class ReadsAnAnswerTheGraphDoesNotShow(CountingEstimator):
        def __call__(self, model, trial):
            metrics = super().__call__(model, trial)
            return {**metrics, "score": metrics["score"] + (trial.params["skip"] == "identity") * 1e-3}

    estimator = ReadsAnAnswerTheGraphDoesNotShow()
    objective = Objective(mlp, estimator)
    study = run(objective, TWINS)
    assert estimator.calls == [0, 1, 2, 3, 4, 5]
    assert all(record.TWIN_OF.of(t) is None for t in study.trials)
    message = record.TWINS_DIFFER.of(study)
    assert "trial 1 builds the same network as trial 0" in message.lower()
    assert "skip: 'identity' or 'dropout0'" in message
    assert message in caplog.text
    assert not objective.trusts_twins(study)


def test_layers_made_in_another_order_draw_other_weights_and_that_is_no_difference():
    class Parallel(nn.Module):
        def __init__(self, order):
            super().__init__()
            for name in order:
                setattr(self, name, nn.Linear(4, 8))

        def forward(self, x):
            return self.a(x).relu() + self.b(x).sigmoid()

    def space(trial):
        return Parallel(trial.suggest_categorical("order", ["ab", "ba"]))

    def estimate(model, trial):
        return {"score": float(model.a.weight.detach().sum())}

    objective = Objective(space, estimate, values={"score": "maximize"}, example=(2, 4))
    study = run(objective, [{"order": "ab"}, {"order": "ba"}])
    first, second = study.trials
    assert record.AUDIT_OF.of(second) == 0
    assert record.INITIAL.of(first) != record.INITIAL.of(second)
    assert first.value != second.value
    assert record.TWINS_DIFFER.of(study) is None


def test_a_twin_does_not_count_though_an_earlier_attempt_had_begun_to_train_it(trusted):
    study = optuna.create_study(direction="maximize")
    objective = Objective(mlp, CountingEstimator())
    run(objective, [TWINS[0]], study)
    study.enqueue_trial(TWINS[1], user_attrs={record.COUNTS.name: True})  # it was interrupted
    study.optimize(objective, n_trials=1)
    assert record.TWIN_OF.of(study.trials[1]) == 0
    assert record.n_counted(study.trials) == 1


@pytest.mark.parametrize(
    "other", [{"width": 3, "skip": "identity", "lr": 0.2}, {"width": 4, "skip": "identity", "lr": 0.1}]
)
def test_other_answers_are_no_twin(other):
    estimator = CountingEstimator()
    run(Objective(mlp, estimator), [{"width": 3, "skip": "identity", "lr": 0.1}, other])
    assert estimator.calls == [0, 1]


def test_a_trial_that_somebody_told_while_it_ran_is_no_twin():
    objective = Objective(mlp, CountingEstimator(), values={"n_params": "minimize"})
    params = {"width": 3, "skip": "identity", "lr": 0.1}
    known = run(objective, [params]).trials[0].user_attrs
    before_training = {
        key.name: known[key.name] for key in (record.FINGERPRINT, record.SETTINGS, record.FACTS)
    }
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=5.0, user_attrs=before_training))
    run(objective, [params], study)
    assert study.trials[1].state == TrialState.COMPLETE
    assert record.TWIN_OF.of(study.trials[1]) is None


def test_other_settings_are_no_twin():
    params = {"width": 3, "skip": "identity", "lr": 0.1}
    study = run(Objective(mlp, CountingEstimator()), [params])
    changed = CountingEstimator()
    changed.settings = {"version": 2}
    run(Objective(mlp, changed), [params], study)
    assert changed.calls == [1]


def test_only_complete_trials_are_reused():
    estimator = CountingEstimator()
    params = {"width": 3, "skip": "identity", "lr": 0.1}

    class Pruning(CountingEstimator):
        def __call__(self, model, trial):
            trial.suggest_float("lr", 0.1, 0.2, step=0.1)
            raise optuna.TrialPruned("too slow")

    study = run(Objective(mlp, Pruning()), [params])
    assert record.why(study.trials[0]) == "too slow"
    run(Objective(mlp, estimator), [params], study)
    assert estimator.calls == [1]


def test_repeats_are_trained_on_request_with_other_seeds():
    estimator = CountingEstimator()
    params = {"width": 3, "skip": "identity", "lr": 0.1}
    study = run(Objective(mlp, estimator, reuse_twins=False), [params, params])
    assert estimator.calls == [0, 1]
    weights = [record.METRICS.of(t)["weight"] for t in study.trials]
    assert weights[0] != weights[1]


def test_a_twin_of_what_breaks_the_limit_of_a_metric_breaks_it_too(trusted):
    estimator = CountingEstimator(asks_lr=False)
    objective = Objective(mlp, estimator, limits={"score": 10})
    study = run(objective, [{"width": 3, "skip": skip} for skip in ("identity", "dropout0")])
    assert estimator.calls == [0]
    assert record.TWIN_OF.of(study.trials[1]) == 0
    assert study.trials[1].constraints == study.trials[0].constraints
