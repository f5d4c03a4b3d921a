"""Nodes, for decisions whose candidates must be visible: a choice, a repetition, a sequence.

A node is a function of a trial like any other, so nodes and plain functions mix freely. It holds recipes,
never modules: each call builds anew. Unlike a plain function it says what it can ask without being called, so
that spaces of any size are counted, and padded, by arithmetic.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from torch import nn

from optnas.space.explore import enumerate_params, walk
from optnas.trial import Draw, Space, Trial, name_of, replay, scope

MOST_ENUMERATED = 20_000
"""Architectures of a plain function that are enumerated in order to know its questions."""


class Node(ABC):
    """A space that knows its own candidates, questions and number of architectures.

    A node of your own defines `candidates`, and computes `questions` and `count` from those of its
    candidates. The functions `questions` and `count` of this module give these for nodes and plain functions
    alike.

    Examples:
        >>> isinstance(optnas.Choice("op", {"a": space, "b": space}), optnas.space.Node)
        True
    """

    @property
    @abstractmethod
    def candidates(self) -> Mapping[str, Space[Any]]:
        """The spaces that it is made of, by name."""

    @abstractmethod
    def __call__(self, trial: Trial, /) -> nn.Module:
        """Build one architecture."""

    @abstractmethod
    def questions(self) -> dict[str, BaseDistribution]:
        """Every question that it can ask, whatever the answers: name to distribution.

        Raises:
            ValueError: they cannot be known exactly; see the function `questions`.
        """

    @abstractmethod
    def count(self) -> int:
        """The number of its architectures.

        Raises:
            ValueError: a decision is continuous; the message names it.
        """


class Builder:
    """How choices and repetitions are built: as the trial says.

    Whoever shares weights between networks builds with one of its own, which sees every such decision,
    those in nodes that a plain function calls included.
    """

    def choice(self, node: Choice, trial: Trial) -> nn.Module:
        """What a choice builds."""
        return node.build(node.ask(trial), trial)

    def repeat(self, node: Repeat, trial: Trial) -> nn.Module:
        """What a repetition builds."""
        return node.build(node.ask(trial), trial)


class Answering(Builder, ABC):
    """A builder that answers all questions of a space itself, and knows who asks.

    Attributes:
        trial: what the space is to be called with.
    """

    def __init__(self) -> None:
        self.trial = Draw(self._pick)
        self._asks_for_node = False

    @abstractmethod
    def of_node(self, name: str, distribution: BaseDistribution) -> Any:
        """The answer to what a choice or a repetition asks."""

    @abstractmethod
    def of_function(self, name: str, distribution: BaseDistribution) -> Any:
        """The answer to what a plain function asks."""

    def ask(self, node: Choice | Repeat, trial: Trial) -> Any:
        """The answer to a node's question."""
        self._asks_for_node = True
        try:
            return node.ask(trial)
        finally:
            self._asks_for_node = False

    def _pick(self, name: str, distribution: BaseDistribution) -> Any:
        return (self.of_node if self._asks_for_node else self.of_function)(name, distribution)


_builder: ContextVar[Builder] = ContextVar("builder", default=Builder())  # noqa: B039  (it has no state)


@contextmanager
def building_with(builder: Builder) -> Iterator[None]:
    """Let `builder` build the choices and repetitions of all spaces that are called meanwhile."""
    token = _builder.set(builder)
    try:
        yield
    finally:
        _builder.reset(token)


def questions(space: Space[Any], limit: int = MOST_ENUMERATED) -> dict[str, BaseDistribution]:
    """Every question that a space can ask, whatever the answers: name to distribution.

    A node says so itself; a plain function is enumerated, all its architectures up to `limit`.

    Raises:
        ValueError: a function has more than `limit` architectures or a continuous decision, or asks one name
            with different distributions.

    Examples:
        >>> optnas.space.questions(space)["depth"]
        IntDistribution(high=3, log=False, low=1, step=1)
    """
    if isinstance(space, Node):
        return space.questions()
    found: dict[str, BaseDistribution] = {}
    try:
        for i, params in enumerate(itertools.islice(enumerate_params(space), limit + 1)):
            if i == limit:
                raise ValueError(f"it has more than {limit} architectures")
            asked = replay(params)
            walk(space, asked)
            for name, distribution in asked.distributions.items():
                if found.setdefault(name, distribution) != distribution:
                    raise ValueError(f"it asks {name!r} from {found[name]} and from {distribution}")
    except ValueError as error:
        raise ValueError(f"Cannot list the questions of {name_of(space)!r} exactly: {error}.") from error
    return found


def count(space: Space[Any]) -> int:
    """The number of different answers (genotypes) that a space has.

    A node counts by arithmetic; a plain function is enumerated.

    Raises:
        ValueError: a decision is continuous; the message names it.

    Examples:
        >>> optnas.count(space)  # four widths; one, two or three kernels of two sizes
        56
    """
    return space.count() if isinstance(space, Node) else sum(1 for _ in enumerate_params(space))


