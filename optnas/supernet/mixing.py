"""Networks in which every declared decision is made in part: all candidates run, each with a weight.

`mixed` builds a space once. Each `Choice` becomes the weighted sum of its candidates, each `Repeat` that of
its outputs after each depth. A name that the space asks at several places (the cells of one kind) is one
decision, with weights of the network's own at each place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from optuna.distributions import BaseDistribution
from torch import Tensor, nn

from optnas.answers import options
from optnas.errors import SpaceError
from optnas.space.nodes import Answering, Choice, Repeat, building_with
from optnas.trial import Space, Trial


@dataclass(frozen=True)
class Weights:
    """How much each candidate of a decision counts.

    Attributes:
        values: one number each, `(candidates,)`.
        run: the positions of those that run; the others are left out.
        share: what their sum is multiplied by, one number; None: nothing.
    """

    values: Tensor
    run: tuple[int, ...]
    share: Tensor | None = None


@dataclass
class Now:
    """What the next pass does, known to all places at which the network mixes.

    Attributes:
        weights: of each decision, by name.
        partial: of how many channels one goes through the candidates; the others pass by.
        channels_seed: says which channels these are.
        checking: whether the pass looks for candidates that cannot be mixed.
    """

    weights: Mapping[str, Weights] = field(default_factory=dict)
    partial: int = 1
    channels_seed: int = 0
    checking: bool = False


class Mixed(nn.Module):
    """The candidates of one `Choice` at one place of the network, and their weighted sum."""

    def __init__(self, name: str, candidates: Mapping[Any, nn.Module], now: Now, place: int) -> None:
        super().__init__()
        self.name = name
        self.answers = tuple(candidates)
        self.candidates = nn.ModuleList(candidates.values())
        self.now = now
        self.place = place
        self.keeps_shape = False  # until a pass has shown it

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        weights = self.now.weights[self.name]
        if self.now.checking:
            self._check(*args, **kwargs)
        if self.now.partial == 1:
            return _shared(weights, self._sum(weights, *args, **kwargs))
        return _shared(weights, self._partly(weights, *args, **kwargs))

    def _sum(self, weights: Weights, *args: Any, **kwargs: Any) -> Tensor:
        return _weighted(weights, {i: self.candidates[i](*args, **kwargs) for i in weights.run})

    def _partly(self, weights: Weights, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Some channels through the candidates, the others past them, where shapes allow."""
        channels = x.shape[1] if self.keeps_shape and x.ndim > 1 else 0
        through = channels // self.now.partial
        if not through:  # what strides or widens, or is too narrow, has nothing to pass by
            return self._sum(weights, x, *args, **kwargs)
        rng = np.random.default_rng([self.now.channels_seed, self.place])
        mask = torch.zeros(channels, dtype=x.dtype, device=x.device)
        mask[torch.from_numpy(rng.permutation(channels)[:through]).to(x.device)] = 1
        mask = mask.reshape(1, -1, *[1] * (x.ndim - 2))
        mixed = self._sum(weights, x * mask, *args, **kwargs)
        return mixed * mask + x * (1 - mask)

    def _check(self, *args: Any, **kwargs: Any) -> None:
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        found: dict[Any, tuple[int, ...]] = {}
        for answer, candidate in zip(self.answers, self.candidates, strict=True):
            before = [x._version for x in given]
            output = candidate(*args, **kwargs)
            if [x._version for x in given] != before:
                raise SpaceError(
                    f"The candidate {answer!r} of {self.name!r} changes its input in place, which the other "
                    "candidates read too; let it work on a copy."
                )
            found[answer] = _shape(output, f"The candidate {answer!r} of {self.name!r}")
        _check_equal(self.name, found)
        first = args[0] if args else None
        self.keeps_shape = isinstance(first, Tensor) and tuple(first.shape) in found.values()


class Depths(nn.Module):
    """The blocks of one `Repeat` at one place of the network, and the weighted sum of all depths."""

    def __init__(self, name: str, blocks: nn.Sequential, low: int, now: Now) -> None:
        super().__init__()
        self.name = name
        self.blocks = blocks
        self.low = low
        self.now = now

    def forward(self, x: Any) -> Any:
        weights = self.now.weights[self.name]
        run = range(len(self.blocks) + 1 - self.low) if self.now.checking else weights.run
        outputs = {}
        versions = {}
        for depth in range(self.low + max(run) + 1):
            if depth:
                x = self.blocks[depth - 1](x)
            if depth - self.low in run:
                outputs[depth - self.low] = x
                versions[depth] = x._version if self.now.checking and isinstance(x, Tensor) else 0
        if self.now.checking:
            self._check(outputs, versions)
        return _shared(weights, _weighted(weights, outputs))

    def _check(self, outputs: Mapping[int, Any], versions: Mapping[int, int]) -> None:
        found = {i + self.low: x for i, x in outputs.items()}
        shapes = {depth: _shape(x, f"Depth {depth} of {self.name!r}") for depth, x in found.items()}
        _check_equal(self.name, shapes)
        for depth, x in found.items():
            if x._version != versions[depth]:
                raise SpaceError(
                    f"What comes after depth {depth} of {self.name!r} changes its input in place, which the "
                    "mixture reads too; let it work on a copy."
                )


