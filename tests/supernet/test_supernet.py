"""Shared weights: a sub-network is the stand-alone network, and nothing is shared that nobody declared."""

from __future__ import annotations

from functools import partial

import numpy as np
import optuna
import pytest
import torch
from fixtures import supernet_spaces as spaces
from fixtures.supernet_spaces import INPUT
from torch import nn

from optnas import Choice, Repeat, Supernet, sample, scope
from optnas.errors import SpaceError
from optnas.facts import count_params, materialize
from optnas.space.blocks import conv, head
from optnas.supernet.supernet import answers
from optnas.testing import check_space
from optnas.trial import replay


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    return Supernet(spaces.space, INPUT, draws=20)


def alone(space, params, state, example=INPUT):
    """The stand-alone network, with copied weights."""
    model = materialize(space(replay(params)), example)
    model.load_state_dict(state)
    return model


def run(model, x, training):
    model.train(training)
    return model(x)


@pytest.mark.parametrize(
    "make", [None, spaces.tables, spaces.tied], ids=["nodes and sizes", "tables", "tied"]
)
def test_a_subnetwork_is_the_stand_alone_network_with_copied_weights_bit_for_bit(supernet, make):
    shared = supernet if make is None else Supernet(make, INPUT)
    rng = np.random.default_rng(0)
    x = torch.rand(5, 1, 8, 8)
    for _ in range(40 if make is None else 8):
        params = sample(shared.space, rng)
        subnet = shared.subnet(replay(params))
        other = alone(shared.space, params, subnet.state_dict())
        shared.choose(shared.draw(answers(params)))
        assert str(subnet) == str(other)
        output = run(other, x, training=True)
        assert torch.equal(run(subnet, x, training=True), output)
        assert torch.equal(run(shared, x, training=True), output)
        assert torch.equal(run(subnet, x, training=False), run(other, x, training=False))


def test_gradients_are_those_of_the_stand_alone_network_and_none_where_a_weight_is_not_used(supernet):
    rng = np.random.default_rng(1)
    x = torch.rand(5, 1, 8, 8)
    for _ in range(10):
        params = sample(spaces.space, rng)
        subnet = supernet.subnet(replay(params))
        path = supernet.draw(answers(params))
        supernet.choose(path)
        supernet.zero_grad(set_to_none=True)
        for model in (supernet, subnet):
            run(model, x, training=True).square().sum().backward()
        used = {weight.key.replace(".", "/") for weight in path.weights.values()}
        assert {name for name, p in supernet.weights.items() if p.grad is not None} == used
        for name, parameter in subnet.named_parameters():
            weight = path.weights[name]
            shared = supernet.weights[weight.key.replace(".", "/")].grad
            assert torch.equal(weight.within(shared), parameter.grad)
            assert shared.count_nonzero() == parameter.grad.count_nonzero()  # nothing beyond the slice


def test_the_subnetworks_are_a_space_that_every_search_takes(supernet):
    check_space(supernet.subnet, INPUT, n_samples=5)
    for params in (sample(spaces.space, seed) for seed in range(5)):
        asked = [replay(params) for _ in range(2)]
        supernet.subnet(asked[0])
        spaces.space(asked[1])
        assert asked[0].distributions == asked[1].distributions
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=2))
    study.optimize(lambda trial: float(count_params(supernet.subnet(trial))), n_trials=4)
    found = spaces.space(replay(study.best_params))  # stand-alone, from the answers alone
    assert count_params(materialize(found, INPUT)) == study.best_value


def test_a_subnetwork_owns_its_weights(supernet):
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    subnet = supernet.subnet(replay(sample(spaces.space, 3)))
    run(subnet, torch.rand(5, 1, 8, 8), training=True)
    with torch.no_grad():
        for parameter in subnet.parameters():
            parameter.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
    assert not [name for name in before if "running" in name]


def linear(trial):
    return nn.Linear(4, 4)


def test_candidates_and_positions_have_weights_of_their_own():
    space = Repeat("block", Choice("op", {"a": linear, "b": Choice("c", {"x": linear, "y": linear})}), 1, 2)
    names = set(Supernet(space, (2, 4)).weights)
    tags = ("a", "b/x", "b/y")
    assert names == {f"{i}<{tag}>/{leaf}" for i in range(2) for tag in tags for leaf in ("weight", "bias")}


def test_sizes_are_slices_of_the_largest():
    def space(trial):
        return conv(trial, width=(2, 4), kernel=(1, 2, 3, 4, 5))

    supernet = Supernet(space, INPUT)
    largest = supernet.weights["conv/weight"]
    assert largest.shape == (4, 1, 5, 5)
    for kernel, middle in [
        (1, slice(2, 3)),
        (2, slice(2, 4)),
        (3, slice(1, 4)),
        (4, slice(1, 5)),
        (5, slice(5)),
    ]:
        small = supernet.subnet(replay({"width": 2, "kernel": kernel}))
        assert torch.equal(small.conv.weight, largest[:2, :, middle, middle])


