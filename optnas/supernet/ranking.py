"""The most promising networks, where each answer to each decision has a score of its own."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from torch import nn

from optnas.answers import Pick, params_key
from optnas.space.explore import walk
from optnas.trial import Draw, Space


def ranked(
    space: Space[nn.Module], scores: Mapping[str, Mapping[Any, float]], others: Pick
) -> Iterator[dict[str, Any]]:
    """The answers of every network, from the best on.

    A network is as good as its answers together, each measured against the best answer to the same question:
    the first takes the best answer everywhere. `others` answers questions without scores.

    Raises:
        Exception: what the space raises.
    """
    order = {name: sorted(of, key=lambda answer: -of[answer]) for name, of in scores.items()}
    lost = {name: [of[order[name][0]] - of[answer] for answer in order[name]] for name, of in scores.items()}
    tickets = itertools.count()  # of equally good ones the first found comes first

    def at(ranks: Mapping[str, int]) -> tuple[float, int, dict[str, Any], dict[str, int]]:
        """The network that takes the answer of this rank to each decision, the best where none is said."""

        def pick(name: str, distribution: BaseDistribution) -> Any:
            return order[name][ranks.get(name, 0)] if name in order else others(name, distribution)

        asked = Draw(pick)
        error = walk(space, asked)
        if error is not None:
            raise error
        kept = {name: ranks.get(name, 0) for name in asked.params if name in order}
        return sum(lost[name][rank] for name, rank in kept.items()), next(tickets), asked.params, kept

    # To change one decision costs, and what is newly asked then begins with its best, for nothing: so
    # whatever is found from a network is no better than that network.
    front = [at({})]
    seen = {params_key(front[0][2])}
    while front:
        _, _, params, ranks = heapq.heappop(front)
        yield params
        for name, rank in ranks.items():
            if rank + 1 < len(order[name]):
                found = at({**ranks, name: rank + 1})
                if (key := params_key(found[2])) not in seen:
                    seen.add(key)
                    heapq.heappush(front, found)
