"""Does a surrogate predict better when it sees how networks are put together?

    python studies/benchmarks/structure.py

Kendall's tau between the predictions and the values of networks that it did not learn from, with the
answers alone and with the structure beside them: the mean over ten draws of the networks that it learns
from, and its standard error. 1,000 cells of NAS-Bench-201 on CIFAR-10, where it learns from some of 1,500
others, and whose networks are looked at with one cell a stage (five differ in the same); and a space of
cells with five nodes that is in no paper, of which the script trains 80 on digits. Needs `pip install
optnas[bench]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial
from scipy.stats import kendalltau
from sklearn.datasets import load_digits
from torch import Tensor, nn

from optnas.hub import nasbench201
from optnas.space.explore import sample
from optnas.strategy.structures import Structures
from optnas.surrogate.model import Features, Params, Surrogate
from optnas.trial import Trial, replay, scope

Array = np.ndarray[Any, Any]
PUBLISHED, OWN = (39, 78, 156, 469), (20, 40)
"""Networks that a surrogate learns from, where the others are predicted."""

OPERATIONS: dict[str, Callable[[int], nn.Module | None]] = {
    "none": lambda width: None,
    "skip": lambda width: nn.Identity(),
    "pool": lambda width: nn.MaxPool2d(3, 1, 1),
    "conv 1": lambda width: nn.Sequential(
        nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    ),
    "dilated": lambda width: nn.Sequential(
        nn.Conv2d(width, width, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    ),
    "separable": lambda width: nn.Sequential(
        nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ),
}


class Cell(nn.Module):
    """Five nodes; each is the sum of the edges that enter it, and the output joins the last three."""

    def __init__(self, answers: dict[str, str], width: int) -> None:
        super().__init__()
        made = {edge: OPERATIONS[answer](width) for edge, answer in answers.items()}
        self.edges = nn.ModuleDict({edge: module for edge, module in made.items() if module is not None})
        self.join = nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for j in range(1, 5):
            entering = [self.edges[f"{i}-{j}"](nodes[i]) for i in range(j) if f"{i}-{j}" in self.edges]
            nodes.append(sum(entering) if entering else torch.zeros_like(x))
        return self.join(torch.cat(nodes[2:], 1))


def own_cells(trial: Trial) -> nn.Module:
    """A space that is in no paper: 6 ** 10 cells, two in a network for 8x8 digits."""
    edges = [f"{i}-{j}" for j in range(1, 5) for i in range(j)]
    answers = {edge: scope(trial, "edge").suggest_categorical(edge, list(OPERATIONS)) for edge in edges}
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), Cell(answers, 8), nn.MaxPool2d(2), Cell(answers, 8)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
    )


def trained(params: Mapping[str, Any], seed: int, epochs: int = 6) -> float:
    """Cross-entropy on 597 digits after so many epochs on 1,200."""
    x, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    x = x.float().reshape(-1, 1, 8, 8) / 16
    torch.manual_seed(seed)
    model = own_cells(replay(params))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(epochs):
        for batch in torch.randperm(1200).split(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(x[1200:]), y[1200:]))


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = nasbench201.table("cifar10")
    published = Structures(partial(nasbench201.network, cells=1), (2, 3, 32, 32))
    asked = [f"edge.{i}-{j}" for i, j in nasbench201.EDGES]
    own = [sample(own_cells, seed) for seed in range(80)]
    losses = [trained(params, seed) for seed, params in enumerate(own)]
    cells = [dict(zip(asked, key, strict=True)) for key in table.keys]
    order = np.random.default_rng(0).permutation(len(cells))
    predict("NAS-Bench-201", published, cells, -table.means, order[:1000], order[1000:2500], PUBLISHED)
    predict(
        "five nodes", Structures(own_cells, (2, 1, 8, 8)), own, np.array(losses), None, np.arange(80), OWN
    )


def predict(
    name: str,
    features: Features,
    params: Sequence[Params],
    losses: Array,
    held_out: Array | None,
    others: Array,
    counts: Sequence[int],
) -> None:
    """Print two rows; without `held_out`, everything that a surrogate does not learn from is."""
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
                rest = order[n:] if held_out is None else held_out
                means, _ = Surrogate(features=seen).fit(trials).predict([params[i] for i in rest])
                found[seed, j] = kendalltau(means, losses[rest]).statistic
        errors = found.std(axis=0, ddof=1) / len(found) ** 0.5
        print(
            f"| {row} | "
            + " | ".join(f"{m:.3f} ± {e:.3f}" for m, e in zip(found.mean(axis=0), errors, strict=True))
            + " |"
        )


if __name__ == "__main__":
    main()