def under(prefix: str, asked: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """Questions as `scope(trial, prefix)` asks them."""
    return {f"{prefix}.{name}": distribution for name, distribution in asked.items()}


class Choice(Node):
    """One of several candidates, stored in the study under the candidate's name.

    `Choice("op", {"conv": conv, "pool": pool})` asks `op`; what the chosen candidate asks is named
    `op.<candidate>.<name>`, so that candidates may use the same names with different choices.

    Raises:
        ValueError: no candidates.

    Examples:
        >>> op = optnas.Choice(
        ...     "op",
        ...     {
        ...         "conv": lambda trial: blocks.conv(trial, width=8),
        ...         "pool": lambda trial: nn.MaxPool2d(2),
        ...     },
        ... )
        >>> list(optnas.enumerate_params(op))
        [{'op': 'conv', 'op.conv.kernel': 3}, {'op': 'conv', 'op.conv.kernel': 5}, {'op': 'pool'}]
    """

    def __init__(self, name: str, candidates: Mapping[str, Space[nn.Module]]) -> None:
        if not candidates:
            raise ValueError(f"Choice {name!r} has no candidates; give at least one {{name: space}}.")
        self.name = name
        self._candidates = dict(candidates)

    @property
    def candidates(self) -> Mapping[str, Space[nn.Module]]:
        return self._candidates

    def __call__(self, trial: Trial, /) -> nn.Module:
        return _builder.get().choice(self, trial)

    def ask(self, trial: Trial) -> str:
        """The name of the candidate that the trial chooses."""
        candidate: str = trial.suggest_categorical(self.name, list(self._candidates))
        return candidate

    def build(self, candidate: str, trial: Trial) -> nn.Module:
        """One candidate, whatever the trial would choose."""
        return self._candidates[candidate](scope(trial, self.name, candidate))

    def questions(self) -> dict[str, BaseDistribution]:
        found: dict[str, BaseDistribution] = {self.name: CategoricalDistribution(tuple(self._candidates))}
        for name, candidate in self._candidates.items():
            found |= under(f"{self.name}.{name}", questions(candidate))
        return found

    def count(self) -> int:
        return sum(map(count, self._candidates.values()))


class Repeat(Node):
    """A space built `low` to `high` times in sequence, each time with decisions of its own.

    `Repeat("block", block, 1, 4)` asks `block.depth`; the i-th block's own questions are named
    `block.<i>.<name>`, counted from 0.

    Raises:
        ValueError: not `0 <= low <= high`.

    Examples:
        >>> body = optnas.Repeat("block", lambda trial: blocks.conv(trial, width=8), 1, 3)
        >>> optnas.count(body)
        14
    """

    def __init__(self, name: str, space: Space[nn.Module], low: int, high: int) -> None:
        if not 0 <= low <= high:
            raise ValueError(f"Repeat {name!r} needs 0 <= low <= high, got low={low}, high={high}.")
        self.name = name
        self.space = space
        self.low = low
        self.high = high

    @property
    def candidates(self) -> Mapping[str, Space[nn.Module]]:
        """The space once for each position, `"0"`, `"1"`, ..."""
        return {str(i): self.space for i in range(self.high)}

    def __call__(self, trial: Trial, /) -> nn.Module:
        return _builder.get().repeat(self, trial)

    def ask(self, trial: Trial) -> int:
        """How many times, as the trial chooses."""
        return trial.suggest_int(f"{self.name}.depth", self.low, self.high)

    def build(self, depth: int, trial: Trial) -> nn.Sequential:
        """So many in sequence, whatever the trial would choose."""
        return nn.Sequential(*(self.space(scope(trial, self.name, i)) for i in range(depth)))

    def questions(self) -> dict[str, BaseDistribution]:
        found: dict[str, BaseDistribution] = {f"{self.name}.depth": IntDistribution(self.low, self.high)}
        once = questions(self.space) if self.high else {}
        for i in range(self.high):
            found |= under(f"{self.name}.{i}", once)
        return found

    def count(self) -> int:
        once = count(self.space) if self.high else 0
        return sum(once**depth for depth in range(self.low, self.high + 1))


class Chain(Node):
    """Named spaces in sequence: in `Chain(stem=stem, body=body)` the stem's questions are `stem.<name>`.

    Examples:
        >>> both = optnas.Chain(
        ...     stem=lambda trial: nn.Linear(4, trial.suggest_int("width", 8, 9)),
        ...     act=optnas.Choice(
        ...         "kind", {"relu": lambda trial: nn.ReLU(), "tanh": lambda trial: nn.Tanh()}
        ...     ),
        ... )
        >>> list(optnas.sample(both, 0))
        ['stem.width', 'act.kind']
    """

    def __init__(self, **spaces: Space[nn.Module]) -> None:
        self.spaces = spaces

    @property
    def candidates(self) -> Mapping[str, Space[nn.Module]]:
        return self.spaces

    def __call__(self, trial: Trial, /) -> nn.Sequential:
        return nn.Sequential(OrderedDict((name, s(scope(trial, name))) for name, s in self.spaces.items()))

    def questions(self) -> dict[str, BaseDistribution]:
        found: dict[str, BaseDistribution] = {}
        for name, space in self.spaces.items():
            found |= under(name, questions(space))
        return found

    def count(self) -> int:
        return math.prod(map(count, self.spaces.values()))
