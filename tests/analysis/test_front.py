import itertools
import math

import numpy as np
import optuna
import pytest
from optuna.trial import create_trial

from optnas import record
from optnas.analysis.front import (
    best_trials,
    distance_to_front,
    hypervolumes,
    pareto_front,
    points,
    quantities,
    quantity,
)


def test_quantities_by_name_and_by_function(study: optuna.Study) -> None:
    trial = study.trials[0]
    assert [quantity(trial, what) for what in ("value", "n_params", "val_acc")] == [0.5, 100, 0.5]
    assert quantity(trial, lambda t: t.number + 1) == 1
    assert math.isnan(quantity(study.trials[6], "value"))
    assert quantities([trial]) == ["value", "n_params", "flops", "val_acc", "test_loss"]


def test_unknown_names_list_what_there_is(study: optuna.Study) -> None:
    with pytest.raises(ValueError, match="val_acc"):
        points(study, "n_parms", "value")


@pytest.mark.parametrize("maximize", list(itertools.product([False, True], repeat=2)))
def test_front_is_what_nothing_dominates(maximize: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(0)
    study = optuna.create_study()
    numbers = rng.integers(0, 12, size=(60, 2)).tolist()  # many ties
    study.add_trials([create_trial(value=float(y), user_attrs={"n_params": x}) for x, y in numbers])
    front = pareto_front(study, maximize=maximize)
    signs = np.where(maximize, -1, 1)
    losses = np.array(numbers) * signs

    def dominated(row: np.ndarray) -> bool:
        return bool(((losses <= row).all(axis=1) & (losses < row).any(axis=1)).any())

    expected = {tuple(numbers[i]) for i in range(60) if not dominated(losses[i])}
    found = [tuple(numbers[t.number]) for t in front]
    assert set(found) == expected
    assert len(found) == len(expected)  # equal points once
    assert found == sorted(found)


def test_default_directions(study: optuna.Study) -> None:
    assert [t.number for t in pareto_front(study)] == [0, 1, 3]


def test_best_in_several_objectives_as_optuna_has_them_where_all_is_finite() -> None:
    rng = np.random.default_rng(0)
    study = optuna.create_study(directions=["maximize", "minimize", "maximize"])
    study.add_trials(
        [create_trial(values=v) for v in rng.integers(0, 6, size=(80, 3)).astype(float).tolist()]
    )
    expected = [t.number for t in study.best_trials]
    assert [t.number for t in best_trials(study)] == expected
    study.add_trial(create_trial(values=[math.inf, -math.inf, math.inf]))
    study.add_trial(
        create_trial(
            values=[9.0, -9.0, 9.0],
            user_attrs={record.REASON.name: {"kind": "limit", "words": "out of memory"}},
        )
    )
    assert [t.number for t in best_trials(study)] == expected
    assert best_trials(optuna.create_study(directions=["minimize"] * 2)) == []


def test_metrics_of_another_kind_are_not_there() -> None:
    trial = create_trial(value=1.0, user_attrs={record.METRICS.name: "abc", "n_params": "many"})
    assert math.isnan(quantity(trial, "n_params"))
    assert math.isnan(quantity(trial, "val_acc"))
    assert quantities([trial]) == ["value"]


def two(*values: tuple[float, float]) -> optuna.Study:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials([create_trial(values=v) for v in values])
    return study


def test_the_hypervolume_after_each_trial() -> None:
    study = two((1.0, 3.0), (0.5, 3.5), (2.0, 4.0), (1.0, 1.0))
    found = hypervolumes(study, {"value 0": 0.0, "value 1": 5.0})
    assert found.volumes == (2.0, 2.0, 3.0, 5.0)
    assert found.trials == (0, 1, 2, 3)
    worst = hypervolumes(study)
    assert worst.reference == pytest.approx({"value 0": 0.5 - 0.15, "value 1": 4 + 0.3})
    assert list(worst.volumes) == sorted(worst.volumes)


def test_a_hypervolume_needs_two_objectives_and_one_reference() -> None:
    with pytest.raises(ValueError, match=r"0 trials with values"):
        hypervolumes(two())
    with pytest.raises(ValueError, match=r"one number for each of value 0, value 1"):
        hypervolumes(two((1.0, 1.0)), {"value": 0.0})


def test_the_distance_to_the_front_is_what_all_values_lack() -> None:
    study = two((10.0, 20.0), (0.0, 0.0), (8.0, 30.0), (-10.0, 40.0))
    distance = distance_to_front(study)
    # Spans are 20 and 40: the third lacks 2/20 in the one value and 10/40 in the other.
    assert [distance(trial) for trial in study.trials] == pytest.approx([0, 0, 0.1, 0.5])
