"""A mixture is what its weights say: of one candidate the stand-alone network, of several their sum."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import optuna
import pytest
import torch
from torch import nn

from optnas import Chain, Choice, Mixture, Repeat, sample, scope
from optnas.errors import SpaceError
from optnas.facts import materialize
from optnas.space.blocks import conv, head
from optnas.supernet.mixing import Depths, Mixed, Weights
from optnas.trial import replay

INPUT = (3, 1, 8, 8)


def skip(trial):
    return nn.Identity()


def keep(trial, kernel):
    return conv(trial, width=6, kernel=kernel)


def stem(trial):
    return nn.Conv2d(1, 6, 3, padding=1)


def sized(trial):
    return conv(trial, width=6, kernel=(1, 3))


op = Choice("op", {"skip": skip, "conv1": partial(keep, kernel=1), "conv3": partial(keep, kernel=3)})
deep = Choice("op", {"skip": skip, "more": Choice("in", {"skip": skip, "sized": sized})})


class Cell(nn.Module):
    def __init__(self, edges):
        super().__init__()
        self.edges = nn.ModuleDict(edges)

    def forward(self, x):
        one = self.edges["0-1"](x)
        return self.edges["0-2"](x) + self.edges["1-2"](one)


def cells(trial):
    """Two cells of one kind: every edge is asked twice under one name."""
    edge = scope(trial, "edge")
    return nn.Sequential(
        *(Cell({e: Choice(e, op.candidates)(edge) for e in ("0-1", "0-2", "1-2")}) for _ in "ab")
    )


space = Chain(
    stem=stem,
    cells=cells,
    body=Repeat("block", op, 0, 2),
    deep=deep,
    head=partial(head, n_classes=4),
)


@pytest.fixture(scope="module")
def mixture():
    torch.manual_seed(0)
    return Mixture(space, INPUT, given={"kernel": 3})


def alone(module, params):
    """The mixture's network with one candidate in the place of each mix."""
    if isinstance(module, Mixed):
        return alone(module.candidates[module.answers.index(params[module.name])], params)
    if isinstance(module, Depths):
        return nn.Sequential(*(alone(block, params) for block in module.blocks[: params[module.name]]))
    for name, child in module.named_children():
        module._modules[name] = alone(child, params)
    return module


def only(mixture, params):
    """Weights of these answers alone; of what is not asked, the first."""
    found = {}
    for name, answers in mixture.decisions.items():
        i = answers.index(params[name]) if name in params else 0
        values = torch.zeros(len(answers))
        values[i] = 1
        found[name] = Weights(values, (i,))
    return found


def test_of_one_candidate_each_it_is_the_stand_alone_network_bit_for_bit(mixture):
    rng = np.random.default_rng(0)
    x = torch.rand(5, 1, 8, 8)
    for _ in range(20):
        params = {**sample(space, rng)}
        params.update({name: 3 for name in params if name.endswith("kernel")})
        with mixture.weighed(only(mixture, params)):
            found = mixture.train()(x)
        network = materialize(space(replay(params)), INPUT)
        network.load_state_dict(alone(copy.deepcopy(mixture.network), params).state_dict())
        assert torch.equal(network.train()(x), found)


def test_it_is_the_sum_of_its_candidates_by_the_softmax_of_their_alphas():
    torch.manual_seed(0)
    one = Mixture(Chain(a=op, b=Repeat("block", op, 1, 2)), (3, 6, 8, 8))
    with torch.no_grad():
        one.alpha.copy_(torch.randn(len(one.alpha)))
    x = torch.rand(3, 6, 8, 8)
    parts = dict(zip(one.decisions, one.alpha.split(one.sizes), strict=True))

    def by_hand(mix, x):
        weights = parts[mix.name].exp() / parts[mix.name].exp().sum()
        return sum(w * candidate(x) for w, candidate in zip(weights, mix.candidates, strict=True))

    a, depths = one.network.a, one.network.b
    first = by_hand(depths.blocks[0], by_hand(a, x))
    second = by_hand(depths.blocks[1], first)
    share = parts["b.block.depth"].softmax(0)
    torch.testing.assert_close(one(x), share[0] * first + share[1] * second)
    assert one.decisions["b.block.depth"] == (1, 2)


def test_a_name_that_is_asked_twice_is_one_decision_with_weights_at_each_place(mixture):
    places = [place for place in mixture.places if place.name == "cells.edge.0-1"]
    assert len(places) == 2
    first, second = (list(place.parameters()) for place in places)
    assert not {id(p) for p in first} & {id(p) for p in second}
    assert mixture.decisions["cells.edge.0-1"] == ("skip", "conv1", "conv3")
    assert list(mixture.decisions) == [
        *("cells.edge.0-1", "cells.edge.0-2", "cells.edge.1-2"),
        *("body.block.depth", "body.block.0.op", "body.block.1.op", "deep.op", "deep.op.more.in"),
    ]


