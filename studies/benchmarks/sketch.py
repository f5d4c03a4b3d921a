"""What the facts of a model cost before training: one build and one pass on the meta device.

    python studies/benchmarks/sketch.py [--repeats 20]

Milliseconds of processor time (median) of `sketch` (construction, parameters, FLOPs and fingerprint) beside
building and running the same network on the meta device without looking, and building it on the CPU; and of
what a sampler does for each candidate: a blueprint (construction on meta) and its `structure`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from optnas.facts import sketch, structure
from optnas.hub.nasbench201 import EDGES, network
from optnas.space.blocks import conv, head, mbconv
from optnas.space.explore import on_meta as blueprint
from optnas.trial import Draw, Trial, replay

NOBODY = Draw(lambda name, distribution: 0)


def cnn(trial: Trial, depth: int = 20) -> nn.Module:
    layers = []
    for width in [3] + [32] * (depth - 1):
        layers += [nn.Conv2d(width, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def mobile(trial: Trial, depth: int = 17) -> nn.Module:
    block = partial(mbconv, trial, width=32, kernel=3, expansion=6)
    return nn.Sequential(
        conv(trial, width=32, kernel=3), *(block() for _ in range(depth)), head(trial, n_classes=10)
    )


def cells(trial: Trial) -> nn.Module:
    ops = ("nor_conv_3x3", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "none", "nor_conv_3x3")
    return network(replay({f"edge.{i}-{j}": op for (i, j), op in zip(EDGES, ops, strict=True)}))


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    function()  # torch imports its meta kernels on first use
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


def pass_on_meta(build: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        build()(torch.empty(2, 3, 32, 32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    columns = ("meta pass", "CPU build", "blueprint", "structure")
    print(f"{'':<32}{'sketch':>10}" + "".join(f"{c:>12}" for c in columns), f"  (ms, median of {repeats})")
    for name, space in {
        "CNN, 20 conv-norm-ReLU": cnn,
        "MobileNet-like, 17 MBConv": mobile,
        "NAS-Bench-201, 15 cells": cells,
    }.items():
        build = partial(space, NOBODY)
        row = [
            milliseconds(partial(sketch, build, (2, 3, 32, 32)), repeats),
            milliseconds(partial(pass_on_meta, build), repeats),
            milliseconds(build, repeats),
            milliseconds(partial(blueprint, build), repeats),
            milliseconds(partial(structure, blueprint(build), (2, 3, 32, 32)), repeats),
        ]
        print(f"{name:<32}{row[0]:>10.1f}" + "".join(f"{number:>12.1f}" for number in row[1:]))


if __name__ == "__main__":
    main()
