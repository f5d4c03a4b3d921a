"""Walks of a space against oracles that never call it: a description is expanded by recursion."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from torch import nn

from optnas.answers import contains, draw, options
from optnas.errors import ParamsMismatchError
from optnas.space import Chain, Choice, Repeat, count, enumerate_params, neighbors, questions, sample
from optnas.space.blocks import conv
from optnas.trial import Trial, ask, scope

# A description of a space can be built (as nodes and functions) and expanded (without any trial).
# A member maps each name asked to its value and the values that it could have had.
Member = dict[str, tuple[Any, tuple[Any, ...]]]


@dataclass(frozen=True)
class Ask:
    """A plain function that asks for a value and, for some values, for more."""

    name: str
    distribution: BaseDistribution
    values: tuple[Any, ...]
    more: tuple["Description", ...]  # one per value
    shared: bool  # whether what follows different values has the same names, perhaps with other choices

    def path(self, position: int) -> tuple[str, ...]:
        return (self.name,) if self.shared else (self.name, str(position))

    def build(self, trial: Trial) -> nn.Module:
        value = ask(trial, self.name, self.distribution)
        position = next(i for i, v in enumerate(self.values) if v == value and type(v) is type(value))
        return space_of(self.more[position])(scope(trial, *self.path(position)))

    def expand(self) -> Iterator[Member]:
        for position, (value, more) in enumerate(zip(self.values, self.more, strict=True)):
            for member in more.expand():
                yield {self.name: (value, self.values)} | under(".".join(self.path(position)), member)


@dataclass(frozen=True)
class Shrink:
    """A plain function whose second question depends on its first answer, under one name."""

    high: int

    def build(self, trial: Trial) -> nn.Module:
        first = trial.suggest_int("first", 0, self.high)
        trial.suggest_int("second", 0, first)
        return nn.Identity()

    def expand(self) -> Iterator[Member]:
        for first in range(self.high + 1):
            for second in range(first + 1):
                yield {
                    "first": (first, tuple(range(self.high + 1))),
                    "second": (second, tuple(range(first + 1))),
                }


@dataclass(frozen=True)
class Leaf:
    def build(self, trial: Trial) -> nn.Module:
        return nn.Identity()

    def expand(self) -> Iterator[Member]:
        yield {}


@dataclass(frozen=True)
class OneOf:
    candidates: tuple["Description", ...]

    def expand(self) -> Iterator[Member]:
        names = tuple(f"c{i}" for i in range(len(self.candidates)))
        for name, candidate in zip(names, self.candidates, strict=True):
            for member in candidate.expand():
                yield {"op": (name, names)} | under(f"op.{name}", member)


@dataclass(frozen=True)
class Times:
    part: "Description"
    low: int
    high: int

    def expand(self) -> Iterator[Member]:
        depths = tuple(range(self.low, self.high + 1))
        for depth in depths:
            for members in product(list(self.part.expand()), repeat=depth):
                blocks = [under(f"block.{i}", member) for i, member in enumerate(members)]
                yield merge([{"block.depth": (depth, depths)}, *blocks])


@dataclass(frozen=True)
class InSequence:
    parts: tuple["Description", ...]

    def expand(self) -> Iterator[Member]:
        for members in product(*(list(part.expand()) for part in self.parts)):
            yield merge([under(f"p{i}", member) for i, member in enumerate(members)])


Description = Ask | Shrink | Leaf | OneOf | Times | InSequence


def under(prefix: str, member: Member) -> Member:
    return {f"{prefix}.{name}": value for name, value in member.items()}


def merge(members: list[Member]) -> Member:
    return {name: value for member in members for name, value in member.items()}


def space_of(description: Description) -> Any:
    match description:
        case OneOf(candidates):
            return Choice("op", {f"c{i}": space_of(c) for i, c in enumerate(candidates)})
        case Times(part, low, high):
            return Repeat("block", space_of(part), low, high)
        case InSequence(parts):
            return Chain(**{f"p{i}": space_of(part) for i, part in enumerate(parts)})
        case _:
            return description.build


def params_of(member: Member) -> dict[str, Any]:
    return {name: value for name, (value, _) in member.items()}


def frozen(params: dict[str, Any]) -> frozenset[tuple[str, type, Any]]:
    """Hashable, and True is not 1."""
    return frozenset((name, type(value), value) for name, value in params.items())


QUESTIONS: list[tuple[BaseDistribution, tuple[Any, ...]]] = [
    (CategoricalDistribution(("a", "b")), ("a", "b")),
    (CategoricalDistribution((None, True, 1, "1")), (None, True, 1, "1")),
    (CategoricalDistribution((0.5,)), (0.5,)),
    (IntDistribution(-1, 1), (-1, 0, 1)),
    (IntDistribution(2, 8, step=3), (2, 5, 8)),
    (IntDistribution(1, 3, log=True), (1, 2, 3)),
    (FloatDistribution(0.25, 0.75, step=0.25), (0.25, 0.5, 0.75)),
    (FloatDistribution(2.5, 2.5), (2.5,)),
]


Descriptions = st.SearchStrategy[Description]


def asks(children: Descriptions, shared: bool) -> Descriptions:
    def of(question: tuple[BaseDistribution, tuple[Any, ...]]) -> Descriptions:
        distribution, values = question
        more = st.tuples(*(children for _ in values))
        return st.builds(Ask, st.just("q"), st.just(distribution), st.just(values), more, st.just(shared))

    return st.sampled_from(QUESTIONS).flatmap(of)


def descriptions(*leaves: Descriptions, shared: bool) -> Descriptions:
    def grow(children: Descriptions) -> Descriptions:
        several = st.lists(children, min_size=1, max_size=3).map(tuple)
        bounds = st.tuples(st.integers(0, 2), st.integers(0, 2)).map(sorted)
        return st.one_of(
            asks(children, shared),
            st.builds(OneOf, several),
            st.builds(InSequence, several | st.just(())),
            st.builds(lambda part, b: Times(part, *b), children, bounds),
        )

    small = st.recursive(
        st.one_of(st.just(Leaf()), asks(st.just(Leaf()), shared), *leaves), grow, max_leaves=5
    )
    return small.filter(lambda description: size(description) <= 100)


def size(description: Description) -> int:
    """The closed form."""
    match description:
        case Leaf():
            return 1
        case Ask(more=parts) | OneOf(parts):
            return sum(size(part) for part in parts)
        case Shrink(high):
            return (high + 1) * (high + 2) // 2
        case Times(part, low, high):
            return sum(size(part) ** depth for depth in range(low, high + 1))
        case InSequence(parts):
            return math.prod(size(part) for part in parts)


ANY = descriptions(st.builds(Shrink, st.integers(0, 3)), shared=True)
FIXED_CHOICES = descriptions(shared=False)  # one name has the same possible values wherever it appears


@given(ANY)
@settings(max_examples=150, deadline=None)
def test_enumeration_is_the_expansion_in_the_order_of_an_odometer(description: Description) -> None:
    found = list(enumerate_params(space_of(description)))
    expected = [params_of(member) for member in description.expand()]
    assert [list(params.items()) for params in found] == [list(params.items()) for params in expected]
    assert len({frozen(params) for params in found}) == len(found)


@given(ANY)
@settings(max_examples=150, deadline=None)
def test_count_is_the_closed_form_and_the_number_of_members(description: Description) -> None:
    space = space_of(description)
    assert count(space) == size(description) == sum(1 for _ in description.expand())
    assert count(lambda trial: space(trial)) == size(description)  # enumerated, not by arithmetic


@given(ANY, st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_every_sample_is_a_member_and_a_seed_repeats_it(description: Description, seed: int) -> None:
    space = space_of(description)
    params = sample(space, seed)
    assert frozen(params) in {frozen(params_of(member)) for member in description.expand()}
    assert frozen(sample(space, np.random.default_rng(seed))) == frozen(params)


@given(ANY, st.data())
@settings(max_examples=150, deadline=None)
def test_neighbors_differ_in_one_decision_and_what_depends_on_it(
    description: Description, data: st.DataObject
) -> None:
    members = list(description.expand())
    start = data.draw(st.sampled_from(members))
    expected = [frozen(params_of(m)) for m in members if is_neighbor(start, m)]
    space = space_of(description)
    found = [frozen(params) for params in neighbors(space, params_of(start))]
    assert Counter(found) == Counter(expected)

    drawn = [frozen(params) for params in neighbors(space, params_of(start), rng=0)]
    assert set(drawn) <= set(expected)
    # One for each other answer to each decision.
    assert len(drawn) == sum(len(possible) - 1 for _, possible in start.values())


def is_neighbor(start: Member, other: Member) -> bool:
    """Some decision of `start` has another value; the rest is kept wherever it is asked and possible."""

    def kept(name: str) -> bool:
        before, (value, possible) = start.get(name), other[name]
        was_possible = before is not None and any(is_same(before[0], v) for v in possible)
        return not was_possible or is_same(before[0], value)  # type: ignore[index]  # it is not None there

    changed = [name for name in start if name in other and not is_same(start[name][0], other[name][0])]
    return any(
        start[name][1] == other[name][1] and all(kept(n) for n in other if n != name) for name in changed
    )


def is_same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b


@given(FIXED_CHOICES, st.data())
@settings(max_examples=75, deadline=None)
def test_neighborhood_is_symmetric_where_choices_are_fixed(
    description: Description, data: st.DataObject
) -> None:
    space = space_of(description)
    start = params_of(data.draw(st.sampled_from(list(description.expand()))))
    for neighbor in neighbors(space, start):
        assert frozen(start) in {frozen(params) for params in neighbors(space, neighbor)}


def test_neighborhood_need_not_be_symmetric_where_a_range_depends_on_an_answer() -> None:
    space = Shrink(1).build
    assert list(neighbors(space, {"first": 1, "second": 1})) == [
        {"first": 0, "second": 0},
        {"first": 1, "second": 0},
    ]
    assert list(neighbors(space, {"first": 0, "second": 0})) == [{"first": 1, "second": 0}]


def test_sampling_reaches_every_member_of_a_conditional_space() -> None:
    space = Repeat("block", Choice("op", {"conv": conv, "skip": lambda _: nn.Identity()}), 0, 2)
    rng = np.random.default_rng(0)
    found = Counter(frozen(sample(space, rng)) for _ in range(3000))
    assert set(found) == {frozen(params) for params in enumerate_params(space)}
    assert len(found) == 1 + 7 + 7**2  # conv: three widths by two kernels
    # Each decision is uniform: a third of the depths is 0.
    assert abs(found[frozen({"block.depth": 0})] / 3000 - 1 / 3) < 0.04


def test_one_name_asked_twice_is_one_decision() -> None:
    def space(trial: Trial) -> nn.Module:
        first, second = trial.suggest_int("width", 1, 3), trial.suggest_int("width", 1, 3)
        assert first == second
        return nn.Identity()

    assert list(enumerate_params(space)) == [{"width": 1}, {"width": 2}, {"width": 3}]


def continuous(trial: Trial) -> nn.Module:
    trial.suggest_int("width", 1, 2)
    return nn.Dropout(trial.suggest_float("rate", 0.0, 0.5))


@pytest.mark.parametrize("node", [lambda s: s, lambda s: Chain(part=s), lambda s: Repeat("block", s, 0, 1)])
def test_a_continuous_decision_is_named(node: Any) -> None:
    space = node(continuous)
    params = sample(space, 3)
    for walk in (lambda: list(enumerate_params(space)), lambda: count(space)):
        with pytest.raises(ValueError, match=r"'(\w+\.)*rate' is continuous.*step="):
            walk()
    if any("rate" in name for name in params):
        with pytest.raises(ValueError, match="rate' is continuous"):
            list(neighbors(space, params))


def test_with_a_generator_a_continuous_decision_changes_too() -> None:
    start = {"width": 1, "rate": 0.25, "lr": 1e-3}  # lr: the answer of a task, not of the space
    by_width, by_rate = neighbors(continuous, start, rng=0)
    assert by_width == {"width": 2, "rate": 0.25}
    assert by_rate["width"] == 1
    assert 0.0 <= by_rate["rate"] <= 0.5
    assert by_rate["rate"] != 0.25


def test_neighbors_of_foreign_params_are_refused() -> None:
    with pytest.raises(ParamsMismatchError, match="asks for 'rate'"):
        list(neighbors(continuous, {"width": 1}, rng=0))
    with pytest.raises(ParamsMismatchError, match="'width'"):
        list(neighbors(continuous, {"width": 3, "rate": 0.1}, rng=0))


@given(st.integers(-300, 300), st.sampled_from([0.01, 0.05, 0.1, 0.3, 0.7]), st.integers(1, 60))
@settings(deadline=None)
def test_every_point_of_a_grid_of_floats_is_possible(first: int, step: float, n: int) -> None:
    # The end of the grid is not where repeated addition lands: 0.1 + 2 * 0.1 > 0.3.
    low, high = round(first * 0.01, 2), round(first * 0.01 + n * step, 2)
    distribution = FloatDistribution(low, high, step=step)
    values = options("x", distribution)
    assert values == pytest.approx([low + i * step for i in range(n + 1)])
    assert all(contains(distribution, value) for value in values)
    assert contains(distribution, draw(distribution, np.random.default_rng(n)))


def test_the_last_point_of_a_grid_of_floats_is_enumerated() -> None:
    def space(trial: Trial) -> nn.Module:
        return nn.Dropout(trial.suggest_float("rate", 0.1, 0.3, step=0.1))

    assert [params["rate"] for params in enumerate_params(space)] == pytest.approx([0.1, 0.2, 0.3])
    # A point stored with another rounding is not its own neighbor.
    assert [p["rate"] for p in neighbors(space, {"rate": 0.1 * 2 + 1e-16})] == pytest.approx([0.1, 0.3])
    assert {round(sample(space, seed)["rate"], 6) for seed in range(30)} == {0.1, 0.2, 0.3}


def test_values_are_drawn_uniformly_in_the_logarithm_where_asked() -> None:
    rng = np.random.default_rng(0)
    floats = [draw(FloatDistribution(1e-4, 1.0, log=True), rng) for _ in range(2000)]
    assert abs(np.mean(np.log10(floats)) + 2) < 0.1
    integers = Counter(draw(IntDistribution(1, 64, log=True), rng) for _ in range(4000))
    assert set(integers) <= set(range(1, 65))
    octaves = [sum(integers[i] for i in range(2**k, 2 ** (k + 1))) / 4000 for k in range(6)]
    # ln((2^(k+1) - 1/2) / (2^k - 1/2)) / ln(64.5 / 0.5): each integer gets the width it has in the logarithm.
    expected = [math.log((2 ** (k + 1) - 0.5) / (2**k - 0.5)) / math.log(64.5 / 0.5) for k in range(6)]
    assert octaves == pytest.approx(expected, abs=0.03)


def test_walking_builds_nothing_real() -> None:
    devices = set()

    def space(trial: Trial) -> nn.Module:
        layer = nn.Linear(10**6, 10**6 * trial.suggest_int("width", 1, 2))  # terabytes
        devices.add(layer.weight.device.type)
        return layer

    state = torch.get_rng_state()
    assert count(space) == 2
    assert len(list(neighbors(space, sample(space, 0)))) == 1
    assert devices == {"meta"}
    assert torch.equal(state, torch.get_rng_state())


def test_a_partial_of_a_block_is_walked_like_any_function() -> None:
    assert count(partial(conv, width=8)) == 2


def needs_numbers(trial: Trial) -> nn.Module:
    """Rates of stochastic depth, as vision code writes them: not to be built on the meta device."""
    rates = [rate.item() for rate in torch.linspace(0, 0.3, trial.suggest_int("depth", 1, 3))]
    acts = [trial.suggest_categorical(f"act.{i}", ["ReLU", "Tanh"]) for i in range(len(rates))]
    return nn.Sequential(*map(nn.Dropout, rates), *(getattr(nn, act)() for act in acts))


def in_other_words(trial: Trial) -> nn.Module:
    try:
        return needs_numbers(trial)
    except RuntimeError as error:
        raise ValueError("bad rates") from error


def as_an_array(trial: Trial) -> nn.Module:
    trial.suggest_int("depth", 1, 3)
    return nn.Linear(int(torch.ones(4).numpy().sum()), 2)


@pytest.mark.parametrize(("space", "n"), [(needs_numbers, 14), (in_other_words, 14), (as_an_array, 3)])
def test_a_space_that_needs_numbers_to_build_is_walked_like_any(space: Any, n: int) -> None:
    state = torch.get_rng_state()
    every = {frozen(params) for params in enumerate_params(space)}
    assert count(space) == len(every) == n
    start = sample(space, 0)
    found = [frozen(params) for params in neighbors(space, start)]
    assert set(found) <= every - {frozen(start)}
    assert {params["depth"] for params in neighbors(space, start)} >= {1, 2, 3} - {start["depth"]}
    assert {frozen(sample(space, seed)) for seed in range(100)} == every
    assert len(questions(space)) == (4 if n == 14 else 1)
    assert torch.equal(state, torch.get_rng_state())


def test_a_space_is_built_on_the_cpu_only_where_the_meta_device_is_the_reason() -> None:
    devices = []

    def too_large(trial: Trial) -> nn.Module:
        layer = nn.Linear(10**6, 10**6 * trial.suggest_int("width", 1, 2))  # terabytes
        devices.append(layer.weight.device.type)
        raise RuntimeError("more parameters than allowed")

    with pytest.raises(RuntimeError, match="more parameters than allowed"):
        sample(too_large, 0)
    assert devices == ["meta"]
