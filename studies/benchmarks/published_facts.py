"""Build all networks of NAS-Bench-201 and NAS-Bench-Macro: are parameters and FLOPs the published ones?

    python studies/benchmarks/published_facts.py path/to/nasbench201_cifar10.npz path/to/nasbench_macro.npz

Prints three lines, in about ten minutes. The 6,561 networks of NAS-Bench-Macro are built whole. A network of
NAS-Bench-201 stacks its cell five times in each of three stages, and nearly all the time would go into that.
So every cell is built once for each stage, and what the three add to a network without cells is counted five
times. That this is what the fifteen add is seen on `--whole` random cells, whose networks are built as
published.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from optnas.benchmarks.tabular import Table
from optnas.facts import sketch
from optnas.hub import nasbench201, nasbench_macro
from optnas.trial import replay

CELLS = 5  # in each stage, as published
STAGES = ((1, 16, 32, 32), (1, 32, 16, 16), (1, 64, 8, 8))  # what the cells of a stage read
IMAGE = (1, 3, 32, 32)


def facts(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> np.ndarray:
    """Parameters and FLOPs, as a search records them."""
    found = sketch(build, shape)
    return np.array([found.n_params, found.flops])


def network(ops: Sequence[str], cells: int = CELLS) -> nn.Module:
    params = {f"edge.{i}-{j}": op for (i, j), op in zip(nasbench201.EDGES, ops, strict=True)}
    return nasbench201.network(replay(params), cells=cells)


def of_macro(blocks: Sequence[str]) -> nn.Module:
    return nasbench_macro.network(replay({f"layer.{i}.block": block for i, block in enumerate(blocks)}))


def published_of(table: Table) -> np.ndarray:
    return np.stack([table.facts["n_params"], table.facts["flops"]], axis=1)


def all_cells(ops: Sequence[str]) -> np.ndarray:
    """What the fifteen cells of a network add."""
    return CELLS * sum(facts(lambda n=shape[1]: nasbench201.Cell.of(ops, n), shape) for shape in STAGES)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare built networks with the published facts.")
    parser.add_argument(
        "table", help="nasbench201_cifar10.npz; its fields: optnas.hub.nasbench201.table_from"
    )
    parser.add_argument("macro", help="nasbench_macro.npz; its fields: optnas.hub.nasbench_macro.table_from")
    parser.add_argument("--whole", type=int, default=500, help="how many networks are built whole")
    arguments = parser.parse_args()
    macro = nasbench_macro.table_from(arguments.macro)
    built = np.array([facts(lambda blocks=blocks: of_macro(blocks), IMAGE) for blocks in macro.keys])
    say("networks of NAS-Bench-Macro", built == published_of(macro))
    table = nasbench201.table_from(arguments.table)
    published = published_of(table)
    without = facts(lambda: network(table.keys[0], cells=0), IMAGE)
    say("cells of NAS-Bench-201", np.array([without + all_cells(ops) for ops in table.keys]) == published)
    some = np.random.default_rng(0).choice(len(table.keys), arguments.whole, replace=False)
    whole = np.array([facts(lambda row=row: network(table.keys[row]), IMAGE) for row in some])
    say("of these, whole networks", whole == published[some])


def say(what: str, equal: np.ndarray) -> None:
    n_params, flops = equal.sum(axis=0)
    print(f"of {len(equal)} {what}, equal to the published: parameters {n_params}, FLOPs {flops}", flush=True)


if __name__ == "__main__":
    main()
