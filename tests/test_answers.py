"""Answers: which are possible, which are the same, what is made of them. The oracle is what JSON writes."""

import copy
import json
import math
from collections import Counter
from enum import StrEnum
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optnas.answers import (
    contains,
    draw,
    index,
    is_continuous,
    keep_or_draw,
    key,
    mutate,
    options,
    others,
    params_key,
    same,
    settle,
)

CONFUSED = (True, 1, 1.0, "1", "True", False, 0, 0.0, "0", None, "None", math.nan, "nan")
"""All different answers, many of which Python calls equal, or print alike."""

CHOICE = st.sampled_from(CONFUSED) | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=2)
CHOICES = st.lists(CHOICE, min_size=1, max_size=6, unique_by=lambda v: json.dumps(v).replace("-0.0", "0.0"))
FIRST, N = st.integers(-5, 5), st.integers(0, 9)
LISTED = (
    CHOICES.map(CategoricalDistribution)
    | st.builds(
        lambda low, n, step: IntDistribution(low, low + n * step, step=step), FIRST, N, st.integers(1, 4)
    )
    | st.builds(lambda low, n: FloatDistribution(low / 10, (low + n) / 10, step=0.1), FIRST, N)
)
NUMBERS = (
    st.builds(lambda low, width: FloatDistribution(low, low + width), st.floats(-5, 5), st.floats(1e-3, 9))
    | st.builds(
        lambda low, n: FloatDistribution(low, low * n, log=True), st.floats(1e-6, 5), st.floats(2, 1e5)
    )
    | st.builds(lambda low, n: IntDistribution(low, low + n, log=True), st.integers(1, 5), st.integers(0, 90))
)
ANY = LISTED | NUMBERS
SEED = st.integers(0, 2**32 - 1)


def alike(one: Any, other: Any) -> bool:
    """The oracle: what JSON, which storages write, tells apart."""
    return json.dumps(one) == json.dumps(other)


@pytest.mark.parametrize("one", CONFUSED)
def test_no_two_of_what_python_confuses_are_the_same(one: Any) -> None:
    assert [other for other in CONFUSED if same(one, other)] == [pytest.approx(one, nan_ok=True)]
    assert len(set(map(key, CONFUSED))) == len(CONFUSED)


@given(CHOICE, CHOICE)
def test_the_same_is_what_a_storage_cannot_tell_apart(one: Any, other: Any) -> None:
    if not (one == other == 0):  # JSON knows -0.0
        assert same(one, other) == alike(one, other)
    assert same(one, copy.deepcopy(one))
    assert (hash(key(one)) == hash(key(other))) or not same(one, other)


class Name(StrEnum):
    CONV = "conv"


@pytest.mark.parametrize(
    ("given", "stored"),
    [(np.float64(0.5), 0.5), (Name.CONV, "conv"), (np.str_("a"), "a"), (np.float64("nan"), math.nan)],
)
def test_a_subclass_is_what_a_storage_makes_of_it(given: Any, stored: Any) -> None:
    assert same(given, stored)
    assert type(key(given)[0]) is type
    assert contains(CategoricalDistribution(("x", stored)), given)


@pytest.mark.parametrize("answer", [[1, 2], {"k": [1]}, (1, 2), math.nan, None])
def test_whatever_optuna_lets_pass_is_an_answer(answer: object) -> None:
    assert same(answer, copy.deepcopy(answer))
    assert not any(same(answer, other) for other in (True, 1, "a", [2, 1]))
    assert len({key(answer), key(copy.deepcopy(answer))}) == 1


@given(st.dictionaries(st.text(max_size=2), CHOICE, max_size=5), st.data())
def test_params_are_equal_in_any_order_and_differ_by_any_answer(
    params: dict[str, Any], data: st.DataObject
) -> None:
    shuffled = dict(data.draw(st.permutations(list(params.items()))))
    assert params_key(shuffled) == params_key(params)
    if params:
        name = data.draw(st.sampled_from(list(params)))
        other = data.draw(CHOICE)
        assert (params_key({**params, name: other}) == params_key(params)) == same(other, params[name])
        assert params_key({k: v for k, v in params.items() if k != name}) != params_key(params)


@given(CHOICES, CHOICE)
def test_a_choice_is_found_where_it_stands(choices: list[Any], value: Any) -> None:
    for i, choice in enumerate(choices):
        assert index(choices, copy.deepcopy(choice)) == i
    if any(same(choice, value) for choice in choices):
        assert contains(CategoricalDistribution(choices), value)
    else:
        assert not contains(CategoricalDistribution(choices), value)
        with pytest.raises(ValueError, match="is not one of"):
            index(choices, value)


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (CategoricalDistribution((True, "1", None)), [True, "1", None], [1, 1.0, False, "True", 0]),
        (CategoricalDistribution((0, 1.5)), [0, 1.5], [False, 0.0, None, 1]),
        (
            IntDistribution(-3, 9, step=4),
            [-3, 1, 5, 9, 5.0],
            [0, 4.5, 13, True, "1", None, math.nan, math.inf],
        ),
        (IntDistribution(1, 1), [1], [True, 0, 2]),
        (FloatDistribution(0.1, 0.7, step=0.2), [0.1, 0.3, 0.5, 0.7], [0.2, 0.69, 0.9, True, "0.1"]),
        (FloatDistribution(0.0, 2.0, step=0.5), [0, 1, 2, 1.5], [0.25, -0.5, 2.5]),
        (FloatDistribution(1e-3, 1.0, log=True), [1e-3, 0.5, 1], [0.0, 1.1, True, math.nan, math.inf, None]),
    ],
)
def test_contains_knows_range_grid_and_type(
    distribution: BaseDistribution, inside: list[Any], outside: list[Any]
) -> None:
    assert [value for value in inside if not contains(distribution, value)] == []
    assert [value for value in outside if contains(distribution, value)] == []


