import json

import numpy as np
import optuna
import pytest
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    MeanDecreaseImpurityImportanceEvaluator,
    PedAnovaImportanceEvaluator,
)
from optuna.trial import TrialState, create_trial

from optnas import record
from optnas.analysis.importance import group, importance

EFFECT = {"conv": -1.0, "pool": 0.0, "skip": 1.0}


def objective(trial: optuna.Trial) -> float:
    """Block 0 matters, block 1 matters less, where they are; depth and lr do not; x and y only together."""
    rng = np.random.default_rng(trial.number)
    value = rng.normal(0, 0.3)
    trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    for i, weight in zip(range(trial.suggest_int("block.depth", 1, 2)), (2.0, 1.0), strict=False):
        value += weight * EFFECT[trial.suggest_categorical(f"block.{i}.op", list(EFFECT))]
        trial.suggest_categorical(f"block.{i}.act", ["relu", "gelu"])
    signs = [1.0 if trial.suggest_categorical(name, [True, False]) else -1.0 for name in ("x", "y")]
    return value + 0.8 * signs[0] * signs[1]


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=150)
    return study


def test_ranks_decisions_groups_and_pairs(study: optuna.Study) -> None:
    result = importance(study, n_bootstrap=20)
    assert [s.name for s in result.decisions[:2]] == ["block.0.op", "block.1.op"]
    assert {s.name for s in result.positions} == {"block.0.*", "block.1.*"}
    assert [s.name for s in result.kinds] == ["*.op", "*.act"]
    assert [s.name for s in result.pairs] == ["x × y"]
    for share in (*result.decisions, *result.positions, *result.kinds, *result.pairs):
        assert 0 <= share.low <= share.value <= share.high <= 1
    block_1 = next(s for s in result.decisions if s.name == "block.1.op")
    assert block_1.n_trials == sum("block.1.op" in t.params for t in study.trials)
    assert result.decisions[-1].low == 0


def test_interval_holds_the_truth(study: optuna.Study) -> None:
    """Variances: 2/3 * 2² of block 0, 2/3 of block 1 in half the trials, 0.64 of the pair, 0.09 of noise."""
    share = importance(study).decisions[0]
    truth = (8 / 3) / (8 / 3 + 1 / 3 + 0.64 + 0.09)
    assert share.low < truth < share.high
    assert share.high - share.low < 0.2


def test_reads_as_words_and_as_data(study: optuna.Study) -> None:
    result = importance(study, n_bootstrap=5)
    assert json.loads(json.dumps(result.to_dict()))["decisions"][0]["name"] == "block.0.op"
    assert "block.0.op" in str(result)
    assert "150 trials" in str(result)


def test_the_same_seed_gives_the_same_intervals(study: optuna.Study) -> None:
    assert importance(study, n_bootstrap=5, seed=1) == importance(study, n_bootstrap=5, seed=1)


@pytest.mark.parametrize(
    "evaluator", [PedAnovaImportanceEvaluator(), MeanDecreaseImpurityImportanceEvaluator(n_trees=4, seed=0)]
)
def test_optuna_evaluators_keep_their_numbers(
    study: optuna.Study, evaluator: optuna.importance.BaseImportanceEvaluator
) -> None:
    result = importance(study, evaluator=evaluator, n_bootstrap=3)
    expected = optuna.importance.get_param_importances(study, evaluator=evaluator)
    assert {s.name: s.value for s in result.decisions} == pytest.approx(expected)
    assert result.method == type(evaluator).__name__


def test_forests_see_conditional_decisions_where_the_study_is_padded(study: optuna.Study) -> None:
    forest = FanovaImportanceEvaluator(n_trees=16, seed=0)
    names = {s.name for s in importance(study, evaluator=forest, n_bootstrap=0).decisions}
    assert "block.1.op" not in names
    result = importance(study, evaluator=forest, pad=True, n_bootstrap=3)
    scores = {s.name: s.value for s in result.decisions}
    assert scores["block.0.op"] > scores["block.1.op"] > max(scores["block.0.act"], scores["block.1.act"])
    assert sum(s.value for s in result.decisions) == pytest.approx(1)
    assert result.method == "FanovaImportanceEvaluator, padded"
    block_1 = next(s for s in result.decisions if s.name == "block.1.op")
    assert block_1.n_trials == sum("block.1.op" in t.params for t in study.trials)
    with pytest.raises(ValueError, match="pad=True is for Optuna's evaluators"):
        importance(study, pad=True)


def test_what_is_left_out_is_said(study: optuna.Study) -> None:
    before = importance(study, n_bootstrap=3)
    other = optuna.create_study()
    other.add_trials(study.trials)
    original = study.trials[3]
    other.add_trial(
        create_trial(
            value=original.value,
            params=original.params,
            distributions=original.distributions,
            user_attrs={record.TWIN_OF.name: 3},
        )
    )
    other.add_trial(create_trial(value=float("inf"), params={}, distributions={}))
    other.add_trial(create_trial(state=TrialState.FAIL))
    other.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            user_attrs={record.REASON.name: {"kind": "limit", "words": "out of memory"}},
        )
    )
    other.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={1: 9.0}))
    after = importance(other, n_bootstrap=3)
    assert after.decisions == before.decisions
    assert before.notes == ()
    words = " ".join(after.notes)
    for phrase in ("1 pruned", "1 infeasible", "1 failed", "1 trial without a finite value"):
        assert phrase in words


def test_constant_decisions_are_listed_apart() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("x", 0, 1) + t.suggest_categorical("one", [1]), n_trials=20)
    result = importance(study, n_bootstrap=3)
    assert result.constant == ("one",)
    assert [s.name for s in result.decisions] == ["x"]


def test_constant_metric_is_a_caveat() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: 0.0 * t.suggest_float("x", 0, 1), n_trials=20)
    result = importance(study, n_bootstrap=3)
    assert result.decisions[0].value == 0
    assert any("same value" in note for note in result.notes)


def test_too_few_trials() -> None:
    study = optuna.create_study()
    study.add_trials([create_trial(value=1.0) for _ in range(9)])
    with pytest.raises(ValueError, match=r"at least 10 COMPLETE trials.* has 9"):
        importance(study)


def test_group() -> None:
    names = ("lr", "block.depth", "block.0.op", "block.0.op.conv.k", "block.1.op", "cell.0-1.op", "stem.k")
    assert group(names) == {
        "block.0.*": [2, 3],
        "*.op": [2, 4, 5],
        "*.k": [3, 6],
    }


def test_a_group_that_is_called_like_a_decision_is_left_out() -> None:
    assert group(["a.op", "b.op", "*.op", "0.k", "0.l"]) == {"0.*": [3, 4]}


@pytest.mark.parametrize("evaluator", [FanovaImportanceEvaluator(n_trees=4), PedAnovaImportanceEvaluator()])
def test_equal_values_are_explained_by_nothing_whoever_is_asked(evaluator: BaseImportanceEvaluator) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: 0.0 * trial.suggest_float("x", 0, 1), n_trials=12)
    result = importance(study, evaluator=evaluator, n_bootstrap=2)
    assert [(share.name, share.value) for share in result.decisions] == [("x", 0.0)]
    assert "All trials have the same value: nothing to explain." in result.notes