def _weighted(weights: Weights, outputs: Mapping[int, Tensor]) -> Tensor:
    first, *others = (weights.values[i] * outputs[i] for i in weights.run)
    total = first
    for other in others:
        total = total + other
    return total


def _shared(weights: Weights, total: Tensor) -> Tensor:
    return total if weights.share is None else total * weights.share


def _shape(output: Any, whose: str) -> tuple[int, ...]:
    if not isinstance(output, Tensor):
        raise SpaceError(
            f"{whose} gives a {type(output).__name__}; a mixture adds tensors up. Let it give one tensor, or "
            "search the space with a sampler."
        )
    return tuple(output.shape)


def _check_equal(name: str, found: Mapping[Any, tuple[int, ...]]) -> None:
    (one, shape), *others = found.items()
    for other, its in others:
        if its != shape:
            raise SpaceError(
                f"A mixture adds up what {name!r} decides between, and {one!r} gives {shape} where {other!r} "
                f"gives {its}. Give all of them one shape."
            )


# ---- building ----


@dataclass(frozen=True)
class Built:
    """A space that was built as a mixture.

    Attributes:
        network: what it built.
        decisions: the answers of each decision that is mixed, by name, in the order asked.
        given: which of the answers that were given it asked for.
    """

    network: nn.Module
    decisions: Mapping[str, tuple[Any, ...]]
    given: frozenset[str]


def mixed(space: Space[nn.Module], given: Mapping[str, Any], now: Now) -> Built:
    """Build all candidates of all nodes; `given` answers what plain functions ask.

    Raises:
        SpaceError: a plain function asks for what is not given; or no node is asked; or the network takes to
            pieces what a node built.
    """
    builder = _Mixing(given, now)
    with building_with(builder):
        network = space(builder.trial)
    if not builder.decisions:
        raise SpaceError(
            "The space declares no decision, so there is nothing to mix. Declare them with nodes: "
            "optnas.Choice(name, {candidate: space, ...}), optnas.Repeat(name, space, low, high)."
        )
    places = {part.name for part in network.modules() if isinstance(part, Mixed | Depths)}
    for name in builder.decisions:
        if name not in places:
            raise SpaceError(
                f"The network does not hold what the node {name!r} built: it takes it to pieces, or leaves "
                "it out. Put what a node builds into the network as it is."
            )
    return Built(network, builder.decisions, frozenset(builder.used))


class _Mixing(Answering):
    def __init__(self, given: Mapping[str, Any], now: Now) -> None:
        super().__init__()
        self.decisions: dict[str, tuple[Any, ...]] = {}
        self.used: set[str] = set()
        self._given = given
        self._now = now
        self._places = 0

    def choice(self, node: Choice, trial: Trial) -> nn.Module:
        name = self._name(node, trial)
        candidates = {answer: node.build(answer, trial) for answer in self.decisions[name]}
        self._places += 1
        return Mixed(name, candidates, self._now, self._places)

    def repeat(self, node: Repeat, trial: Trial) -> nn.Module:
        name = self._name(node, trial)
        return Depths(name, node.build(node.high, trial), node.low, self._now)

    def _name(self, node: Choice | Repeat, trial: Trial) -> str:
        """What a node's question is called, with all that stands before it."""
        self.ask(node, trial)
        name = self.trial.last
        assert name is not None, "it has just been asked"
        self.decisions[name] = tuple(options(name, self.trial.distributions[name]))
        return name

    def of_node(self, name: str, distribution: BaseDistribution) -> Any:
        return options(name, distribution)[0]  # of no matter: all are built

    def of_function(self, name: str, distribution: BaseDistribution) -> Any:
        key = given_as(name, self._given)
        self.used.add(key)
        return self._given[key]


def given_as(name: str, given: Mapping[str, Any]) -> str:
    """Under which key an answer to `name` is given: its full name, or else its last part.

    Raises:
        SpaceError: under neither.
    """
    last = name.rpartition(".")[2]
    for key in (name, last):
        if key in given:
            return key
    raise SpaceError(
        f"A plain function decides {name!r}, and no gradient says how. Declare it with a node (optnas.Choice "
        "for one of several, optnas.Repeat for a depth), or say what it is: "
        f"Mixture(space, example, given={{{last!r}: ...}})."
    )
