from __future__ import annotations

import pytest
import torch
from torch import nn

from optnas import Fact, Objective, Screen, create_study, optimize, record
from optnas.facts import N_PARAMS
from optnas.record import End, Reason, end

SIZE = Fact("size", lambda model, example: float(model.out_features), better="higher")


def space(trial) -> nn.Module:
    return nn.Linear(3, trial.suggest_int("width", 1, 400))


def objective(screen: Screen) -> Objective:
    return Objective(space, screen, values={"score": "maximize"}, example=(2, 3), facts=[SIZE])


def score(model: nn.Module, trial) -> dict[str, float]:
    return {"score": float(model.out_features)}


def test_the_less_promising_half_is_not_estimated_and_does_not_count() -> None:
    import optuna

    judged = objective(Screen(score, SIZE, startup=4))
    study = create_study(judged, seed=1, sampler=optuna.samplers.RandomSampler(seed=1))
    optimize(study, judged, n_trials=20)
    trials = study.trials
    refused = [t for t in trials if end(t) is End.INFEASIBLE]
    assert record.n_counted(trials) == 20
    assert len(trials) == 20 + len(refused)
    assert 8 <= len(refused) <= 26  # about as many as are estimated after the first four
    for trial in refused:
        widths = [t.params["width"] for t in trials[: trial.number]]
        assert sum(w < trial.params["width"] for w in widths) < len(widths) / 2
        assert not record.metrics(trial)
        assert Reason.of(trial).cause == "screen:size"
        assert trial.constraints["screen:size"] > 0


def test_smaller_may_be_the_more_promising() -> None:
    judged = objective(Screen(score, N_PARAMS, startup=1, larger=False))
    study = create_study(judged, seed=0)
    for width in (10, 20, 5, 30):
        study.enqueue_trial({"width": width})
    study.optimize(judged, n_trials=4)
    assert [end(t).value for t in study.trials] == ["complete", "infeasible", "complete", "infeasible"]


def test_what_has_no_such_fact_is_estimated_unless_nobody_measures_it() -> None:
    broken = Fact("broken", lambda model, example: 1 / 0, better="higher")
    judged = Objective(
        space, Screen(score, broken, startup=1), values={"score": "maximize"}, example=(2, 3), facts=[broken]
    )
    study = create_study(judged, seed=0)
    study.optimize(judged, n_trials=3)
    assert {end(t) for t in study.trials} == {End.COMPLETE}
    unknown = objective(Screen(score, broken))
    with pytest.raises(ValueError, match=r"Screen needs the fact 'broken'.*Objective\(facts="):
        create_study(unknown, study_name="unknown", seed=0).optimize(unknown, n_trials=1)


def test_the_winner_is_trained_anew_without_a_screen_and_everything_else_is_the_other_s() -> None:
    from optnas.estimation.estimator import as_estimator
    from optnas.estimation.run import Run
    from optnas.trial import replay

    screen, inner = Screen(score, SIZE), as_estimator(score)
    assert screen(nn.Linear(3, 7), Run.of(replay({"width": 7}))) == {"score": 7.0}
    assert screen.estimate_and_test(nn.Linear(3, 7), Run.of(replay({}))) == {"score": 7.0}
    assert (screen.settings, screen.name, screen.has_example) == (inner.settings, "score", False)
    with torch.device("meta"):
        screen.ask(nn.Linear(3, 7), replay({}))


def test_bad_arguments_say_what_to_give() -> None:
    with pytest.raises(ValueError, match="keep=0"):
        Screen(score, SIZE, keep=0)
    with pytest.raises(ValueError, match="startup=0"):
        Screen(score, SIZE, startup=0)