def test_a_smaller_kernel_is_the_larger_one_with_zeros_around_it():
    """So that the slice is at the place where it sees the same pixels."""
    supernet = Supernet(partial(conv, width=3, kernel=(1, 2, 3, 4, 5), activation=identity_layer), INPUT)
    x = torch.rand(2, 1, 8, 8)
    for kernel in (1, 2, 3, 4):
        small = supernet.subnet(replay({"kernel": kernel}))
        large = supernet.subnet(replay({"kernel": 5}))
        shared = supernet.draw(answers({"kernel": kernel})).weights["conv.weight"]
        inner = shared.within(large.conv.weight.detach()).clone()
        with torch.no_grad():
            large.conv.weight.zero_()
            shared.within(large.conv.weight).copy_(inner)
        torch.testing.assert_close(small.eval()(x), large.eval()(x))


class Recurrent(nn.Module):
    def __init__(self, width, cell):
        super().__init__()
        self.rnn = cell(3, width, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


class Attending(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(3, width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x):
        x = self.first(x)
        return self.attention(x, x, x)[0]


@pytest.mark.parametrize(
    ("build", "name", "parts"),
    [
        (partial(Recurrent, cell=nn.LSTM), "rnn.weight_hh_l0", 4),
        (partial(Recurrent, cell=nn.GRU), "rnn.bias_ih_l0", 3),
        (Attending, "attention.in_proj_weight", 3),
    ],
)
def test_gates_and_projections_that_torch_stacks_are_sliced_one_by_one(build, name, parts):
    def space(trial):
        return build(trial.suggest_int("width", 2, 6, step=2))

    supernet = Supernet(space, (2, 5, 3), draws=5)
    small, large = (supernet.subnet(replay({"width": width})) for width in (2, 6))
    matrices = zip(small.state_dict()[name].chunk(parts), large.state_dict()[name].chunk(parts), strict=True)
    for of_small, of_large in matrices:
        assert torch.equal(of_small, of_large[tuple(map(slice, of_small.shape))])
    x = torch.rand(4, 5, 3)
    other = alone(space, {"width": 2}, small.state_dict(), (2, 5, 3))
    supernet.choose(supernet.draw(answers({"width": 2})))
    assert torch.equal(small(x), other(x))
    assert torch.equal(supernet(x), other(x))


def identity_layer():
    return nn.Identity()


def test_initial_weights_are_those_of_new_networks_and_differ_with_the_seed(supernet):
    torch.manual_seed(0)
    first = supernet.untrained(replay({}))
    torch.manual_seed(0)
    again = supernet.untrained(replay({}))
    other = supernet.untrained(replay({}))
    scales = [name for name, p in first.weights.items() if name.endswith("norm/weight")]
    assert scales
    for name, parameter in first.weights.items():
        assert torch.equal(parameter, again.weights[name])
        assert parameter.shape == other.weights[name].shape
    assert all(bool((first.weights[name] == 1).all()) for name in scales)
    drawn = [name for name, p in first.weights.items() if p.dim() > 1]
    assert not any(torch.equal(first.weights[name], other.weights[name]) for name in drawn)


# ---- what nobody declared ----


def categorical(trial):
    layers = {"conv": partial(conv, width=8, kernel=3), "linear": head_}
    return nn.Sequential(layers[trial.suggest_categorical("op", ["conv", "linear"])](trial))


def head_(trial):
    return head(trial, n_classes=4)


def depth(trial):
    layers = [nn.Linear(4, 4) for _ in range(trial.suggest_int("depth", 1, 3))]
    return nn.Sequential(*layers, nn.Linear(4, 2))


def same_names(trial):
    """Other layers of the same names."""
    if trial.suggest_categorical("op", ["conv", "norm"]) == "conv":
        return nn.Sequential(nn.Conv2d(1, 1, 1))
    return nn.Sequential(nn.BatchNorm2d(1))


def test_one_name_for_two_weights_is_said():
    with pytest.raises(SpaceError, match=r"'0.weight' is Conv2d.* which differ in 'op'.*optnas.Choice"):
        Supernet(same_names, INPUT)


@pytest.mark.parametrize(("space", "example", "name"), [(categorical, INPUT, "op"), (depth, (2, 4), "depth")])
def test_a_plain_function_may_not_decide_which_weights_there_are(space, example, name):
    with pytest.raises(SpaceError, match=f"decides '{name}'.*optnas.Choice.*optnas.Repeat"):
        Supernet(space, example)
    inner = Choice("outer", {"x": space, "y": space})
    with pytest.raises(SpaceError, match=f"decides 'outer.[xy].{name}'"):
        Supernet(inner, example)


def test_what_a_choice_built_is_not_to_be_taken_to_pieces():
    def space(trial):
        layers = Choice("op", {"a": two, "b": two})(scope(trial, "x"))
        return nn.Sequential(*layers, nn.Linear(4, 2))

    with pytest.raises(SpaceError, match="takes the candidate 'a' of a Choice to pieces"):
        Supernet(space, (2, 4))


def two(trial):
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU())


def test_a_weight_that_no_network_showed_is_said():
    def space(trial):
        """The last layer is wide in one of a million networks only."""
        high = [trial.suggest_int(f"x{i}", 0, 9) for i in range(6)]
        width = 8 if high == [3, 1, 4, 1, 5, 9] else 4
        return nn.Linear(4, width)

    supernet = Supernet(space, (2, 4), draws=5)
    with pytest.raises(SpaceError, match=r"is \(8, 4\) here and at most \(4, 4\) in all.*draws=50"):
        supernet.subnet(replay({f"x{i}": value for i, value in enumerate([3, 1, 4, 1, 5, 9])}))
