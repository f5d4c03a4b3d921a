"""The latency of every network of a space, from some thirty that were measured on the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from torch import nn

from optnas.analysis.shown import Shown
from optnas.analysis.trust import Agreement, agreement
from optnas.answers import keep_or_draw, params_key
from optnas.errors import SpaceError, UntrustworthyError, describe_error, is_infrastructure
from optnas.facts.fact import Fact
from optnas.facts.inputs import Example
from optnas.facts.layers import Operation, operations
from optnas.objective import Objective
from optnas.seeds import derive_seed, seeded
from optnas.space.explore import walk
from optnas.trial import Draw

Floats = NDArray[np.float64]

MIN_NETWORKS = 10
RANK, ERROR = 0.8, 0.2  # what is trusted: Spearman's correlation and the median error on held-out networks
_PENALTIES = (0.03, 0.3, 3.0, 30.0)
_NEGLIGIBLE = 0.1  # of what a network writes, operators that were never measured may write
_TRIES = 20  # draws for each network that is wanted


@dataclass(frozen=True)
class LatencyPredictor(Shown):
    """Predicts a measured number of a network (its latency, its energy) from its operations.

    `rank` and `error` (the median of |prediction - measured| / measured) are of networks that were held out
    one at a time; `by` is what the chosen model looks at.
    """

    by: str
    rank: Agreement
    error: float
    kind: Fact
    example: Example
    _kinds: tuple[str, ...]
    _weights: Floats
    _least: float

    @property
    def n(self) -> int:
        """How many networks it was fitted to."""
        return self.rank.n

    @property
    def trusted(self) -> bool:
        """Whether held-out networks were ranked and predicted well enough for a limit."""
        return self.rank.spearman.value >= RANK and self.error <= ERROR

    @property
    def words(self) -> str:
        """What it is worth, in a sentence."""
        figures = f"Spearman {self.rank.spearman}, median error {self.error:.1%}, {self.n} networks"
        if self.trusted:
            return f"It predicts held-out networks from {self.by}: {figures}."
        return (
            f"Warning: it predicts held-out networks poorly ({figures}): measure more networks, or measure "
            "every one."
        )

    def predict(self, model: nn.Module) -> float:
        """The number of one network, which may be on the meta device.

        Raises:
            ValueError: it has operators that none of the measured networks had, and they do more than a tenth
                of its work.
        """
        return self.predict_operations(operations(model, self.example))

    def predict_operations(self, found: Sequence[Operation]) -> float:
        """The same, from the network's operations."""
        new = [operation for operation in found if operation.kind not in self._kinds]
        written = sum(operation.elements for operation in new)
        if any(o.layer for o in new) or written > _NEGLIGIBLE * sum(o.elements for o in found):
            kinds = ", ".join(sorted({operation.kind for operation in new}))
            raise ValueError(f"No network that was measured has {kinds}; measure more networks.")
        features = _FEATURES[self.by](_Table([found], self._kinds))
        return max(self._least, float((_with_one(features) @ self._weights)[0]))

    def fact(self, name: str = "", *, trust_anyway: bool = False) -> Fact:
        """The prediction as a fact, for limits and objectives, known before a network is built for real.

        Args:
            name: by default `predicted_` and the name of what was measured.
            trust_anyway: give it although it predicts held-out networks poorly.

        Raises:
            UntrustworthyError: it predicts held-out networks poorly.
        """
        if not self.trusted and not trust_anyway:
            raise UntrustworthyError(f"{self.words} fact(trust_anyway=True) gives it all the same.")
        kind = self.kind
        return Fact(
            name or f"predicted_{kind.name}",
            lambda model, example: self.predict(model),
            f"predicted {kind.title or kind.name}",
            kind.unit,
            kind.better,
        )

    def _table(self) -> Group:
        table = Table(title=f"Prediction of {self.kind.title or self.kind.name}")
        for column in ("looks at", "networks", "Spearman", "Kendall", "median error"):
            table.add_column(column)
        rank = self.rank
        table.add_row(self.by, str(rank.n), str(rank.spearman), str(rank.kendall), f"{self.error:.1%}")
        return Group(table, self.words)


def learn_latency(
    objective: Objective, fact: Fact, *, n_networks: int = 30, example: Example | None = None, seed: int = 0
) -> LatencyPredictor:
    """Measure random networks of a space on a device, and predict the others from their operations.

    The model is chosen by cross-validation among linear ones that look at FLOPs, at counts of operators, at
    those that the output depends on with the depth, and at the work of each operator.

    Args:
        fact: what is measured: `optnas.devices.timing()`, a `command` on a device of yours.
        n_networks: how many are measured; some thirty are enough where networks are made of few operators.
        example: inputs of the batch whose latency the fact measures; by default the objective's.

    Example:
        >>> predictor = learn_latency(objective, command("ssh board ./bench {onnx}"))
        >>> print(predictor)
        >>> Objective(space, training, facts=[predictor.fact()])

    Raises:
        ValueError: fewer than 10 networks could be measured; the message has the last reason.
    """
    rng = np.random.default_rng(derive_seed(seed, "latency"))
    known: set[Any] = set()
    models: list[nn.Module] = []
    numbers: list[float] = []
    inputs, why = example, ""
    for _ in range(_TRIES * n_networks):
        if len(models) == n_networks:
            break
        asked = Draw(keep_or_draw({}, rng))
        if walk(objective.space, asked) is not None or params_key(asked.params) in known:
            continue
        known.add(params_key(asked.params))
        trial = Draw(keep_or_draw(asked.params, rng))
        try:
            given = objective.example_for(trial)
            with seeded(derive_seed(seed, len(known))):
                model = objective.build(trial)
            numbers.append(fact.of(model, given))
        except Exception as error:
            if is_infrastructure(error):
                raise
            why = str(error) if isinstance(error, SpaceError) else describe_error(error)
            continue
        inputs = given if inputs is None else inputs
        models.append(model.to("meta"))
    if len(models) < MIN_NETWORKS or inputs is None:
        reason = f"; the last one: {why}" if why else ""
        raise ValueError(
            f"{len(models)} networks could be measured, and at least {MIN_NETWORKS} are needed{reason}."
        )
    return fit_latency(models, numbers, inputs, kind=fact)


def fit_latency(
    models: Sequence[nn.Module],
    measured: Sequence[float],
    example: Example,
    *,
    kind: Fact | None = None,
) -> LatencyPredictor:
    """Fit a predictor to networks whose numbers are known; see `learn_latency`.

    Args:
        models: on any device; only their structure is read.
        measured: a number of each.
        kind: what the number is; by default a latency in milliseconds.

    Raises:
        ValueError: fewer than 10 networks, not a number for each, or one that is not above 0.
    """
    return fit_operations([operations(model, example) for model in models], measured, example, kind=kind)


def fit_operations(
    found: Sequence[Sequence[Operation]],
    measured: Sequence[float],
    example: Example,
    *,
    kind: Fact | None = None,
) -> LatencyPredictor:
    """The same, from the operations of each network."""
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
    return LatencyPredictor(
        by=by,
        rank=agreement("prediction", held_out, y),
        error=float(np.median(np.abs(held_out - y) / y)),
        kind=kind or Fact("latency", lambda model, example: 0.0, unit="ms", better="lower"),
        example=example,
        _kinds=kinds,
        _weights=_ridge(_FEATURES[by](table), y, penalty),
        _least=float(y.min()) / 10,
    )


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
