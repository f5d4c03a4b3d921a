"""Nodes: what they ask, what they build, and that they hold recipes only."""

from functools import partial
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from torch import nn

from optnas.answers import params_key
from optnas.space import Chain, Choice, Node, Repeat, count, enumerate_params, questions
from optnas.space.nodes import under
from optnas.strategy.padded import PaddedSampler
from optnas.trial import Draw, Space, Trial, replay, scope


def linear(trial: Trial) -> nn.Module:
    return nn.Linear(4, 4, bias=trial.suggest_categorical("bias", [True, False]))


def skip(trial: Trial) -> nn.Module:
    return nn.Identity()


def test_a_choice_is_stored_under_the_candidates_name_and_scopes_what_it_asks() -> None:
    space = Choice("op", {"linear": linear, "skip": skip})
    assert list(enumerate_params(space)) == [
        {"op": "linear", "op.linear.bias": True},
        {"op": "linear", "op.linear.bias": False},
        {"op": "skip"},
    ]
    built = space(replay({"op": "linear", "op.linear.bias": False}))
    assert isinstance(built, nn.Linear)
    assert built.bias is None
    assert isinstance(space(replay({"op": "skip"})), nn.Identity)


def test_candidates_may_ask_one_name_with_different_choices() -> None:
    space = Choice("op", {"a": partial(width, high=2), "b": partial(width, high=3)})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: float(bool(space(trial))), n_trials=20)
    assert {name for t in study.trials for name in t.params} == {"op", "op.a.width", "op.b.width"}


def width(trial: Trial, high: int) -> nn.Module:
    return nn.Linear(1, trial.suggest_categorical("width", list(range(1, high + 1))))


def test_a_choice_without_candidates_is_refused() -> None:
    with pytest.raises(ValueError, match="'op' has no candidates; give at least one"):
        Choice("op", {})


def test_a_choice_keeps_its_candidates_though_the_dict_changes() -> None:
    candidates = {"linear": linear, "skip": skip}
    space = Choice("op", candidates)
    candidates.clear()
    assert list(space.candidates) == ["linear", "skip"]


def test_each_repetition_decides_for_itself() -> None:
    space = Repeat("block", linear, 1, 2)
    params = {"block.depth": 2, "block.0.bias": True, "block.1.bias": False}
    first, second = space(replay(params))
    assert first.bias is not None
    assert second.bias is None
    assert list(enumerate_params(space))[2:4] == [{**params, "block.1.bias": True}, params]


def test_a_repetition_may_be_empty() -> None:
    model = Repeat("block", linear, 0, 0)(replay({"block.depth": 0}))
    x = torch.randn(2, 4)
    assert torch.equal(model(x), x)


@pytest.mark.parametrize(("low", "high"), [(-1, 2), (3, 2)])
def test_a_repetition_with_impossible_bounds_is_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=rf"'block' needs 0 <= low <= high, got low={low}, high={high}"):
        Repeat("block", linear, low, high)


def test_a_chain_names_its_parts_in_questions_and_in_the_state_dict() -> None:
    space = Chain(stem=linear, body=Repeat("block", linear, 1, 1))
    params = {"stem.bias": False, "body.block.depth": 1, "body.block.0.bias": True}
    model = space(replay(params))
    assert list(model.state_dict()) == ["stem.weight", "body.0.weight", "body.0.bias"]
    x = torch.randn(2, 4)
    torch.testing.assert_close(model(x), model.get_submodule("body")(model.get_submodule("stem")(x)))


def test_an_empty_chain_is_the_identity() -> None:
    x = torch.randn(2, 4)
    assert torch.equal(Chain()(replay({}))(x), x)


def test_nodes_and_plain_functions_nest_both_ways() -> None:
    op = Choice("op", {"linear": linear, "skip": skip})

    def residual(trial: Trial) -> nn.Module:
        return nn.Sequential(op(trial), nn.ReLU())

    space = Chain(body=Repeat("block", residual, 1, 1))
    asked = [list(params) for params in enumerate_params(space)]
    assert asked[0] == ["body.block.depth", "body.block.0.op", "body.block.0.op.linear.bias"]
    assert asked[-1] == ["body.block.depth", "body.block.0.op"]


