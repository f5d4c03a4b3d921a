"""NAS-Bench-Macro: eight layers, each skipped or an inverted bottleneck (Su et al., CVPR 2021).

`blocks` asks the eight decisions and nothing else; `network` builds the network of the paper around them.

Examples:
    >>> from optnas.hub import nasbench_macro
    >>> len(optnas.sample(nasbench_macro.blocks, 0))
    8
"""

from __future__ import annotations

from os import PathLike

import numpy as np
import torch
from torch import Tensor, nn

from optnas.benchmarks.tabular import Table
from optnas.trial import Trial, scope

LAYERS = 8
BLOCKS = ("identity", "mb3_k3", "mb6_k5")
FIRST_OF_GROUP = (0, 2, 5)


def blocks(trial: Trial) -> tuple[str, ...]:
    """The block of each layer, one of 6,561 networks. `mb6_k5`: expansion 6, kernel 5."""
    return tuple(scope(trial, "layer", i).suggest_categorical("block", BLOCKS) for i in range(LAYERS))


def network(trial: Trial, channels: int = 32, classes: int = 10) -> nn.Module:
    """The classifier of the paper: a stem, eight layers in three groups, of which each halves the map first.

    Reads `(n, 3, height, width)`, gives logits `(n, classes)`. The first layer of a group doubles the width,
    so its identity is a 1x1 convolution.
    """
    layers: list[nn.Module] = _conv_norm(3, channels, 3, relu=True)
    width = channels
    for i, block in enumerate(blocks(trial)):
        stride = 2 if i in FIRST_OF_GROUP else 1
        out = stride * width
        layers.append(_block(block, width, out, stride))
        width = out
    return nn.Sequential(
        *layers,
        *_conv_norm(width, 1280, 1, relu=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1280, classes),
    )


def _block(block: str, width: int, out: int, stride: int) -> nn.Module:
    if block == "identity":
        return nn.Identity() if stride == 1 else nn.Sequential(*_conv_norm(width, out, 1, stride))
    expansion, kernel = {"mb3_k3": (3, 3), "mb6_k5": (6, 5)}[block]
    wide = expansion * width
    body = nn.Sequential(
        *_conv_norm(width, wide, 1, relu=True),
        *_conv_norm(wide, wide, kernel, stride, groups=wide, relu=True),
        *_conv_norm(wide, out, 1),
    )
    return Residual(body) if stride == 1 else body


def _conv_norm(
    width: int, out: int, kernel: int, stride: int = 1, *, groups: int = 1, relu: bool = False
) -> list[nn.Module]:
    conv = nn.Conv2d(width, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out), *([nn.ReLU(inplace=True)] if relu else [])]


class Residual(nn.Module):
    """Its body's output plus its input."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.body(x), x)


def table_from(path: str | PathLike[str]) -> Table:
    """NAS-Bench-Macro on CIFAR-10 from an `.npz` file: test accuracy in % of three trainings.

    The source has no validation accuracy, so the searched metric is called what it is, `test_acc`.

    Fields: `arch` (6561, 8) indices into the three blocks, `test_acc` (6561, 3), `params`, `flops` in
    multiply-adds.
    """
    with np.load(path, allow_pickle=False) as file:
        return Table(
            name="nasbench-macro",
            space=blocks,
            keys=[tuple(BLOCKS[block] for block in arch) for arch in file["arch"]],
            metric="test_acc",
            direction="maximize",
            values=file["test_acc"].astype(float),
            facts={"n_params": file["params"], "flops": 2 * file["flops"]},
        )
