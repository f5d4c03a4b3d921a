"""Does a surrogate predict better when it sees how networks are put together?

    python studies/benchmarks/structure.py
    python studies/benchmarks/structure.py --tables cifar10

Kendall's tau between the predictions and the values of 1,000 networks, with the answers alone and with the
structure beside them: the mean over ten draws of the networks that the surrogate learns from, and its
standard error. The networks of NAS-Bench-201 are looked at with one cell a stage (five differ in the same).
NAS-Bench-Graph, on which nothing was tuned, has other layers and another macro structure: graph networks,
written here for it. Needs `pip install optnas[bench] nas-bench-graph`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial
from scipy.stats import kendalltau
from torch import Tensor, nn

from optnas.hub import nasbench201
from optnas.strategy.structures import Structures
from optnas.surrogate.encoder import Features, Params
from optnas.surrogate.model import Surrogate
from optnas.trial import Trial

Array = np.ndarray[Any, Any]
TABLES = ("cifar10", "cora", "physics")
COUNTS = (39, 78, 156, 469)
"""Networks that a surrogate learns from, where others are predicted."""

KINDS = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")
LINKS = ("0000", "0001", "0011", "0012", "0013", "0111", "0112", "0122", "0123")
"""For each of four computing nodes, the node that it reads; 0 is the input."""


class GraphLayer(nn.Module):
    """One way to pass messages along the edges of a graph: `mixes(features, neighbors)` of linear layers."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        n_layers = {
            "gat": 2,
            "gcn": 1,
            "gin": 2,
            "cheb": 3,
            "sage": 2,
            "arma": 2,
            "graph": 2,
            "fc": 1,
            "skip": 0,
        }
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers[kind]))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        match self.kind:
            case "skip":
                return x
            case "fc":
                return self.layers[0](x)
            case "gat":
                scores = self.layers[0](x) @ x.T + adjacency
                return scores.softmax(-1) @ self.layers[1](x)
            case "gcn":
                return adjacency @ self.layers[0](x)
            case "gin":
                return self.layers[1](torch.relu(self.layers[0](x + adjacency @ x)))
            case "cheb":
                near = adjacency @ x
                return self.layers[0](x) + self.layers[1](near) + self.layers[2](2 * adjacency @ near - x)
            case "arma":
                return torch.relu(adjacency @ self.layers[0](x) + self.layers[1](x))
            case _:
                return self.layers[0](x) + self.layers[1](adjacency @ x)


class GraphNetwork(nn.Module):
    """What nodes that nobody reads have computed is joined, and classified."""

    def __init__(self, link: str, kinds: Sequence[str], width: int = 16) -> None:
        super().__init__()
        self.link = [int(node) for node in link]
        self.before = nn.Linear(8, width)
        self.layers = nn.ModuleList(GraphLayer(kind, width) for kind in kinds)
        self.ends = [node for node in range(1, 5) if node not in self.link]
        self.after = nn.Linear(width * len(self.ends), 7)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        nodes = [torch.relu(self.before(x))]
        for read, layer in zip(self.link, self.layers, strict=True):
            nodes.append(torch.relu(layer(nodes[read], adjacency)))
        return self.after(torch.cat([nodes[end] for end in self.ends], -1))


def graph_networks(trial: Trial) -> nn.Module:
    """NAS-Bench-Graph (Qin et al., NeurIPS 2022): four graph layers, and how they are linked."""
    link = trial.suggest_categorical("link", LINKS)
    kinds = [trial.suggest_categorical(f"layer.{i}", KINDS) for i in range(4)]
    return GraphNetwork(link, kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in parser.parse_args().tables:
        cells() if name == "cifar10" else graphs(name)


def cells() -> None:
    table = nasbench201.table("cifar10")
    asked = [f"edge.{i}-{j}" for i, j in nasbench201.EDGES]
    predict(
        "NAS-Bench-201, CIFAR-10",
        Structures(partial(nasbench201.network, cells=1), (2, 3, 32, 32)),
        [dict(zip(asked, key, strict=True)) for key in table.keys],
        -table.means,
    )


def graphs(dataset: str) -> None:
    from nas_bench_graph import Arch, light_read  # only what runs it needs it

    known = light_read(dataset)
    params, losses = [], []
    for link, *kinds in itertools.product(LINKS, *[KINDS] * 4):
        architecture = Arch([int(node) for node in link], kinds)
        found = known.get(architecture.valid_hash())
        if found is not None and architecture.check_isomorph():  # one of those that are isomorphic
            params.append({"link": link} | {f"layer.{i}": kind for i, kind in enumerate(kinds)})
            losses.append(-found["valid_perf"])
    seen = Structures(graph_networks, (torch.zeros(10, 8), torch.zeros(10, 10)))
    predict(f"NAS-Bench-Graph, {dataset}", seen, params, np.array(losses))


def predict(
    name: str,
    features: Features,
    params: Sequence[Params],
    losses: Array,
    counts: Sequence[int] = COUNTS,
) -> None:
    """Print two rows: of 1,000 networks, by what a surrogate learns from some of 1,500 others."""
    held_out, others = np.split(np.random.default_rng(0).permutation(len(params))[:2500], [1000])
    distributions = {
        name: CategoricalDistribution(sorted({answers[name] for answers in params})) for name in params[0]
    }
    print(
        f"\n| {name} | " + " | ".join(f"{n} trained" for n in counts) + " |\n|" + "---|" * (1 + len(counts))
    )
    for row, seen in {"answers": None, "answers and structure": features}.items():
        found = np.zeros((10, len(counts)))
        for seed in range(10):
            order = np.random.default_rng(seed).permutation(others)
            for j, n in enumerate(counts):
                trials = [
                    create_trial(params=params[i], distributions=distributions, value=losses[i])
                    for i in order[:n]
                ]
                means, _ = Surrogate(features=seen).fit(trials).predict([params[i] for i in held_out])
                found[seed, j] = kendalltau(means, losses[held_out]).statistic
        errors = found.std(axis=0, ddof=1) / len(found) ** 0.5
        print(
            f"| {row} | "
            + " | ".join(f"{m:.3f} ± {e:.3f}" for m, e in zip(found.mean(axis=0), errors, strict=True))
            + " |"
        )


if __name__ == "__main__":
    main()