def test_two_builds_share_no_module_and_a_study_builds_what_a_replay_builds() -> None:
    space = Chain(body=Repeat("block", Choice("op", {"linear": linear, "skip": skip}), 1, 3))
    built: list[nn.Module] = []

    def objective(trial: optuna.Trial) -> float:
        built.append(space(trial))
        return 0.0

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=10)
    for trial, model in zip(study.trials, built, strict=True):
        for answers in (replay(trial.params), trial):
            again = space(answers)
            assert str(again) == str(model)
            assert not set(map(id, again.modules())) & set(map(id, model.modules()))


def test_the_questions_of_a_node_are_the_same_to_everyone() -> None:
    space = Repeat("block", Choice("op", {"linear": linear, "skip": skip}), 2, 2)
    asked: list[Any] = []

    def first(name: str, distribution: Any) -> Any:
        asked.append((name, distribution))
        return distribution.choices[0] if hasattr(distribution, "choices") else distribution.low

    space(Draw(first))
    study = optuna.create_study()
    study.enqueue_trial({name: first(name, distribution) for name, distribution in list(asked)})
    trial = study.ask()
    space(trial)
    assert list(trial.distributions.items()) == asked[: len(trial.distributions)]


class Optional(Node):
    """A user's own node: a space, or nothing."""

    def __init__(self, name: str, space: Space[nn.Module]) -> None:
        self.name = name
        self.space = space

    @property
    def candidates(self) -> dict[str, Space[nn.Module]]:
        return {"it": self.space}

    def __call__(self, trial: Trial, /) -> nn.Module:
        if trial.suggest_categorical(self.name, [True, False]):
            return self.space(scope(trial, self.name))
        return nn.Identity()

    def questions(self) -> dict[str, BaseDistribution]:
        return {self.name: CategoricalDistribution((True, False))} | under(self.name, questions(self.space))

    def count(self) -> int:
        return 1 + count(self.space)


OWN = Chain(
    stem=Optional("conv", Choice("op", {"linear": linear, "skip": skip})),
    body=Repeat("block", Optional("norm", linear), 0, 3),
)


def plainly(trial: Trial) -> nn.Module:
    """The same as a plain function, which has to be enumerated."""
    return OWN(trial)


def test_a_users_own_node_is_counted_enumerated_and_padded_like_ours() -> None:
    every = list(enumerate_params(OWN))
    assert count(OWN) == len(every) == len({params_key(params) for params in every}) == 4 * (1 + 3 + 9 + 27)
    assert questions(OWN) == questions(plainly)
    assert PaddedSampler(optuna.samplers.RandomSampler(seed=0), OWN).slots == questions(plainly)
    assert {params_key(p) for p in every} == {params_key(p) for p in enumerate_params(plainly)}


def test_nodes_of_any_size_are_counted_without_enumeration() -> None:
    deep = Repeat("block", Optional("op", linear), 0, 60)
    assert count(deep) == sum(3**depth for depth in range(61))
    assert len(questions(deep)) == 1 + 2 * 60


@pytest.mark.parametrize("node", [OWN, Choice("op", {"a": linear, "b": OWN}), Repeat("x", OWN, 1, 2)])
def test_candidates_lead_to_every_plain_function_in_a_node(node: Node) -> None:
    def leaves(space: Space[nn.Module]) -> set[Space[nn.Module]]:
        if not isinstance(space, Node):
            return {space}
        return {leaf for candidate in space.candidates.values() for leaf in leaves(candidate)}

    assert leaves(node) == {linear, skip}


def test_a_node_that_does_not_answer_for_itself_cannot_be_made() -> None:
    class Half(Node):
        def __call__(self, trial: Trial, /) -> nn.Module:
            return nn.Identity()

    with pytest.raises(TypeError, match="abstract method"):
        Half()  # type: ignore[abstract]


def test_what_cannot_be_known_exactly_is_refused_by_name() -> None:
    def unsteady(trial: Trial) -> nn.Module:
        trial.suggest_int("width", 0, 1 + trial.suggest_int("depth", 0, 1))
        return nn.Identity()

    with pytest.raises(ValueError, match="'unsteady' exactly: it asks 'width' from"):
        questions(Chain(part=unsteady))
    with pytest.raises(ValueError, match="'linear' exactly: it has more than 1 architectures"):
        questions(linear, limit=1)
