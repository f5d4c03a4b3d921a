import random

import optuna
import pytest
import torch
from fixtures.counting import CountingEstimator, mlp, run
from optuna.trial import FixedTrial, TrialState
from torch import nn

from optnas import record
from optnas.errors import ParamsMismatchError, SearchFailedError, SpaceError
from optnas.estimation.estimator import Estimator
from optnas.facts.fact import Fact
from optnas.objective import Objective
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.seeds import derive_seed


def test_facts_metrics_and_seed_are_recorded():
    study = run(Objective(mlp, CountingEstimator()), [{"width": 3, "skip": "identity", "lr": 0.1}])
    [trial] = study.trials
    assert record.facts(trial) == {"n_params": 4 * 3 + 3 + 3 + 1, "flops": 2 * (4 * 3 + 3)}
    assert record.metrics(trial)["score"] == trial.value
    assert record.ASKED.of(trial) == {"lr": 0.1}
    assert record.attempts(trial)[0]["pid"]
    assert record.SEED.of(trial) == derive_seed(study.study_name, 0)
    # What people read in a dashboard.
    assert trial.user_attrs["n_params"] == 19
    assert trial.user_attrs["metrics"] == record.METRICS.of(trial)


def test_seed_decides_the_weights_and_is_inherited():
    objective = Objective(mlp, CountingEstimator(), reuse_twins=False)
    params = {"width": 3, "skip": "identity", "lr": 0.1}
    study = optuna.create_study(direction="maximize")
    for _ in range(2):
        study.enqueue_trial(params, user_attrs={record.SEED.name: 7})
    study.optimize(objective, n_trials=2)
    weights = [record.METRICS.of(t)["weight"] for t in study.trials]
    assert weights[0] == weights[1]
    assert [record.SEED.of(t) for t in study.trials] == [7, 7]


def test_a_space_that_draws_sizes_without_asking_fails_instead_of_recording_those_of_another_network():
    def drawing(trial):
        width = trial.suggest_int("width", 2, 6) + random.randrange(10**6) % 997
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 1))

    study = optuna.create_study(direction="maximize")
    with pytest.raises(SpaceError, match="another network from the same answers"):
        study.optimize(Objective(drawing, CountingEstimator()), n_trials=1)
    assert study.trials[0].state == TrialState.FAIL


class Training(CountingEstimator, Estimator):
    """Changes weights, as whoever keeps them does, and statistics."""

    keeps_weights = has_example = True

    def __call__(self, model, trial):
        self.calls.append(trial.number)
        model(torch.randn(8, 4))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(1)
        return {"score": float(sum(tensor.abs().sum() for tensor in model.state_dict().values()))}


def frozen(layer):
    return layer.requires_grad_(False)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Linear(4, 4), "0.weight"),
        (frozen(nn.BatchNorm1d(4)), "0.running_mean"),
        (frozen(nn.Linear(4, 4)), None),
        (frozen(nn.BatchNorm1d(4)).eval(), None),
    ],
)
def test_a_layer_that_several_trials_would_train_is_refused_and_a_frozen_one_is_not(layer, name):
    def space(trial):
        return nn.Sequential(layer, nn.Linear(4, trial.suggest_int("width", 2, 6)))

    study = optuna.create_study(direction="maximize")
    objective = Objective(space, Training())
    for width in (3, 4, 5):
        study.enqueue_trial({"width": width})
    study.optimize(objective, n_trials=3, catch=SpaceError)
    if name is None:
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
        optimize(create_study(objective), objective, 1)
        return
    first, *others = study.trials
    assert first.state == TrialState.COMPLETE
    assert all(trial.state == TrialState.FAIL for trial in others)
    assert f"the same layer into several networks ({name})" in record.why(others[0])
    with pytest.raises(SearchFailedError, match=f"does not begin: The space puts.*{name}"):
        optimize(create_study(objective), objective, 1)