def test_normalizations_of_candidates_scale_nothing_and_use_the_batch(mixture):
    within = {id(m) for o in mixture.operations for m in o.modules()}
    norms = [m for m in mixture.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        assert norm.weight.requires_grad == (id(norm) not in within)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(mixture.eval()(x), mixture.train()(x))


def test_gumbel_draws_candidates_as_often_as_the_softmax_says_and_passes_gradients():
    mixture = Mixture(Chain(a=op, head=partial(head, n_classes=4)), (2, 6, 8, 8))
    logits = torch.tensor([0.0, 1.0, 2.0])
    rng = np.random.default_rng(0)
    drawn = np.zeros(3)
    for _ in range(3000):
        noise = torch.as_tensor(rng.gumbel(size=3), dtype=torch.float32)
        found = mixture.sampled(logits, noise, 0.5)["a.op"]
        [i] = found.run
        assert float(found.values[i]) == 1.0
        drawn[i] += 1
    np.testing.assert_allclose(drawn / 3000, logits.softmax(0).numpy(), atol=0.03)
    alpha = logits.clone().requires_grad_()
    with mixture.weighed(mixture.sampled(alpha, noise, 0.5)):
        mixture(torch.rand(2, 6, 8, 8)).square().sum().backward()
    soft = ((logits.log_softmax(0) + noise) / 0.5).softmax(0)
    # The gradient of one entry of a softmax, up to a factor: what the drawn candidate is worth.
    direction = (torch.eye(3)[i] - soft) * soft[i]
    assert torch.nn.functional.cosine_similarity(alpha.grad, direction, 0).abs() > 0.9999


def test_some_channels_go_through_the_candidates_and_the_others_pass_by():
    mixture = Mixture(op, (3, 6, 8, 8))
    x = torch.rand(3, 6, 8, 8)
    masks = []
    for seed in range(20):
        with mixture.weighed(None, partial=3, channels_seed=seed):
            found, again = mixture(x), mixture(x)
        assert torch.equal(found, again)
        mask = torch.tensor([not torch.equal(found[:, i], x[:, i]) for i in range(6)]).float()
        assert mask.sum() == 2
        mask = mask.reshape(1, 6, 1, 1)
        torch.testing.assert_close(found, mixture(x * mask) * mask + x * (1 - mask))
        masks.append(tuple(mask.flatten().tolist()))
    assert len(set(masks)) > 3
    narrow = Mixture(Choice("op", {"a": stem, "b": stem}), INPUT)  # widens: nothing passes by
    with narrow.weighed(None, partial=3):
        assert torch.equal(narrow(x[:, :1]), narrow(x[:, :1]))


def two_edges(trial):
    return Sum({name: op(scope(trial, name)) for name in ("left", "right")})


class Sum(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    def forward(self, x):
        return sum(part(x) for part in self.parts.values())


@pytest.mark.parametrize("partial", [1, 3])
def test_edges_of_one_node_share_a_softmax(partial):
    torch.manual_seed(0)
    mixture = Mixture(two_edges, (3, 6, 8, 8), edges=[["left.op", "right.op"]])
    n = len(op.candidates)
    assert mixture.alpha.shape == (2 * n + 2,)
    x = torch.rand(3, 6, 8, 8)
    alpha = torch.randn(2 * n + 2, requires_grad=True)
    parts = list(mixture.network.parts.values())
    with mixture.weighed(mixture.soft(alpha), partial=partial, channels_seed=1):
        found = mixture(x)
        left, right = (
            part(x) / weights.share for part, weights in zip(parts, mixture.soft(alpha).values(), strict=True)
        )
    shares = alpha[-2:].softmax(0)
    torch.testing.assert_close(found, left * shares[0] + right * shares[1])
    found.square().sum().backward()
    assert (alpha.grad != 0).all()
    # Which answer is best is no matter of the edge.
    torch.testing.assert_close(mixture.soft(alpha)["left.op"].values, alpha[:n].softmax(0), rtol=0, atol=0)
    assert mixture.untrained(replay({})).edges == mixture.edges


@pytest.mark.parametrize(
    ("edges", "words"), [([["left.op", "op"]], "'op' is no decision"), ([["left.op"], ["left.op"]], "twice")]
)
def test_edges_are_decisions_each_in_one_node(edges, words):
    with pytest.raises(ValueError, match=words):
        Mixture(two_edges, (3, 6, 8, 8), edges=edges)


def test_what_a_candidate_does_in_place_is_undone():
    def inplace(trial):
        return nn.ReLU(inplace=True)

    mixture = Mixture(Choice("op", {"relu": inplace, "skip": skip}), (3, 4))
    with torch.no_grad():
        mixture.alpha.zero_()
    x = torch.tensor([[-1.0, 1.0, 2.0, -2.0]])
    assert mixture(x).tolist() == [[-0.5, 1.0, 2.0, -1.0]]


class Rough(nn.Module):
    def forward(self, x):
        return x.add_(1)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def pieces(trial):
    return nn.Sequential(*Repeat("block", op, 1, 2)(trial).blocks)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (sized, r"decides 'kernel'.*given=\{'kernel': \.\.\.\}"),
        (stem, r"declares no decision.*optnas\.Choice"),
        (Choice("op", {"a": skip, "b": stem}), r"'op'.*'a' gives \(3, 1, 8, 8\) where 'b' gives \(3, 6,"),
        (Repeat("block", stem, 0, 1), r"'block\.depth'.*0 gives \(3, 1, 8, 8\) where 1 gives \(3, 6, 8, 8\)"),
        (Choice("op", {"a": skip, "b": lambda t: Rough()}), r"'b' of 'op' changes its input in place"),
        (Repeat("block", lambda t: Rough(), 1, 2), r"after depth 1 of 'block\.depth' changes its input"),
        (Choice("op", {"a": skip, "b": lambda t: Pair()}), r"'b' of 'op' gives a tuple"),
        (Repeat("block", lambda t: Pair(), 1, 1), r"Depth 1 of 'block\.depth' gives a tuple"),
        (pieces, r"does not hold what the node 'block\.depth' built"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_said_with_the_name_of_the_decision(space, message):
    with pytest.raises(SpaceError, match=f"(?s){message}"):
        Mixture(space, INPUT)


def test_answers_that_nobody_asks_for_are_refused():
    with pytest.raises(ValueError, match="no plain function asks for 'wdith'"):
        Mixture(space, INPUT, given={"kernel": 3, "wdith": 4})


def test_the_most_promising_networks_are_those_of_the_largest_alphas(mixture):
    with pytest.raises(ValueError, match=r"is untrained.*Objective\(mixture.untrained"):
        mixture.networks(2)
    trained = copy.deepcopy(mixture)
    trained.steps += 1
    with torch.no_grad():
        trained.alpha.zero_()
        starts = dict(zip(trained.decisions, np.cumsum([0, *trained.sizes]), strict=False))
        trained.alpha[starts["cells.edge.0-2"] + 2] = 3  # conv3
        trained.alpha[starts["cells.edge.0-1"] + 1] = 2
        trained.alpha[starts["cells.edge.1-2"] + 1] = 1
        trained.alpha[starts["body.block.depth"]] = 4  # nothing of the body
        trained.alpha[starts["deep.op"] + 1] = 5
        trained.alpha[starts["deep.op.more.in"] + 1] = 0.5
    best, second, third = trained.networks(3)
    assert best == {
        "cells.edge.0-1": "conv1",
        "cells.edge.0-2": "conv3",
        "cells.edge.1-2": "conv1",
        "body.block.depth": 0,
        "deep.op": "more",
        "deep.op.more.in": "sized",
        "deep.op.more.in.sized.kernel": 3,
    }
    assert second == {k: v for k, v in best.items() if "kernel" not in k} | {"deep.op.more.in": "skip"}
    assert {n for n in best if third[n] != best[n]} == {"cells.edge.1-2"}
    for params in (best, second, third):
        space(replay(params))
    assert trained.skip_share() == pytest.approx(2 / 7)  # of the body's blocks, which nothing distinguishes
    study = optuna.create_study()
    assert trained.enqueue(study, 3) == trained.enqueue(study, 3) == [best, second, third]
    assert [t.system_attrs["fixed_params"] for t in study.trials] == [best, second, third]
    with pytest.raises(ValueError, match="n=0"):
        trained.networks(0)


def test_a_decision_is_made_for_what_the_network_cannot_do_without():
    mixture = Mixture(Chain(a=op, b=op), (3, 6, 8, 8))
    mixture.steps += 1
    lacking = mixture.lacking("b.op", 0)
    assert lacking["b.op"].run == (1, 2)
    torch.testing.assert_close(
        lacking["b.op"].values[1:],
        mixture.soft()["b.op"].values[1:] / mixture.soft()["b.op"].values[1:].sum(),
    )
    mixture.decide("b.op", [0.5, 0.9, 0.7])
    assert mixture.undecided() == ["a.op"]
    assert mixture.soft()["b.op"].run == mixture.hard()["b.op"].run == (1,)
    assert mixture.soft()["b.op"].values[1] == 1
    assert mixture.scores()["b.op"] == pytest.approx({"skip": -0.4, "conv1": 0, "conv3": -0.2})
    other = mixture.untrained(replay({}))
    other.load_state_dict(mixture.state_dict())
    assert other.undecided() == ["a.op"]
    assert other.networks(4) == mixture.networks(4)
