"""Three nodes, for decisions whose candidates must be visible: a choice, a repetition, a sequence.

A node is a function of a trial like any other, so nodes and plain functions mix freely. It holds recipes,
never modules: each call builds anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import nn

from optnas.trial import Space, Trial, scope


class Choice:
    """One of several candidates, stored in the study under the candidate's name.

    `Choice("op", {"conv": conv, "pool": pool})` asks `op`; what the chosen candidate asks is named
    `op.<candidate>.<name>`, so that candidates may use the same names with different choices.

    Raises:
        ValueError: no candidates.
    """

    def __init__(self, name: str, candidates: Mapping[str, Space[nn.Module]]) -> None:
        if not candidates:
            raise ValueError(f"Choice {name!r} has no candidates; give at least one {{name: space}}.")
        self.name = name
        self.candidates = dict(candidates)

    def __call__(self, trial: Trial) -> nn.Module:
        candidate = trial.suggest_categorical(self.name, list(self.candidates))
        return self.candidates[candidate](scope(trial, self.name, candidate))


class Repeat:
    """A space built `low` to `high` times in sequence, each time with decisions of its own.

    `Repeat("block", block, 1, 4)` asks `block.depth`; the i-th block's own questions are named
    `block.<i>.<name>`, counted from 0.

    Raises:
        ValueError: not `0 <= low <= high`.
    """

    def __init__(self, name: str, space: Space[nn.Module], low: int, high: int) -> None:
        if not 0 <= low <= high:
            raise ValueError(f"Repeat {name!r} needs 0 <= low <= high, got low={low}, high={high}.")
        self.name = name
        self.space = space
        self.low = low
        self.high = high

    def __call__(self, trial: Trial) -> nn.Sequential:
        depth = trial.suggest_int(f"{self.name}.depth", self.low, self.high)
        return nn.Sequential(*(self.space(scope(trial, self.name, i)) for i in range(depth)))


class Chain:
    """Named spaces in sequence: in `Chain(stem=stem, body=body)` the stem's questions are `stem.<name>`."""

    def __init__(self, **spaces: Space[nn.Module]) -> None:
        self.spaces = spaces

    def __call__(self, trial: Trial) -> nn.Sequential:
        return nn.Sequential(OrderedDict((name, s(scope(trial, name))) for name, s in self.spaces.items()))