def test_networks_that_a_space_keeps_are_refused_by_who_trains_and_are_fine_for_who_does_not():
    kept = {}

    def space(trial):
        width = trial.suggest_int("width", 2, 3)
        return kept.setdefault(width, nn.Linear(4, width))

    kept.update({width: nn.Linear(4, width) for width in (2, 3)})
    estimator = CountingEstimator(asks_lr=False)
    run(Objective(space, estimator, reuse_twins=False), [{"width": 2}, {"width": 2}])
    assert estimator.calls == [0, 1]
    for first_on_meta in (False, True):
        if first_on_meta:
            kept.clear()
        objective = Objective(space, Training())
        with pytest.raises(SearchFailedError, match="the same layer into several networks"):
            optimize(create_study(objective), objective, 1)


def test_a_direction_against_the_estimators_own_is_refused():
    with pytest.raises(ValueError, match=r"would minimize 'score', and the estimator.*would maximize it"):
        Objective(mlp, CountingEstimator(), values={"n_params": "minimize", "score": "minimize"})


def test_where_only_a_real_device_shows_all_parameters_they_are_counted_there():
    def space(trial):
        model = nn.Linear(4, trial.suggest_int("width", 2, 6))
        if model.weight.device.type != "meta":
            model.scale = nn.Parameter(torch.ones(7))
        return model

    [trial] = run(Objective(space, CountingEstimator()), [{"width": 3}]).trials
    assert record.facts(trial)["n_params"] == 4 * 3 + 3 + 7


def test_shape_error_names_place_layer_and_parameters():
    def broken(trial):
        return nn.Sequential(nn.Linear(4, trial.suggest_int("width", 3, 3)), nn.Linear(5, 1))

    study = optuna.create_study(direction="maximize")
    with pytest.raises(SpaceError) as caught:
        study.optimize(Objective(broken, CountingEstimator()), n_trials=1)
    message = str(caught.value)
    assert "layer '1' (Linear)" in message
    assert "'width': 3" in message
    assert study.trials[0].state == TrialState.FAIL
    assert record.why(study.trials[0]) == message


def test_images_of_whole_numbers_are_told_what_to_do():
    def space(trial):
        return nn.Conv2d(3, trial.suggest_int("width", 1, 4), 3)

    pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    objective = Objective(space, CountingEstimator(), example=pixels)
    with pytest.raises(SpaceError, match=r"numbers of torch.uint8.*convert images with x.float\(\) / 255"):
        run(objective, [{}])


@pytest.mark.parametrize("returned", [None, (nn.Linear(4, 1), 3)])
def test_a_space_that_returns_no_model_is_told_so(returned):
    with pytest.raises(SpaceError, match=rf"space returned {type(returned).__name__}.*return model"):
        run(Objective(lambda trial: returned, CountingEstimator()), [{}])


def test_an_estimator_that_returns_a_bare_number_is_told_what_to_return():
    objective = Objective(mlp, lambda model, trial: 0.5, values={"score": "maximize"}, example=(2, 4))
    with pytest.raises(TypeError, match=r"estimator returned float.*\{'score': value\}"):
        run(objective, [{}])


def test_error_in_a_users_forward_names_file_and_line():
    class Net(nn.Module):
        def forward(self, x):
            return x.reshape(3, 5, 7)  # the line that the message must name

    line = Net.forward.__code__.co_firstlineno + 1
    study = optuna.create_study(direction="maximize")
    with pytest.raises(SpaceError, match=rf"RuntimeError at test_objective.py:{line} in forward"):
        study.optimize(Objective(lambda trial: Net(), CountingEstimator()), n_trials=1)


def test_a_model_that_cannot_run_on_meta_is_trained_without_facts():
    class DataDependent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x):
            return self.layer(x) * (2.0 if x.sum().item() > 0 else 1.0)

    estimator = CountingEstimator(asks_lr=False)
    study = run(Objective(lambda trial: DataDependent(), estimator), [{}, {}])
    assert estimator.calls == [0, 1]  # without a fingerprint there is no twin
    assert "DataDependent.forward (line" in record.MISSING.of(study.trials[0])["fingerprint"]
    assert record.facts(study.trials[0])["flops"] == 2 * 4
    assert study.trials[0].state == TrialState.COMPLETE


