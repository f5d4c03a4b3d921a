from __future__ import annotations

import pytest
import torch
from optuna.distributions import IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, create_trial
from torch import nn

from optnas import Fact, Objective, Screen, create_study, optimize, record
from optnas.estimation.estimator import Estimator
from optnas.estimation.run import Run
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


class Given(Estimator):
    """Scores weights that others trained, always as well, and goes on where it was."""

    scores_given_weights, is_noisy, resumes = True, False, True

    def __call__(self, model: nn.Module, run: Run, /) -> dict[str, float]:
        if len(record.attempts(run)) == 1:
            run.report(0, {"score": 1.0})
            if run.number == 1:
                raise KeyboardInterrupt
        return {"score": 1.0}


def test_what_has_begun_is_not_judged_anew() -> None:
    screen = Screen(Given(), SIZE, startup=1)
    assert (screen.scores_given_weights, screen.is_noisy, screen.resumes) == (True, False, True)
    judged = objective(screen)
    study = create_study(judged, seed=0, sampler=RandomSampler(seed=0))
    for width in (10, 20, 30, 40):
        study.enqueue_trial({"width": width})
    with pytest.raises(KeyboardInterrupt):
        optimize(study, judged, n_trials=4)
    for width in (100, 200, 300):  # trial 1 would now be among the worse half
        study.add_trial(study_trial(width))
    optimize(study, judged, n_trials=7)
    assert len(record.attempts(study.trials[1])) == 2
    assert end(study.trials[1]) is End.COMPLETE


def study_trial(width: int) -> FrozenTrial:
    """Finished elsewhere, with its fact."""
    return create_trial(
        params={"width": width},
        distributions={"width": IntDistribution(1, 400)},
        value=1.0,
        user_attrs={record.FACTS.name: {"size": float(width)}, record.COUNTS.name: True},
    )
