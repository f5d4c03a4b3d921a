import json

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler
from optuna.trial import TrialState, create_trial

from optnas import record
from optnas.analysis.explain import explain
from optnas.strategy.evolution import RegularizedEvolutionSampler


def objective(trial: optuna.Trial) -> float:
    rng = np.random.default_rng(trial.number)
    value = {"conv": 1.0, "pool": 0.5, "skip": 0.0}[trial.suggest_categorical("op", ["conv", "pool", "skip"])]
    if trial.suggest_categorical("two", [False, True]):
        value += {"conv": 1.0, "pool": 0.5, "skip": 0.2}[
            trial.suggest_categorical("two.op", ["conv", "pool", "skip"])
        ]
    trial.suggest_categorical("act", ["relu", "gelu"])
    return float(value + rng.normal(0, 0.05))


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=1))
    study.optimize(objective, n_trials=120)
    return study


def test_says_what_is_known_of_the_space(study: optuna.Study) -> None:
    found = explain(study, n_bootstrap=30)
    assert (found.best, found.value, found.n_trials) == (study.best_trial.number, study.best_value, 120)
    assert {"op": "conv", "two": True, "two.op": "conv"}.items() <= found.params.items()
    assert [w.name for w in found.worth][-1] == "act"
    assert found.negligible == ("act",)
    assert found.path[-1].trial == found.best
    words = str(found)
    for phrase in (
        f"Trial {found.best} has the best value",
        "op = conv: the next best answer, pool, is predicted to lose",
        "to be better with a chance of under 1 %",
        "No effect worth searching was seen of act: fix it.",
        f"Fix act at {study.best_trial.params['act']}",
        "Spearman",
        "partly luck",
    ):
        assert phrase in words


def test_a_notebook_shows_it_as_headings_and_lists(study: optuna.Study) -> None:
    explanation = explain(study, n_bootstrap=3)
    shown = explanation._repr_markdown_().splitlines()
    assert [line.removeprefix("## ") for line in shown if line.startswith("## ")] == list(
        explanation.sections()
    )
    assert sum(line.startswith("- ") for line in shown) == sum(map(len, explanation.sections().values()))


def test_is_json_with_its_words(study: optuna.Study) -> None:
    plain = json.loads(json.dumps(explain(study, n_bootstrap=5).to_dict()))
    assert plain["worth"][0]["alternatives"][0]["predicted"] < 0
    assert plain["sections"]["The best"][0].startswith("Trial")


def test_minimizing_speaks_of_losses_alike() -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=1))
    study.optimize(lambda trial: -objective(trial), n_trials=120)
    found = explain(study, n_bootstrap=5)
    assert found.params["op"] == "conv"
    assert found.worth[0].loss > 0.3
    assert "is predicted to lose" in str(found)


def test_an_evolution_is_told_as_a_lineage() -> None:
    sampler = RegularizedEvolutionSampler(population_size=10, tournament_size=4, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=60)
    assert "bred from it" in str(explain(study, n_bootstrap=2))


def test_a_small_study_is_explained_as_far_as_it_goes() -> None:
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0))
    study.optimize(objective, n_trials=5)
    found = explain(study)
    assert found.importance is None
    assert found.space == ()
    assert "at least 10 COMPLETE trials" in str(found)
    assert "What to search next" not in found.sections()


def test_infeasible_trials_are_never_the_best(study: optuna.Study) -> None:
    other = optuna.create_study(direction="maximize")
    other.add_trials(study.trials)
    other.add_trial(
        create_trial(
            value=99.0,
            state=TrialState.COMPLETE,
            user_attrs={record.REASON.name: {"kind": "limit", "words": "above 1e9 FLOPs"}},
        )
    )
    assert explain(other, n_bootstrap=2).best == study.best_trial.number


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (optuna.create_study(), "at least two COMPLETE trials .* has 0. Run more"),
        (
            optuna.create_study(directions=["minimize", "minimize"]),
            "2 objectives; say which .* of=.value 0., of=.value 1., of=.front",
        ),
    ],
)
def test_refuses_what_cannot_be_explained(study: optuna.Study, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(study)


def test_none_is_an_answer_and_not_asked_is_none() -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("norm", [None, "batch"]) is None:
            trial.suggest_categorical("bias", [None, "zero"])
        return float(trial.number)

    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0))
    for params in (
        {"norm": "batch"},
        {"norm": None, "bias": None},
        {"norm": None, "bias": "zero"},
        {"norm": "batch"},
    ):
        study.enqueue_trial(params)
    study.optimize(objective, n_trials=4)
    found = explain(study)
    path = found.sections()["How the search came there"]
    assert [words.partition("changed ")[2] for words in path[1:]] == [
        "norm batch → None, bias (new) None.",
        "bias None → zero.",
        "norm None → batch, bias (gone).",
    ]
    assert json.loads(json.dumps(found.to_dict()))["path"][3]["changed"]["bias"] == ["zero", "not asked"]


def offered(*choices: tuple[object, ...]) -> optuna.Study:
    study = optuna.create_study()
    for options in choices:
        x = CategoricalDistribution(options)
        study.add_trial(create_trial(value=1.0, params={"x": options[0]}, distributions={"x": x}))
    return study


def test_what_the_surrogate_cannot_model_is_named() -> None:
    with pytest.raises(ValueError, match="'x' has other choices in some trials"):
        explain(offered(("a", "b"), ("a", "c")))
    with (
        pytest.warns(UserWarning, match="Choices for a categorical distribution"),
        pytest.raises(ValueError, match=r"'x' offers \[1, 2\]"),
    ):
        explain(offered(([1, 2], "a"), ([1, 2], "a")))
    huge = optuna.create_study()
    huge.add_trials([create_trial(value=value) for value in (1e300, 2e300)])
    with pytest.raises(ValueError, match=r"reach 2e[+]300, .* return their logarithm"):
        explain(huge)
