"""What other studies say counts as far as it is true."""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from scipy.stats import spearmanr

from optnas import record
from optnas.surrogate.model import Surrogate
from optnas.surrogate.prior import Prior, hear

DISTRIBUTIONS = {"x": FloatDistribution(-1, 1), "op": CategoricalDistribution(("a", "b", "c"))}
WORTH = {"a": 0.0, "b": 0.5, "c": 1.0}


def loss(params):
    return (params["x"] - 0.3) ** 2 + WORTH[params["op"]]


def drawn(n, seed=0):
    rng = np.random.default_rng(seed)
    return [{"x": float(rng.uniform(-1, 1)), "op": str(rng.choice(["a", "b", "c"]))} for _ in range(n)]


def finished(params, values):
    return [
        create_trial(params=p, distributions=DISTRIBUTIONS, value=float(v))
        for p, v in zip(params, values, strict=True)
    ]


def study_of(params, values, direction="minimize", name="old"):
    study = optuna.create_study(direction=direction, study_name=name)
    study.add_trials(finished(params, values))
    return study


def losses(params):
    return np.array([loss(p) for p in params])


def test_scores_do_not_depend_on_units_or_direction() -> None:
    params = drawn(30)
    one = hear(study_of(params, losses(params)))
    other = hear(study_of(params, -1000 * losses(params) ** 3, direction="maximize"))
    assert np.sort(one.scores) == pytest.approx(np.sort(other.scores))
    assert one.params[int(np.argmin(one.scores))] == min(params, key=loss)
    assert np.mean(one.scores) == pytest.approx(0, abs=1e-9)


def test_what_was_heard_can_be_stored_and_predicts() -> None:
    params, unseen = drawn(40), drawn(200, seed=1)
    study = optuna.create_study()
    record.write_heard(study, [hear(study_of(params, losses(params)))])
    prior = Prior(record.heard(study))
    assert spearmanr(prior.scores(unseen)[:, 0], losses(unseen)).statistic > 0.9
    assert spearmanr(prior.improvement(unseen), losses(unseen)).statistic < -0.9
    assert prior.best[0] == min(params, key=loss)


@pytest.mark.parametrize("n", [20, 100])
def test_a_study_that_does_not_predict_itself_is_not_heard(n: int) -> None:
    params = drawn(n)
    heard = [
        bool(Prior([hear(study_of(params, np.random.default_rng(i).permutation(losses(params))))]))
        for i in range(20)
    ]
    assert sum(heard) <= 1
    assert Prior([hear(study_of(params, losses(params)))])


def test_few_trials_are_predicted_better_by_a_study_that_is_right_and_none_worse_by_one_that_is_wrong() -> (
    None
):
    params, unseen = drawn(60), drawn(300, seed=1)
    true = Prior([hear(study_of(params, losses(params)))])
    false = Prior([hear(study_of(params, -losses(params)))])

    def rank(n: int, prior: Prior | None) -> float:
        trials = finished(drawn(n, seed=2), losses(drawn(n, seed=2)))
        predicted, _ = Surrogate(StudyDirection.MINIMIZE, prior=prior).fit(trials).predict(unseen)
        return float(spearmanr(predicted, losses(unseen)).statistic)

    assert rank(4, true) > max(0.9, rank(4, None) + 0.1)
    assert rank(12, true) > rank(12, None) - 0.02
    assert rank(12, false) > rank(12, None) - 0.02
    trials = finished(drawn(12, seed=2), losses(drawn(12, seed=2)))
    assert Surrogate(prior=false).fit(trials)._weights == pytest.approx([0.0])


def test_of_two_studies_the_one_that_is_right_is_followed() -> None:
    params, own = drawn(60), drawn(12, seed=3)
    prior = Prior([hear(study_of(params, -losses(params))), hear(study_of(params, losses(params)))])
    model = Surrogate(prior=prior).fit(finished(own, losses(own)))
    wrong, right = model._weights
    assert wrong < 0.2
    assert right > 3 * wrong
    assert model.share > 0


def test_all_a_surrogate_gives_stands_on_the_same_mean() -> None:
    params, unseen = drawn(60), drawn(50, seed=1)
    trials = finished(drawn(6, seed=5), losses(drawn(6, seed=5)))
    model = Surrogate(prior=Prior([hear(study_of(params, losses(params)))])).fit(trials)
    mean, _ = model.predict(unseen)
    points, weights = model.outcomes(unseen)
    assert spearmanr(points @ weights, mean).statistic > 0.95
    assert spearmanr(model.draws(unseen, 400, 0).mean(axis=0), mean).statistic > 0.95
    assert spearmanr(model.improvement(unseen), mean).statistic < -0.4
    assert model.believe(unseen[:3]).predict(unseen)[0] == pytest.approx(mean, rel=0.2)


def test_questions_and_answers_that_the_other_study_did_not_have_say_nothing() -> None:
    params = drawn(40)
    prior = Prior([hear(study_of(params, losses(params)))])
    known = prior.scores([{"x": 0.1, "op": "a"}])
    assert prior.scores([{"x": 0.1, "op": "a", "new": 3}]) == pytest.approx(known)
    assert np.isfinite(prior.scores([{"x": 0.1, "op": "unknown"}, {}])).all()


def test_a_study_whose_trials_all_came_to_the_same_is_not_heard() -> None:
    params = drawn(20)
    assert not Prior([hear(study_of(params, np.ones(20)))])


def test_what_tells_nothing_is_refused_with_the_reason() -> None:
    params = drawn(4)
    with pytest.raises(ValueError, match=r"'old' has 4 trials with values or reports; .* needs 5"):
        hear(study_of(params, losses(params)))
    with pytest.raises(ValueError, match=r"has 2 objectives \(they have no names\), and none is"):
        hear(optuna.create_study(directions=["minimize", "minimize"]))


def test_pruned_trials_tell_and_twins_do_not_count_twice() -> None:
    params = drawn(12)
    study = study_of(params, losses(params))
    study.add_trial(
        create_trial(
            params=params[0], distributions=DISTRIBUTIONS, value=0.0, user_attrs={record.TWIN_OF.name: 0}
        )
    )
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            params=params[1],
            distributions=DISTRIBUTIONS,
            intermediate_values={0: 9.0},
        )
    )
    assert len(hear(study).params) == 13


def test_a_range_that_changed_is_kept_whole() -> None:
    study = optuna.create_study()
    for low, high, at in ((0, 4, 2), (2, 9, 9), (1, 3, 3), (0, 9, 0), (0, 9, 5)):
        asked = {"n": IntDistribution(low, high)}
        study.add_trial(create_trial(params={"n": at}, distributions=asked, value=float(at)))
    heard = hear(study)
    assert set(heard.distributions) == {"n"}
    assert '"low": 0' in heard.distributions["n"]
    assert '"high": 9' in heard.distributions["n"]
