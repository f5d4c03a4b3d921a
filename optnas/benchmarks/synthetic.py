"""A synthetic conditional space with a known optimum: layers of five kinds, and how to train them.

Nothing is trained: `loss` is a formula with the interactions of a real search (depth decides which layers
exist, the kind of a layer which questions it has, the optimizer the right learning rate). It is made for
comparing strategies; that a strategy wins here says little about images.
"""

from __future__ import annotations

import math
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optnas.trial import Trial, scope

MAX_DEPTH = 6
OPS = ("conv", "separable", "dilated", "pool", "skip")
KERNELS = (3, 5, 7)
ACTIVATIONS = ("relu", "gelu", "tanh")

OPTIMUM: dict[str, Any] = {
    "depth": 4,
    "layer.0.op": "conv",
    "layer.0.conv.kernel": 7,
    "layer.0.conv.width": 32,
    "layer.1.op": "separable",
    "layer.1.separable.kernel": 3,
    "layer.1.separable.width": 64,
    "layer.2.op": "dilated",
    "layer.2.dilated.kernel": 5,
    "layer.2.dilated.width": 96,
    "layer.3.op": "separable",
    "layer.3.separable.kernel": 5,
    "layer.3.separable.width": 128,
    "activation": "gelu",
    "dropout": 0.2,
    "log2_batch_size": 6,
    "weight_decay": 1e-4,
    "optimizer": "sgd",
    "learning_rate": 10**-1.5,
    "momentum": 0.9,
}
"""The only point whose loss is 0."""


def _slots() -> dict[str, BaseDistribution]:
    slots: dict[str, BaseDistribution] = {"depth": IntDistribution(1, MAX_DEPTH)}
    for i in range(MAX_DEPTH):
        slots[f"layer.{i}.op"] = CategoricalDistribution(OPS)
        for op in OPS[:-1]:
            slots[f"layer.{i}.{op}.kernel"] = CategoricalDistribution(KERNELS)
            slots[f"layer.{i}.{op}.width"] = IntDistribution(8, 128, step=8)
    return slots | {
        "activation": CategoricalDistribution(ACTIVATIONS),
        "dropout": FloatDistribution(0.0, 0.6),
        "log2_batch_size": IntDistribution(4, 9),
        "weight_decay": FloatDistribution(1e-6, 1e-2, log=True),
        "optimizer": CategoricalDistribution(("adam", "sgd")),
        "learning_rate": FloatDistribution(1e-5, 1.0, log=True),
        "momentum": FloatDistribution(0.0, 0.99),
    }


SLOTS = _slots()
"""Every question that `loss` can ask: name to distribution."""


def loss(trial: Trial) -> float:
    """Ask 8 to 26 of 62 questions and say how far the answers are from the optimum, 0 or more."""
    depth = trial.suggest_int("depth", 1, MAX_DEPTH)
    target = int(OPTIMUM["depth"])
    total = 1.2 * max(0, target - depth) + 0.4 * max(0, depth - target)
    before = None
    for i in range(depth):
        op, cost = _layer(scope(trial, "layer", i), i)
        total += (cost if i < target else 0.3 * cost) + 0.2 * (op == before)
        before = op
    return total + _training(trial, depth)


def _layer(trial: Trial, i: int) -> tuple[str, float]:
    op = trial.suggest_categorical("op", OPS)
    best = str(OPTIMUM.get(f"layer.{i}.op", "skip"))
    kernel, width = 3, 8
    if op != "skip":
        kernel = scope(trial, op).suggest_categorical("kernel", KERNELS)
        width = scope(trial, op).suggest_int("width", 8, 128, step=8)
    # Half of what a layer costs is its kind; pool and skip are further from a convolution than its kin.
    cost = 0.0 if op == best else 0.4 + 0.3 * (op in ("pool", "skip"))
    cost += 0.1 * abs(kernel - int(OPTIMUM.get(f"layer.{i}.{best}.kernel", 3))) / 2
    cost += 0.15 * abs(math.log2(width / int(OPTIMUM.get(f"layer.{i}.{best}.width", 8))))
    return op, cost


def _training(trial: Trial, depth: int) -> float:
    cost = 0.3 * (trial.suggest_categorical("activation", ACTIVATIONS) != OPTIMUM["activation"])
    cost += 4 * (trial.suggest_float("dropout", 0.0, 0.6) - OPTIMUM["dropout"]) ** 2
    cost += 0.1 * abs(trial.suggest_int("log2_batch_size", 4, 9) - int(OPTIMUM["log2_batch_size"]))
    cost += 0.1 * math.log10(trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True) / 1e-4) ** 2
    optimizer = trial.suggest_categorical("optimizer", ["adam", "sgd"])
    learning_rate = math.log10(trial.suggest_float("learning_rate", 1e-5, 1.0, log=True))
    if optimizer == "sgd":
        cost += 2 * (trial.suggest_float("momentum", 0.0, 0.99) - OPTIMUM["momentum"]) ** 2
    best = (-1.5 if optimizer == "sgd" else -3.0) - 0.1 * (depth - int(OPTIMUM["depth"]))
    return float(cost + 0.2 * (optimizer == "adam") + 0.5 * (learning_rate - best) ** 2)