def test_nan_is_pruned_with_a_reason():
    class Diverging(CountingEstimator):
        def __call__(self, model, trial):
            return {"score": float("nan")}

    study = run(Objective(mlp, Diverging()), [{}])
    assert study.trials[0].state == TrialState.PRUNED
    assert "score is nan" in record.why(study.trials[0])


def test_a_fact_can_be_the_value():
    objective = Objective(mlp, CountingEstimator(), values={"n_params": "minimize"})
    study = run(objective, [{"width": 2, "skip": "identity", "lr": 0.1}])
    assert study.trials[0].value == 4 * 2 + 2 + 2 + 1


def test_an_unknown_value_says_what_there_is():
    objective = Objective(mlp, CountingEstimator(), values={"accuracy": "maximize"})
    with pytest.raises(ValueError, match=r"'accuracy'.*score"):
        run(objective, [{}])


def test_a_metric_named_like_a_fact_is_refused_instead_of_winning_over_it():
    def estimator(model, trial):
        return {"score": 1.0, "flops": 1.0}

    values = {"score": "maximize", "flops": "minimize"}
    with pytest.raises(ValueError, match=r"both have 'flops'.*Return the metric under another name"):
        run(Objective(mlp, estimator, values=values, example=(2, 4)), [{}])
    own = Fact("weight", lambda model, example: 2.0)
    with pytest.raises(ValueError, match="both have 'weight'"):
        run(Objective(mlp, CountingEstimator(), facts=[own]), [{}])


@pytest.mark.parametrize("values", [{}, {"a": "up"}, {"a": "maximize", "b": "up"}])
def test_values_must_be_metrics_with_a_direction(values):
    estimator = CountingEstimator()
    estimator.values = {}
    with pytest.raises(ValueError, match="must name a metric and its direction"):
        Objective(mlp, estimator, values=values)


def test_a_model_in_the_place_of_its_space_is_refused():
    with pytest.raises(TypeError, match="function of a trial"):
        Objective(nn.Linear(4, 1), CountingEstimator())


def test_an_estimator_without_example_asks_for_one():
    with pytest.raises(ValueError, match="example="):
        Objective(mlp, lambda model, trial: {"a": 1.0}, values={"a": "maximize"})


def test_build_rebuilds_from_storage_alone_and_checks():
    objective = Objective(mlp, CountingEstimator())
    study = run(objective, [{"width": 5, "skip": "identity", "lr": 0.1}])
    assert objective.build(study.trials[0])[0].out_features == 5

    def narrower(trial):
        return nn.Linear(4, trial.suggest_int("width", 2, 4))

    with pytest.raises(ParamsMismatchError, match=r"'width' is 5.*low=2"):
        Objective(narrower, CountingEstimator()).build(study.trials[0])


def test_the_users_random_state_does_not_decide():
    objective = Objective(mlp, CountingEstimator(), reuse_twins=False)
    values = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        study = optuna.create_study(direction="maximize", study_name="same")
        run(objective, [{"width": 3, "skip": "identity", "lr": 0.1}], study)
        values.append(record.METRICS.of(study.trials[0])["weight"])
    assert values[0] == values[1]


def test_fixed_trial_of_optuna_builds_too():
    model = Objective(mlp, CountingEstimator()).build(FixedTrial({"width": 3, "skip": "identity"}))
    assert model[0].out_features == 3


