"""Each of several objectives is explained as if it were the only one; and so is the distance to the front."""

import math

import numpy as np
import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from optnas import pareto, record
from optnas.analysis.explain import explain
from optnas.analysis.front import distance_to_front
from optnas.analysis.importance import importance
from optnas.analysis.objectives import as_one

NAMES = ["score", "cost"]


def score(trial: optuna.Trial) -> float:
    """`tanh` is bad, `width` pays, `idle` does nothing; pooling asks nothing more."""
    rng = np.random.default_rng(trial.number)
    value = trial.suggest_int("width", 1, 9) / 3
    if trial.suggest_categorical("op", ["conv", "pool"]) == "conv":
        value += trial.suggest_int("kernel", 1, 3) / 9
    value -= 2 * (trial.suggest_categorical("act", ["relu", "tanh", "gelu"]) == "tanh")
    trial.suggest_categorical("idle", ["a", "b"])
    return float(value + rng.normal(0, 0.05))


def cost(params: dict[str, object]) -> float:
    return float(params["width"] + 3 * (params["act"] == "tanh"))


@pytest.fixture(scope="module")
def alone() -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0), study_name="s")
    study.optimize(score, n_trials=80)
    return study


@pytest.fixture(scope="module")
def both(alone: optuna.Study) -> optuna.Study:
    """The same trials with a second value; what they reported is kept as studies of several keep it."""
    study = optuna.create_study(directions=["maximize", "minimize"], study_name="s")
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(NAMES)
    for t in alone.trials:
        values = [t.value, cost(t.params)]
        study.add_trial(create_trial(params=t.params, distributions=t.distributions, values=values))
    return study


def test_an_objective_is_explained_as_if_it_were_the_only_one(
    alone: optuna.Study, both: optuna.Study
) -> None:
    this, other = explain(alone, n_bootstrap=5), explain(both, of="score", n_bootstrap=5)
    for part in ("best", "value", "maximize", "worth", "path", "negligible", "importance", "params"):
        assert getattr(this, part) == getattr(other, part)
    assert this.space  # of one objective among several nothing is recommended: the other may need it
    assert other.space == ()
    assert "has the best score" in str(other)
    assert "No effect on score was seen of" in str(other)
    assert "fix" not in str(other)
    assert importance(both, of="score", n_bootstrap=5) == this.importance
    assert importance(both, target=lambda t: t.values[0], n_bootstrap=5) == this.importance
    assert explain(alone, of="value", n_bootstrap=5) == this


def test_the_front_is_explained_by_what_leads_to_it(both: optuna.Study) -> None:
    found = explain(both, of="front", n_bootstrap=5)
    front = pareto.front_trials(both)
    assert found.n_front == len(front) > 3
    assert found.value == 0
    assert found.best in {t.number for t in front}
    assert found.path[-1].trial == found.best
    gains = [step.gain for step in found.path[1:]]
    assert all(gain > 0 for gain in gains)
    # Width leads along the front, not to it; tanh leads away from it, and is dropped.
    shares = {share.name: share.value for share in found.importance.decisions}
    assert shares["act"] > 0.8 > 0.1 > shares["width"]
    assert "width" not in found.negligible
    assert "idle" in found.negligible
    [act] = [narrowed for narrowed in found.space if narrowed.name == "act"]
    assert act.choices == ("relu", "gelu")
    assert {t.params["act"] for t in front} <= set(act.choices)
    [worth] = [w for w in found.worth if w.name == "act"]
    assert worth.alternatives[-1].answer == "tanh"
    words = str(found)
    assert "the next best answer" in words
    assert "farther from the front" in words
    assert "chance" not in words  # to be nearer than what is on it
    assert importance(both, of="front", n_bootstrap=5) == found.importance
    assert importance(both, target=distance_to_front(both), n_bootstrap=5) == found.importance


def test_no_answer_of_a_front_that_many_are_on_is_left_out() -> None:
    """Every fifth trial is on the front, one of them alone in its answer."""
    study = optuna.create_study(directions=["minimize", "minimize"])
    ops = optuna.distributions.CategoricalDistribution(("a", "b"))
    for i in range(60):
        x, far = float(i), 0.0 if i % 5 == 0 else 20.0
        op = "b" if far or i == 55 else "a"
        study.add_trial(create_trial(params={"op": op}, distributions={"op": ops}, values=[x + far, far - x]))
    found = explain(study, of="front", n_bootstrap=2)
    assert found.n_front == 12
    assert found.space == ()


def test_a_view_keeps_numbers_reports_and_ends() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(NAMES)
    reports = {record.REPORTS.name: {"0": {"score": 0.1, "other": 3.0}, "1": {"score": 0.2}}}
    study.add_trial(create_trial(values=[0.2, 5.0], user_attrs=reports))
    study.add_trial(create_trial(state=TrialState.PRUNED, user_attrs=reports))
    study.add_trial(create_trial(state=TrialState.FAIL))
    study.add_trial(create_trial(values=[math.inf, 7.0]))
    study.add_trial(create_trial(values=[0.1, 7.0]))
    study.enqueue_trial({})
    study.ask()  # runs
    study.enqueue_trial({})  # waits
    score, close = as_one(study, "score"), as_one(study, "front")
    for one in (score, close):
        assert [(t.number, t.state) for t in one.trials] == [(t.number, t.state) for t in study.trials]
    assert [t.values for t in score.trials[:2]] == [[0.2], None]
    assert [t.intermediate_values for t in score.trials[:2]] == [{0: 0.1, 1: 0.2}] * 2
    assert score.direction == optuna.study.StudyDirection.MAXIMIZE
    assert as_one(study, "cost").direction == optuna.study.StudyDirection.MINIMIZE
    assert close.direction == optuna.study.StudyDirection.MINIMIZE
    assert [t.value for t in close.trials] == [0.0, None, None, math.inf, 1.0, None, None]
    assert study.trials[0].values == [0.2, 5.0]  # the study itself is as it was


def test_facts_are_no_luck(both: optuna.Study) -> None:
    known = optuna.create_study(directions=both.directions)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        known.set_metric_names(NAMES)
    for t in both.trials[:12]:
        t.set_user_attr(record.FACTS.name, {"cost": t.values[1]})
        known.add_trial(t)
    assert "luck" not in str(explain(known, of="cost", n_bootstrap=2))
    assert "partly luck" in str(explain(known, of="score", n_bootstrap=2))
    assert "train what you pick" in str(explain(known, of="front", n_bootstrap=2))


def test_mistakes_name_what_there_is(alone: optuna.Study, both: optuna.Study) -> None:
    for call in (explain, importance):
        with pytest.raises(ValueError, match=r"of='size' must be one of score, cost, front"):
            call(both, of="size")
        with pytest.raises(ValueError, match=r"2 objectives; .* of='score', of='cost', of='front'"):
            call(both)
        with pytest.raises(ValueError, match=r"of='front' must be one of value"):
            call(alone, of="front")
    with pytest.raises(ValueError, match=r"of='score' and target="):
        importance(both, of="score", target=lambda t: t.values[0])
    empty = optuna.create_study(directions=["minimize", "minimize"])
    with pytest.raises(ValueError, match="at least two COMPLETE trials"):
        explain(empty, of="front")


def test_of_equal_values_the_best_is_one_that_nothing_dominates() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for n, values in enumerate([[1.0, 1.0], [2.0, 1.0], [3.0, 5.0]]):
        params, distributions = {"n": n}, {"n": optuna.distributions.IntDistribution(0, 2)}
        study.add_trial(create_trial(params=params, distributions=distributions, values=values))
    assert explain(study, of="value 1").best == 1
