"""Build all 15,625 cells of NAS-Bench-201 and compare parameters and FLOPs with the published ones.

    python studies/benchmarks/nasbench201_facts.py path/to/nasbench201_cifar10.npz

Prints two lines, in about ten minutes. A published network stacks its cell five times in each of three
stages, which is where nearly all the time would go. So every cell is built once in each stage, and what these
three add to the network without cells is counted five times. That this is what all fifteen add is seen on
`--whole` random cells, whose networks are built as published.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from optnas.estimation.tables import nasbench201_npz
from optnas.facts import sketch
from optnas.space import nasbench201
from optnas.trial import replay

CELLS = 5  # in each stage, as published


def facts(ops: Sequence[str], cells: int) -> np.ndarray:
    """Parameters and FLOPs, as a search records them."""
    params = {f"edge.{i}-{j}": op for (i, j), op in zip(nasbench201.EDGES, ops, strict=True)}
    found = sketch(lambda: nasbench201.network(replay(params), cells=cells), (1, 3, 32, 32))
    return np.array([found.n_params, found.flops])


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare built networks with the published facts.")
    parser.add_argument("table", help="nasbench201_cifar10.npz; its fields: optnas.estimation.tables")
    parser.add_argument("--whole", type=int, default=500, help="how many are built with all fifteen cells")
    arguments = parser.parse_args()
    table = nasbench201_npz(arguments.table)
    published = np.stack([table.facts["n_params"], table.facts["flops"]], axis=1)
    skeleton = facts(table.keys[0], cells=0)
    one_each = np.array([facts(ops, cells=1) for ops in table.keys])
    _say("cells, one a stage", skeleton + CELLS * (one_each - skeleton) == published)
    some = np.random.default_rng(0).choice(len(table.keys), arguments.whole, replace=False)
    _say("whole networks", np.array([facts(table.keys[row], CELLS) for row in some]) == published[some])


def _say(what: str, equal: np.ndarray) -> None:
    n_params, flops = equal.sum(axis=0)
    print(f"of {len(equal)} {what}, equal to the published: parameters {n_params}, FLOPs {flops}", flush=True)


if __name__ == "__main__":
    main()
