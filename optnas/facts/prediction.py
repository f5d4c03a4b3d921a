"""A measured number of a network (its latency, its energy), predicted from its operations.

The model is chosen by cross-validation among linear ones that look at FLOPs, at counts of operators, at those
that the output depends on with the depth, and at the work of each operator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optnas.facts.layers import Operation

Floats = NDArray[np.float64]

MIN_NETWORKS = 10
RANK, ERROR = 0.8, 0.2  # what is trusted: Spearman's correlation and the median error on held-out networks
_PENALTIES = (0.03, 0.3, 3.0, 30.0)
_NEGLIGIBLE = 0.1  # of what a network writes, operators that were never measured may write


@dataclass(frozen=True)
class OperationModel:
    """Predicts a number of a network from its operations; see `fit_model`.

    `by` is what it looks at; `held_out` what it predicts of each network from the others.
    """

    by: str
    measured: Floats
    held_out: Floats
    _kinds: tuple[str, ...]
    _weights: Floats

    @property
    def error(self) -> float:
        """The median of |prediction - measured| / measured, of networks that were held out."""
        return float(np.median(np.abs(self.held_out - self.measured) / self.measured))

    @property
    def trusted(self) -> bool:
        """Whether held-out networks were ranked and predicted well enough for a limit."""
        from scipy.stats import spearmanr  # only here: it takes a second to import

        if not np.ptp(self.held_out) or not np.ptp(self.measured):
            return False
        return bool(spearmanr(self.held_out, self.measured).statistic >= RANK) and self.error <= ERROR

    def predict(self, found: Sequence[Operation]) -> float:
        """The number of one network, from its operations.

        Raises:
            ValueError: it has operators that none of the measured networks had, and they do more than a tenth
                of its work.
        """
        new = [operation for operation in found if operation.kind not in self._kinds]
        written = sum(operation.elements for operation in new)
        if any(o.layer for o in new) or written > _NEGLIGIBLE * sum(o.elements for o in found):
            kinds = ", ".join(sorted({operation.kind for operation in new}))
            raise ValueError(f"No network that was measured has {kinds}; measure more networks.")
        features = _FEATURES[self.by](_Table([found], self._kinds))
        return max(float(self.measured.min()) / 10, float((_with_one(features) @ self._weights)[0]))


def fit_model(found: Sequence[Sequence[Operation]], measured: Sequence[float]) -> OperationModel:
    """A model of networks whose numbers are known, from the operations of each.

    Raises:
        ValueError: fewer than 10 networks, not a number for each, or one that is not above 0.
    """
    y = np.asarray(measured, dtype=float)
    if len(found) != len(y) or len(y) < MIN_NETWORKS or not (np.isfinite(y).all() and (y > 0).all()):
        raise ValueError(
            f"A prediction needs at least {MIN_NETWORKS} networks with a number above 0 each; got "
            f"{len(found)} networks and the numbers {y}."
        )
    kinds = tuple(sorted({operation.kind for network in found for operation in network}))
    table = _Table(found, kinds)
    best: tuple[float, str, float, Floats] | None = None
    for by, features in _FEATURES.items():
        x = features(table)
        for penalty in _PENALTIES:
            held_out = _left_out(x, y, penalty)
            loss = float(np.mean((held_out - y) ** 2))
            if best is None or loss < best[0]:
                best = loss, by, penalty, held_out
    assert best is not None
    _, by, penalty, held_out = best
    return OperationModel(by, y, held_out, kinds, _ridge(_FEATURES[by](table), y, penalty))


# ---- what a model looks at ----


class _Table:
    """Sums over the operations of each network, a column for each kind of operator."""

    def __init__(self, networks: Sequence[Sequence[Operation]], kinds: Sequence[str]) -> None:
        self.flops = np.array([[float(sum(o.flops for o in network))] for network in networks])
        self.depth = np.array([[float(max((o.depth for o in n), default=0))] for n in networks])
        alive = [[o for o in network if o.live] for network in networks]
        self.counts, self.work = self._by_kind(networks, kinds)
        self.live_counts, self.live_work = self._by_kind(alive, kinds)

    @staticmethod
    def _by_kind(networks: Sequence[Sequence[Operation]], kinds: Sequence[str]) -> tuple[Floats, Floats]:
        counts, work = np.zeros((len(networks), len(kinds))), np.zeros((len(networks), len(kinds)))
        for row, network in enumerate(networks):
            n = Counter(operation.kind for operation in network)
            for column, kind in enumerate(kinds):
                counts[row, column] = n[kind]
                work[row, column] = sum(o.flops or o.elements for o in network if o.kind == kind)
        return counts, work


_FEATURES: dict[str, Callable[[_Table], Floats]] = {
    "FLOPs": lambda t: t.flops,
    "operators": lambda t: t.counts,
    "live operators and depth": lambda t: np.hstack([t.live_counts, t.depth]),
    "work by operator": lambda t: np.hstack([t.counts, t.work]),
    "work by live operator and depth": lambda t: np.hstack([t.live_counts, t.live_work, t.depth]),
    "all operators, live operators, depth and FLOPs": lambda t: np.hstack(
        [t.counts, t.live_counts, t.depth, t.flops]
    ),
}


# ---- ridge regression ----


def _with_one(x: Floats) -> Floats:
    return np.hstack([np.ones((len(x), 1)), x])


def _scaled(x: Floats) -> tuple[Floats, Floats, Floats]:
    mean, deviation = x.mean(0), x.std(0)
    scale = np.where(deviation > 0, deviation, np.inf)  # what never changes explains nothing
    return (x - mean) / scale, mean, scale


def _hat(z: Floats, penalty: float) -> tuple[Floats, Floats]:
    """The matrix from numbers to weights, and that of the penalized normal equations; the mean is free."""
    a = _with_one(z)
    shrink = penalty * np.eye(a.shape[1])
    shrink[0, 0] = 0
    return a, np.asarray(np.linalg.solve(a.T @ a + shrink, a.T), dtype=np.float64)


def _left_out(x: Floats, y: Floats, penalty: float) -> Floats:
    """The prediction of each network from the others, in closed form."""
    a, to_weights = _hat(_scaled(x)[0], penalty)
    hat = a @ to_weights
    left_out: Floats = y - (y - hat @ y) / np.maximum(1 - np.diag(hat), 1e-9)
    return left_out


def _ridge(x: Floats, y: Floats, penalty: float) -> Floats:
    """Weights for `_with_one(x)`."""
    z, mean, scale = _scaled(x)
    weights = _hat(z, penalty)[1] @ y
    slopes = weights[1:] / scale
    return np.concatenate([[weights[0] - mean @ slopes], slopes])
