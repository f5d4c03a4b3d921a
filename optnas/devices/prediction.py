"""The latency of every network of a space, from some thirty that were measured on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
from optnas.facts.prediction import MIN_NETWORKS, OperationModel, fit_model
from optnas.objective import Objective
from optnas.seeds import derive_seed, seeded
from optnas.space.explore import walk
from optnas.trial import Draw

_TRIES = 20  # draws for each network that is wanted


@dataclass(frozen=True)
class LatencyPredictor(Shown):
    """Predicts a measured number of a network (its latency, its energy) from its operations.

    `rank` says how well it ranks networks that were held out one at a time.

    Examples:
        >>> models = [
        ...     optnas.facts.materialize(space(replay(params)), example)
        ...     for params in list(optnas.enumerate_params(space))[:12]
        ... ]
        >>> milliseconds = [optnas.count_flops(network, example) / 1e6 for network in models]
        >>> predictor = optnas.devices.fit_latency(models, milliseconds, example)
        >>> predictor.predict(models[0]) > 0
        True
    """

    rank: Agreement
    kind: Fact
    example: Example
    model: OperationModel

    @property
    def by(self) -> str:
        """What the model looks at."""
        return self.model.by

    @property
    def error(self) -> float:
        """The median of |prediction - measured| / measured, of networks held out one at a time."""
        return self.model.error

    @property
    def n(self) -> int:
        """How many networks it was fitted to."""
        return self.rank.n

    @property
    def trusted(self) -> bool:
        """Whether held-out networks were ranked and predicted well enough for a limit."""
        return self.model.trusted

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
        return self.model.predict(found)

    def fact(self, name: str = "", *, trust_anyway: bool = False) -> Fact:
        """The prediction as a fact, for limits and objectives, known before a network is built for real.

        Args:
            name: by default `predicted_` and the name of what was measured.
            trust_anyway: give it although it predicts held-out networks poorly.

        Raises:
            UntrustworthyError: it predicts held-out networks poorly.
        """
        if not self.trusted and not trust_anyway:
            raise UntrustworthyError(f"{self.words} fact(trust_anyway=True) gives the fact nevertheless.")
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

    Cross-validation chooses among linear models of FLOPs, of the counts of operators, of those operators that
    the output depends on together with the depth, and of the work of each operator.

    Args:
        fact: what is measured: `optnas.devices.LATENCY`, or a `command` that runs on a device of yours.
        n_networks: number of networks to measure; about thirty are enough if networks consist of few kinds of
            operators.
        example: the batch whose latency the fact measures; by default the objective's.

    Raises:
        ValueError: fewer than 10 networks could be measured; the message has the last reason.

    Examples:
        >>> work = optnas.Fact("work", lambda model, example: optnas.count_flops(model, example) / 1e6)
        >>> predictor = optnas.devices.learn_latency(objective, work, n_networks=12)
        >>> measured = optnas.Objective(space, training, facts=[predictor.fact()])
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
        measured: the measured number of each network.
        kind: what the number is; by default a latency in milliseconds.

    Raises:
        ValueError: fewer than 10 networks, not a number for each, or one that is not above 0.

    Examples:
        >>> models = [
        ...     optnas.facts.materialize(space(replay(params)), example)
        ...     for params in list(optnas.enumerate_params(space))[:12]
        ... ]
        >>> milliseconds = [optnas.count_flops(network, example) / 1e6 for network in models]
        >>> predictor = optnas.devices.fit_latency(models, milliseconds, example)
        >>> predictor.fact().name
        'predicted_latency'
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
    model = fit_model(found, measured)
    return LatencyPredictor(
        rank=agreement("prediction", model.held_out, model.measured),
        kind=kind or Fact("latency", lambda model, example: 0.0, unit="ms", better="lower"),
        example=example,
        model=model,
    )
