"""NAS-Bench-201, the topology space of NATS-Bench (Dong & Yang, ICLR 2020, arXiv:2001.00326)."""

from __future__ import annotations

from optnas.trial import Trial, scope

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def cell(trial: Trial) -> tuple[str, ...]:
    """The operation of each of the six edges, in the order of `EDGES`: one of 15,625 cells."""
    return tuple(scope(trial, "edge").suggest_categorical(f"{i}-{j}", OPS) for i, j in EDGES)
