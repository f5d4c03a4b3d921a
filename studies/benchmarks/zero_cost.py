"""What zero-cost scores are worth on NAS-Bench-201, and whether they are the published ones.

    python studies/benchmarks/zero_cost.py nasbench201_cifar10.npz nasbench201_zero_cost.npz images.npz

Scores random cells without dead operations on one thread, with `--batch` images of CIFAR-10, and prints a row
for each score: Spearman's correlation with the published scores of these cells, how both rank the test
accuracy after 200 epochs (Kendall's tau, the share of the best tenth found, tau inside the best tenth; 95 %
bootstrap intervals over cells), and processor seconds a cell. Below stand what costs nothing, and sums of
log ranks.

Fields of the files: `optnas.hub.nasbench201.table_from`; `c10_<score>` (15625,), NaN where not published;
`x_train` (n, 32, 32, 3) and `y_train`.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from optnas.analysis.trust import agreement
from optnas.facts import (
    DEPTH,
    FLOPS,
    N_LAYERS,
    N_PARAMS,
    fisher,
    grad_norm,
    grasp,
    jacob_cov,
    log_ranks,
    naswot,
    snip,
    synflow,
    zen,
    zero_cost,
    zico,
)
from optnas.hub import nasbench201
from optnas.trial import replay

SCORES = (synflow, jacob_cov, naswot, snip, grad_norm, grasp, fisher, zen, zico)
PUBLISHED = {"jacob_cov": "jacov", "naswot": "nwot"}
FLOORS = (N_PARAMS, FLOPS, N_LAYERS, DEPTH)
SUMS = (("jacob_cov", "n_params"), ("naswot", "n_params"), ("synflow", "jacob_cov", "n_params"))
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)


def images(path: str, n: int) -> tuple[Tensor, Tensor]:
    with np.load(path, allow_pickle=False) as file:
        rows = np.random.default_rng(0).choice(len(file["y_train"]), n, replace=False)
        x, y = torch.from_numpy(file["x_train"][rows]), torch.from_numpy(file["y_train"][rows]).long()
    x = (x / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    return x.permute(0, 3, 1, 2).contiguous(), y


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare zero-cost scores with published ones.")
    parser.add_argument("table")
    parser.add_argument("scores")
    parser.add_argument("images")
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = nasbench201.table_from(arguments.table)
    with np.load(arguments.scores, allow_pickle=False) as file:
        published = {s.__name__: file[f"c10_{PUBLISHED.get(s.__name__, s.__name__)}"] for s in SCORES[:-1]}
    alive = np.flatnonzero(np.isfinite(published["synflow"]))
    rows = np.random.default_rng(0).choice(alive, arguments.cells, replace=False)
    facts = [*(zero_cost(s, *images(arguments.images, arguments.batch)) for s in SCORES), *FLOORS]
    found = {fact.name: np.full(len(rows), np.nan) for fact in facts}
    seconds = dict.fromkeys(found, 0.0)
    for i, row in enumerate(rows):
        params = {f"edge.{a}-{b}": op for (a, b), op in zip(nasbench201.EDGES, table.keys[row], strict=True)}
        torch.manual_seed(int(row))
        network = nasbench201.network(replay(params))
        for fact in facts:
            start = time.process_time()
            found[fact.name][i] = fact.of(network, (2, 3, 32, 32))
            seconds[fact.name] += time.process_time() - start
    for names in SUMS:
        found[f"log ranks of {', '.join(names)}"] = log_ranks({name: found[name] for name in names})
    print("| score | with the published | Kendall | best tenth found | Kendall inside it | s a cell |")
    print("|---|---|---|---|---|---|")
    assert table.test is not None
    for name, numbers in found.items():
        of = agreement(name, numbers, table.test[rows])
        same = f"{stats.spearmanr(numbers, published[name][rows]).statistic:.3f}" if name in published else ""
        cost = f"{seconds[name] / len(rows):.3f}" if name in seconds else ""
        print(f"| {name} | {same} | {of.kendall} | {of.top} | {of.kendall_top} | {cost} |")


if __name__ == "__main__":
    main()
