"""The most promising networks first, as a full enumeration of the space says."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from optnas import Chain, Choice, Repeat, count, enumerate_params
from optnas.answers import params_key
from optnas.supernet.ranking import ranked


def leaf(trial):
    return nn.Identity()


def asking(trial):
    trial.suggest_categorical("width", [4, 8])
    return nn.Identity()


flat = Chain(**{name: Choice("op", dict.fromkeys("abc", leaf)) for name in ("one", "two", "three")})
inner = Choice("op", {"a": leaf, "b": Choice("in", dict.fromkeys("xyz", leaf)), "c": asking})
conditional = Chain(body=Repeat("block", inner, 0, 2), end=inner)


def no_question(name, distribution):
    return 8 if name.endswith("width") else pytest.fail(f"{name} has scores")


def scores_of(space, rng):
    """A number for each answer to each question of nodes."""
    found = {}
    for params in enumerate_params(space):
        for name, answer in params.items():
            if not name.endswith("width"):
                found.setdefault(name, {})[answer] = 0.0
    return {name: {answer: float(rng.normal()) for answer in of} for name, of in found.items()}


def loss(params, scores):
    return sum(max(scores[name].values()) - scores[name][a] for name, a in params.items() if name in scores)


@pytest.mark.parametrize("space", [flat, conditional], ids=["flat", "conditional"])
def test_every_network_comes_once_and_none_before_a_better_one(space):
    for seed in range(3):
        scores = scores_of(space, np.random.default_rng(seed))
        found = list(ranked(space, scores, no_question))
        every = [p for p in enumerate_params(space) if all(p.get(n) != 4 for n in p if n.endswith("width"))]
        assert len({params_key(params) for params in found}) == len(found) == len(every) <= count(space)
        losses = [loss(params, scores) for params in found]
        np.testing.assert_allclose(losses, sorted(loss(params, scores) for params in every), atol=1e-12)
        assert losses[0] == 0


def test_an_error_of_the_space_is_not_swallowed():
    def broken(trial):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        next(ranked(broken, {}, no_question))
