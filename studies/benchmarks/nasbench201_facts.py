"""Build all 15,625 networks of NAS-Bench-201 and compare parameters and FLOPs with the published ones.

    python studies/benchmarks/nasbench201_facts.py path/to/nasbench201_cifar10.npz

Prints one line. Takes minutes: each network is built and run once on the meta device.
"""

import sys
from collections import Counter

import torch

from optnas.estimation.tables import nasbench201_npz
from optnas.facts import count_flops, count_params
from optnas.space import nasbench201
from optnas.trial import replay


def main(path: str) -> None:
    table = nasbench201_npz(path)
    equal: Counter[str] = Counter()
    for row, ops in enumerate(table.keys):
        params = {f"edge.{i}-{j}": op for (i, j), op in zip(nasbench201.EDGES, ops, strict=True)}
        with torch.device("meta"):
            network = nasbench201.network(replay(params))
        equal["parameters"] += count_params(network) == table.facts["n_params"][row]
        equal["FLOPs"] += count_flops(network, (1, 3, 32, 32)) == table.facts["flops"][row]
    print(
        f"of {len(table.keys)} networks, equal to the published: "
        + ", ".join(f"{k} {v}" for k, v in equal.items())
    )


if __name__ == "__main__":
    main(sys.argv[1])
