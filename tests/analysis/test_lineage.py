from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from optnas.analysis.lineage import NOT_ASKED, changes, path_to_best
from optnas.record import PARENT
from optnas.strategy.evolution import RegularizedEvolutionSampler

DIGITS = CategoricalDistribution(tuple(range(10)))


def study_of(*trials: tuple[dict[str, int], float, int | None]) -> optuna.Study:
    """(params, value, parent) per trial, to be maximized."""
    study = optuna.create_study(direction="maximize")
    for params, value, parent in trials:
        attrs: dict[str, Any] = {} if parent is None else {PARENT.name: parent}
        study.add_trial(
            create_trial(
                value=value, params=params, distributions=dict.fromkeys(params, DIGITS), system_attrs=attrs
            )
        )
    return study


def test_improvements_without_parents() -> None:
    study = study_of(
        ({"x": 1}, 0.1, None), ({"x": 2}, 0.05, None), ({"x": 3, "y": 1}, 0.4, None), ({"x": 3}, 0.5, None)
    )
    path = path_to_best(study, study.trials[3])
    assert [(s.trial, s.value, s.inherited) for s in path] == [
        (0, 0.1, False),
        (2, 0.4, False),
        (3, 0.5, False),
    ]
    assert [s.gain for s in path] == pytest.approx([0, 0.3, 0.1])
    assert [dict(s.changed) for s in path] == [
        {},
        {"x": (1, 3), "y": (NOT_ASKED, 1)},
        {"y": (1, NOT_ASKED)},
    ]


def test_parents_are_followed_even_through_worse_trials() -> None:
    study = study_of(
        ({"x": 1}, 0.1, None),
        ({"x": 2}, 0.3, None),
        ({"x": 3}, 0.2, 1),
        ({"x": 9}, 0.35, None),
        ({"x": 4}, 0.5, 2),
    )
    path = path_to_best(study, study.trials[4])
    assert [s.trial for s in path] == [0, 1, 2, 4]
    assert [s.inherited for s in path] == [False, False, True, True]
    assert path[2].gain == pytest.approx(-0.1)


def test_a_real_evolution_changes_one_decision_per_generation() -> None:
    study = optuna.create_study(
        sampler=RegularizedEvolutionSampler(population_size=10, tournament_size=4, seed=0)
    )
    study.optimize(lambda t: float(sum(t.suggest_int(n, 0, 9) for n in "abcd")), n_trials=80)
    path = path_to_best(study, study.best_trial)
    bred = [s for s in path if s.inherited]
    assert bred
    assert all(len(s.changed) == 1 for s in bred)
    assert path[-1].trial == study.best_trial.number
    assert path[0].value - sum(s.gain for s in path) == pytest.approx(path[-1].value)


def test_changes_tell_true_from_one() -> None:
    assert changes({"x": True}, {"x": 1}) == {"x": (True, 1)}
    assert changes({"x": 1}, {"x": 1}) == {}