@given(st.data())
def test_contains_agrees_with_optuna_on_integers(data: st.DataObject) -> None:
    low = data.draw(st.integers(-20, 20))
    step = data.draw(st.integers(1, 5))
    distribution = IntDistribution(low, low + step * data.draw(st.integers(0, 8)), step=step)
    value = data.draw(st.integers(-30, 70))
    assert contains(distribution, value) == distribution._contains(value)


@given(st.integers(-300, 300), st.sampled_from([0.01, 0.1, 0.3, 0.7]), st.integers(1, 60), st.data())
def test_contains_takes_every_point_of_a_grid_however_it_was_rounded(
    first: int, step: float, n: int, data: st.DataObject
) -> None:
    low = round(first * 0.01, 2)
    distribution = FloatDistribution(low, round(low + n * step, 2), step=step)
    i = data.draw(st.integers(0, n))
    value = round(low + i * step, 2)
    for rounded in (value, math.nextafter(value, -math.inf), math.nextafter(value, math.inf)):
        if low <= rounded <= distribution.high:
            assert contains(distribution, rounded)
    assert not contains(distribution, low + (i + 0.5) * step)


@given(ANY, SEED)
def test_what_is_drawn_is_possible_and_of_the_type_asked_for(
    distribution: BaseDistribution, seed: int
) -> None:
    value = draw(distribution, np.random.default_rng(seed))
    assert contains(distribution, value)
    assert same(settle(distribution, value), value)
    if isinstance(distribution, IntDistribution):
        assert type(value) is int
    if isinstance(distribution, FloatDistribution):
        assert type(value) is float


@given(LISTED)
def test_options_are_all_possible_answers_once(distribution: BaseDistribution) -> None:
    found = options("x", distribution)
    assert all(contains(distribution, value) for value in found)
    assert len(set(map(key, found))) == len(found)
    assert set(map(key, found)) >= {key(draw(distribution, np.random.default_rng(i))) for i in range(20)}


@given(LISTED, st.data(), SEED)
def test_others_and_mutations_are_the_rest(
    distribution: BaseDistribution, data: st.DataObject, seed: int
) -> None:
    every = list(options("x", distribution))
    value = data.draw(st.sampled_from(every))
    rest = others("x", distribution, value)
    assert Counter(map(key, every)) == Counter(map(key, [*rest, value]))
    mutated = mutate(distribution, value, np.random.default_rng(seed))
    assert key(mutated) in set(map(key, rest)) if rest else same(mutated, value)


@given(NUMBERS, SEED)
def test_a_mutated_number_is_another_possible_one(distribution: BaseDistribution, seed: int) -> None:
    rng = np.random.default_rng(seed)
    value = draw(distribution, rng)
    mutated = mutate(distribution, value, rng)
    assert contains(distribution, mutated)
    assert (mutated == value) == distribution.single()


def test_every_other_choice_is_a_mutation_however_python_compares_them() -> None:
    rng = np.random.default_rng(0)
    distribution = CategoricalDistribution((0, False, 1, 1.0, True, "1", None))
    for choice in distribution.choices:
        found = {key(mutate(distribution, choice, rng)) for _ in range(200)}
        assert found == set(map(key, distribution.choices)) - {key(choice)}


@given(ANY, CHOICE, SEED)
def test_an_answer_is_kept_where_it_is_possible(
    distribution: BaseDistribution, value: Any, seed: int
) -> None:
    kept = keep_or_draw({"x": value}, np.random.default_rng(seed))("x", distribution)
    assert contains(distribution, kept)
    assert same(kept, value) or not contains(distribution, value)
    drawn = keep_or_draw({"y": value}, np.random.default_rng(seed))("x", distribution)
    assert same(drawn, draw(distribution, np.random.default_rng(seed)))


def test_numbers_are_settled_as_a_storage_gives_them_back() -> None:
    study = optuna.create_study()
    given = {"rate": 1, "depth": 2.0}
    study.enqueue_trial(given)
    trial = study.ask()
    trial.suggest_float("rate", 0, 1)
    trial.suggest_int("depth", 1, 3)
    stored = study.trials[0]
    for name, value in given.items():
        assert same(settle(stored.distributions[name], value), stored.params[name])
    assert type(settle(CategoricalDistribution(("conv", "pool")), Name.CONV)) is str


def test_only_a_float_with_a_range_and_no_step_is_continuous() -> None:
    assert is_continuous(FloatDistribution(0, 1))
    for listed in (FloatDistribution(1, 1), FloatDistribution(0, 1, step=0.5), IntDistribution(1, 10**6)):
        assert not is_continuous(listed)
        assert len(options("x", listed)) > 0
    with pytest.raises(ValueError, match=r"'x' is continuous .*step="):
        others("x", FloatDistribution(0, 1), 0.5)
