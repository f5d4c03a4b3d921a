"""Does a surrogate see what matters in cells that no published table has? Five nodes, real trainings.

    python studies/benchmarks/own_cells.py --networks 120

The space is written here, and nothing in optnas was chosen on it: each of four nodes sums two operations,
each of which reads any node before; nodes that nobody reads are joined and projected. There are separable
convolutions of two sizes, a pool, a gate on channels and nothing at all; two cells with a pool between them.
Random networks are trained on the digits from two seeds; a network's value is the mean of its two validation
losses. Every training is a line of `--file`, and none is repeated that stands there.

Kendall's tau between predictions and values of the networks that the surrogate does not learn from: the mean
over ten draws of those that it learns from, ± its standard error; and the difference between the two
surrogates on equal draws. Beside them, the number of parameters, which needs no training, and how well one
training predicts another of the same networks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import create_trial
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from optnas.data import Digits
from optnas.space import sample
from optnas.strategy.structures import Structures
from optnas.surrogate.encoder import Features
from optnas.surrogate.model import Surrogate
from optnas.trial import Trial, replay, scope

OPS = ("separable 3", "separable 5", "max pool", "gate", "identity")
N_NODES = 5
WIDTH = 12
EPOCHS = 6
SEEDS = (0, 1)
COUNTS = (20, 39, 78)
KEPT = Path(__file__).parent / "results" / "own-cells.jsonl"

Array = np.ndarray[Any, Any]
Link = tuple[int, str]
"""The node that is read, and by what operation."""


def network(trial: Trial) -> nn.Module:
    links = []
    for node in range(1, N_NODES):
        for which in ("first", "second"):
            at = scope(trial, f"node.{node}", which)
            reads = at.suggest_categorical("reads", range(node)) if node > 1 else 0
            links.append((reads, at.suggest_categorical("op", OPS)))
    cells = [Cell(links), nn.MaxPool2d(2), Cell(links)]
    stem = [nn.Conv2d(1, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH)]
    return nn.Sequential(*stem, *cells, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10))


class Cell(nn.Module):
    """The first node is the input; two links lead to each of the others."""

    def __init__(self, links: Sequence[Link]) -> None:
        super().__init__()
        self.reads = [reads for reads, _ in links]
        self.operations = nn.ModuleList(_operation(name) for _, name in links)
        self.loose = [node for node in range(1, N_NODES) if node not in self.reads]
        self.project = nn.Conv2d(WIDTH * len(self.loose), WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        made = [x]
        pairs = list(zip(self.reads, self.operations, strict=True))
        for node in range(N_NODES - 1):
            (a, first), (b, second) = pairs[2 * node : 2 * node + 2]
            made.append(first(made[a]) + second(made[b]))
        return self.project(torch.cat([made[node] for node in self.loose], 1))


class Gate(nn.Module):
    """Scales each channel by what is in all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.weigh(x.mean((2, 3))))[:, :, None, None]


def _operation(name: str) -> nn.Module:
    match name:
        case "max pool":
            return nn.MaxPool2d(3, stride=1, padding=1)
        case "gate":
            return Gate()
        case "identity":
            return nn.Identity()
    kernel = int(name[-1])
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, kernel, padding=kernel // 2, groups=WIDTH, bias=False),
        nn.Conv2d(WIDTH, WIDTH, 1, bias=False),
        nn.BatchNorm2d(WIDTH),
    )


def train(params: dict[str, Any], seed: int, digits: Digits) -> float:
    """The validation loss after a training from this seed."""
    torch.manual_seed(seed)
    model = network(replay(params))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for x, y in digits.train_dataloader():
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
        decay.step()
    model.eval()
    with torch.no_grad():
        losses = [cross_entropy(model(x), y, reduction="none") for x, y in digits.val_dataloader()]
    return float(torch.cat(losses).mean())


def trained(n: int, path: Path) -> tuple[list[dict[str, Any]], Array]:
    """The answers of `n` networks, and their losses from each seed, `(n, seeds)`."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if len(rows) < n:
        digits = Digits(batch_size=64)
        digits.setup("fit")
        with path.open("a") as file:
            for i in range(len(rows), n):
                params = sample(network, np.random.default_rng(i))
                rows.append([params, [train(params, seed, digits) for seed in SEEDS]])
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
    return [params for params, _ in rows[:n]], np.array([losses for _, losses in rows[:n]])


def predicted(
    features: Features | None, params: Sequence[dict[str, Any]], losses: Array, n: int, seed: int
) -> float:
    """The tau of a surrogate that learns from `n` networks, on the last of a random order."""
    order = np.random.default_rng(seed).permutation(len(params))
    trials = []
    for i in order[:n]:
        asked = replay(params[i])
        network(asked)
        trials.append(
            create_trial(params=params[i], distributions=asked.distributions, value=float(losses[i]))
        )
    others = order[max(COUNTS) :]
    means, _ = Surrogate(features=features).fit(trials).predict([params[i] for i in others])
    return float(kendalltau(means, losses[others]).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", type=int, default=120)
    parser.add_argument("--file", type=Path, default=KEPT)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    params, each = trained(arguments.networks, arguments.file)
    losses = each.mean(axis=1)
    seen = Structures(network, (2, 1, 8, 8))
    print(f"| {len(params)} cells of five nodes | " + " | ".join(f"{n} trained" for n in COUNTS) + " |")
    print("|" + "---|" * (1 + len(COUNTS)))
    found = {
        name: np.array([[predicted(features, params, losses, n, seed) for n in COUNTS] for seed in range(10)])
        for name, features in {"answers": None, "answers and structure": seen}.items()
    }
    found["difference"] = found["answers and structure"] - found["answers"]
    for name, taus in found.items():
        errors = taus.std(axis=0, ddof=1) / len(taus) ** 0.5
        sign = "+" if name == "difference" else ""
        cells = [f"{m:{sign}.3f} ± {e:.3f}" for m, e in zip(taus.mean(axis=0), errors, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |")
    sizes = [sum(p.numel() for p in network(replay(answers)).parameters()) for answers in params]
    print(
        f"\nAll {len(params)}: parameters have {-kendalltau(sizes, losses).statistic:.3f}, one training and "
        f"another {kendalltau(*each.T).statistic:.3f}; losses from {losses.min():.3f} to {losses.max():.3f}."
    )


if __name__ == "__main__":
    main()
