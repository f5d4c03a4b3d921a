"""Oracles: closed-form variances on complete factorial designs, where every formula is exact."""

import itertools

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from optnas.analysis.anova import (
    decompose,
    interaction,
    joint_share,
    tabulate,
)

ABC = CategoricalDistribution(("a", "b", "c"))
EFFECT = {"a": -1.0, "b": 0.0, "c": 1.0}  # variance 2/3


def value(trial: FrozenTrial) -> float:
    return trial.values[0]


def factorial(function, n_repeats: int = 1) -> list[FrozenTrial]:
    """All combinations of x and y, with w asked only where x is "a": the value is `function(params)`."""
    trials = []
    for x, y in itertools.product("abc", repeat=2):
        for w in "abc" if x == "a" else (None,) * 3:
            params = {"x": x, "y": y} | ({"w": w} if w else {})
            for _ in range(n_repeats):
                trials.append(
                    create_trial(
                        value=function(params), params=params, distributions=dict.fromkeys(params, ABC)
                    )
                )
    return trials


def shares(trials: list[FrozenTrial]) -> dict[str, float]:
    table = tabulate(trials, value, 10)
    return dict(zip(table.names, decompose(table).shares, strict=True))


def test_additive_effects_are_recovered_exactly() -> None:
    result = shares(
        factorial(lambda p: 2 * EFFECT[p["x"]] + EFFECT[p["y"]] + 3 * EFFECT[p.get("w", "b")], n_repeats=2)
    )
    # Over all trials: x 4, y 1, w 9 in a third of them; where w is active, x does not vary.
    assert result["x"] == pytest.approx(4 / (4 + 1 + 9 / 3), rel=1e-6)
    assert result["y"] == pytest.approx(1 / (4 + 1 + 9 / 3), rel=1e-6)
    assert result["w"] == pytest.approx(9 / (9 + 1), rel=1e-6)


def test_presence_belongs_to_the_parent() -> None:
    result = shares(factorial(lambda p: 5.0 if "w" in p else 0.0, n_repeats=2))
    assert result == pytest.approx({"x": 1.0, "y": 0.0, "w": 0.0})


def test_known_noise_is_not_credited_to_a_decision() -> None:
    rng = np.random.default_rng(0)
    found = [shares(factorial(lambda p: EFFECT[p["y"]] + rng.normal(), n_repeats=4)) for _ in range(80)]
    mean = {name: np.mean([f[name] for f in found]) for name in ("x", "y", "w")}
    assert mean["y"] == pytest.approx((2 / 3) / (2 / 3 + 1), abs=0.03)
    assert mean["x"] < 0.02
    assert mean["w"] < 0.05


def test_a_biased_sampler_does_not_change_who_is_credited() -> None:
    """y only looks important because it was drawn together with x."""
    rng = np.random.default_rng(1)
    trials = []
    for _ in range(300):
        x = str(rng.choice(list("abc")))
        y = x if rng.random() < 0.7 else str(rng.choice(list("abc")))
        trials.append(
            create_trial(
                value=EFFECT[x] + rng.normal(0, 0.2),
                params={"x": x, "y": y},
                distributions={"x": ABC, "y": ABC},
            )
        )
    result = shares(trials)
    assert result["x"] > 0.85
    assert result["y"] < 0.02


def test_interaction_share_is_exact_and_tested() -> None:
    trials = factorial(lambda p: EFFECT[p["x"]] * EFFECT[p["y"]] + EFFECT[p["y"]], n_repeats=3)
    table = tabulate(trials, value, 10)
    parts = decompose(table)
    x, y, w = (table.names.index(name) for name in "xyw")
    found = interaction(table, parts.residual, x, y)
    assert found.share == pytest.approx((4 / 9) / (4 / 9 + 2 / 3), rel=1e-6)
    assert found.p_value < 1e-12
    # Where w is active x has one answer: nothing to combine.
    assert interaction(table, parts.residual, x, w).p_value == 1.0


def test_p_values_are_uniform_without_interaction() -> None:
    rng = np.random.default_rng(2)
    p_values = []
    for _ in range(120):
        table = tabulate(factorial(lambda p: rng.normal(), n_repeats=3), value, 10)
        p_values.append(interaction(table, decompose(table).residual, 0, 1).p_value)
    assert np.mean(np.array(p_values) < 0.2) == pytest.approx(0.2, abs=0.1)


def test_joint_share_of_everything_is_all_that_is_not_noise() -> None:
    table = tabulate(factorial(lambda p: EFFECT[p["x"]] + EFFECT[p["y"]], n_repeats=2), value, 10)
    assert joint_share(table, decompose(table), [0, 1, 2]) == pytest.approx(1.0)


def test_numbers_are_cut_into_classes_of_equal_counts() -> None:
    rng = np.random.default_rng(3)
    distributions = {"lr": FloatDistribution(1e-5, 1e-1, log=True), "n": IntDistribution(1, 3)}
    trials = [
        create_trial(
            value=0.0,
            params={
                "lr": float(np.exp(rng.uniform(np.log(1e-5), np.log(1e-1)))),
                "n": int(rng.integers(1, 4)),
            },
            distributions=distributions,
        )
        for _ in range(100)
    ]
    table = tabulate(trials, value, 10)
    assert np.bincount(table.codes[:, 0]).tolist() == [10] * 10
    assert [t.params["n"] - 1 for t in trials] == table.codes[:, 1].tolist()


def test_true_and_one_are_two_choices() -> None:
    flag = CategoricalDistribution((True, 1, "1"))
    trials = [
        create_trial(value=v, params={"flag": c}, distributions={"flag": flag})
        for c, v in ((True, 1.0), (1, 2.0), ("1", 3.0)) * 3
    ]
    assert shares(trials)["flag"] == pytest.approx(1.0)


def test_more_decisions_than_trials() -> None:
    rng = np.random.default_rng(4)
    names = [f"d{i}" for i in range(60)]
    trials = []
    for _ in range(80):
        params = {name: str(rng.choice(list("abc"))) for name in names}
        number = 3 * EFFECT[params["d0"]] + rng.normal()
        trials.append(create_trial(value=number, params=params, distributions=dict.fromkeys(names, ABC)))
    result = shares(trials)
    assert max(result, key=result.__getitem__) == "d0"
    assert all(0 <= share <= 1 for share in result.values())


@pytest.mark.parametrize("unit", [2.0**-1000, 2.0**1000])
def test_shares_do_not_depend_on_the_unit_of_the_values(unit: float) -> None:
    def noisy(params: dict[str, str]) -> float:
        return 2 * EFFECT[params["x"]] + EFFECT[params["y"]] ** 2 + 0.1 * EFFECT[params.get("w", "b")]

    assert shares(factorial(lambda p: unit * noisy(p), 2)) == shares(factorial(noisy, 2))


def test_choices_may_be_lists_and_differ_between_trials() -> None:
    """As Optuna keeps them in memory; the second half of the trials was offered one more."""
    offered = [[[1, 2], None], [[1, 2], None, {"k": 3}]]
    with pytest.warns(UserWarning, match="Choices for a categorical distribution"):
        distributions = [CategoricalDistribution(choices) for choices in offered]
    trials = [
        create_trial(value=float(i), params={"x": choice}, distributions={"x": distribution})
        for distribution in distributions
        for i, choice in enumerate(distribution.choices)
        for _ in range(3)
    ]
    assert shares(trials) == pytest.approx({"x": 1.0})
    number = create_trial(value=9.0, params={"x": 7}, distributions={"x": IntDistribution(0, 9)})
    assert shares([*trials, number]) == pytest.approx({"x": 1.0})