@pytest.mark.parametrize(("recorded", "used"), [(1, 1), (2, 2), (10_000, 3)])
def test_a_later_attempt_uses_the_threads_of_the_first_where_there_are_as_many(recorded, used, monkeypatch):
    class Counting(CountingEstimator):
        def __call__(self, model, trial):
            self.threads = torch.get_num_threads()
            return super().__call__(model, trial)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    estimator = Counting()
    objective = Objective(mlp, estimator)
    study = optuna.create_study(direction="maximize")
    attempts = [
        {"started": 1.0, **more} for more in ({"how": "killed"}, {"threads": recorded}, {"threads": 7})
    ]
    study.enqueue_trial({"width": 3}, user_attrs={record.ATTEMPTS.name: attempts})
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        study.optimize(objective, n_trials=1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert estimator.threads == used
    assert record.ATTEMPTS.of(study.trials[0])[-1]["threads"] == used


# ---- limits ----


def limited(limits, **more):
    estimator = CountingEstimator(asks_lr=False)
    return Objective(mlp, estimator, limits=limits, **more), estimator


def widths(*numbers):
    return [{"width": width, "skip": "identity"} for width in numbers]


def test_what_breaks_a_computable_limit_is_not_trained_and_is_a_constraint():
    objective, estimator = limited({"flops": 30})  # 10 for each unit
    study = run(objective, widths(3, 4, 2))
    assert estimator.calls == [0, 2]
    kept, over, _ = study.trials
    assert kept.constraints == {"flops": 0.0}
    assert over.state == TrialState.PRUNED
    assert over.constraints == {"flops": pytest.approx(1 / 3)}
    assert record.end(over) is record.End.INFEASIBLE
    assert not record.counts(over)
    assert record.why(over) == "over a limit: flops is 40, and flops <= 30"
    assert record.Reason.of(over).cause == "flops"
    assert study.best_trial.number == 0


def test_a_fact_of_the_users_own_that_needs_a_real_model_has_a_limit_too():
    measured = []

    def weight(model, example):
        measured.append(sum(p.abs().sum().item() for p in model.parameters()))
        return measured[-1]

    objective, estimator = limited({"weight": 1e-3}, facts=[Fact("weight", weight, needs="batch")])
    study = run(objective, widths(3))
    assert estimator.calls == []
    assert study.trials[0].constraints["weight"] == pytest.approx(measured[0] / 1e-3 - 1)
    assert objective.within is None  # nobody can tell before


def test_a_limit_of_a_metric_is_judged_after_training_and_the_value_stays():
    objective, estimator = limited({"score": 25})
    study = run(objective, widths(3, 5))
    assert estimator.calls == [0, 1]
    kept, over = study.trials
    assert (kept.state, over.state) == (TrialState.COMPLETE, TrialState.COMPLETE)
    assert over.value > 25
    assert over.constraints["score"] == pytest.approx(over.value / 25 - 1)
    assert record.end(over) is record.End.INFEASIBLE
    assert record.counts(over)
    assert study.best_trial.number == 0


def test_the_least_that_a_metric_may_be():
    objective, _ = limited({"score": (25, None)})
    study = run(objective, widths(3, 5))
    assert [record.end(t) for t in study.trials] == [record.End.INFEASIBLE, record.End.COMPLETE]


def test_where_a_limited_fact_cannot_be_had_nothing_is_trained():
    def broken(model, example):
        raise RuntimeError("no meter")

    objective, estimator = limited({"energy": 1}, facts=[Fact("energy", broken, needs="batch")])
    study = run(objective, widths(3))
    assert estimator.calls == []
    assert record.end(study.trials[0]) is record.End.INFEASIBLE
    assert "it is unknown whether energy <= 1: RuntimeError" in record.why(study.trials[0])
    assert "no meter" in record.why(study.trials[0])


def test_a_limit_on_what_nobody_measures_fails_with_what_there_is():
    objective, _ = limited({"latncy": 1})
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(widths(3)[0])
    with pytest.raises(ValueError, match=r"'latncy', which is neither.*n_params, flops, score, weight"):
        study.optimize(objective, n_trials=1)


def test_an_architecture_is_foreseen_once_and_like_the_trial():
    objective, _ = limited({"flops": 30})
    params = widths(3)[0]
    assert objective.foresee(params) == {"n_params": 19, "flops": 30}
    assert objective.foresee(params) is objective.foresee(params)
    assert objective.foresee({"width": 99}) == {}
    within = objective.within
    assert within(params)
    assert not within(widths(4)[0])
    study = run(objective, widths(3))
    assert record.facts(study.trials[0]) == objective.foresee(params)


def test_a_space_that_fails_fails_within_limits_too():
    def broken(trial):
        raise TypeError(f"no width {trial.suggest_int('width', 2, 6)}")

    objective = Objective(broken, CountingEstimator(), limits={"flops": 30})
    study = optuna.create_study(direction="maximize")
    with pytest.raises(SpaceError, match="no width"):
        study.optimize(objective, n_trials=1)
