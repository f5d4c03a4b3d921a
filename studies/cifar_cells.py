"""Search a cell for small color images: CIFAR-10, or patterns made here.

    optnas run studies/cifar_cells.py

With the subset of CIFAR-10 in `../shared/data` beside the repository that is the data: 4,000 of its images to
train on, 1,000 to validate; otherwise ten kinds of colored stripes stand in. Images are halved to 16 x 16
pixels, moved, mirrored and mixed with one another (mixup). The space is that of NAS-Bench-201, eight channels
wide and with one cell a stage; the baseline is its residual block.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas import Classification, Objective, TensorData, Training, Trial
from optnas.data import in_turn, random_flip, random_mixup, random_shift
from optnas.hub import nasbench201
from optnas.trial import replay

FILE = Path(__file__).parents[2] / "shared" / "data" / "cifar10_10k_2k.npz"
N_TRAIN, N_VAL, N_TEST = 4000, 1000, 2000


def stripes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images `(n, 3, 32, 32)` in 0..1 with noise, and by direction and color which of ten kinds each is."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 10
    angle = (labels % 5) * torch.pi / 5 + 0.2 * torch.randn(n, generator=rng)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    along = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
    phase = 6 * torch.rand(n, 1, 1, generator=rng)
    color = torch.tensor([[1.0, 0.6, 0.4], [0.4, 0.6, 1.0]])[labels // 5] * torch.rand(n, 3, generator=rng)
    waves = (along * 0.8 + phase).sin()[:, None] * color[:, :, None, None]
    return (0.5 + 0.3 * waves + 0.15 * torch.randn(n, 3, 32, 32, generator=rng)).clamp(0, 1), labels


def halved(x: Tensor) -> Tensor:
    """16 x 16 pixels with mean 0 and deviation 1, about."""
    return (functional.avg_pool2d(x, 2) - 0.47) / 0.25


def data() -> TensorData:
    if not FILE.exists():
        train, test = stripes(1000, 0), stripes(500, 1)
        parts = (train[0][:800], train[1][:800]), (train[0][800:], train[1][800:]), test
    else:
        with np.load(FILE) as file:
            images, labels = (
                [torch.tensor(file[f"{name}_{part}"]) for part in ("train", "test")] for name in ("x", "y")
            )
        (x, held_out), (y, known) = (
            [part.permute(0, 3, 1, 2) / 255 for part in images],
            map(Tensor.long, labels),
        )
        end = N_TRAIN + N_VAL
        parts = (
            (x[:N_TRAIN], y[:N_TRAIN]),
            (x[N_TRAIN:end], y[N_TRAIN:end]),
            (held_out[:N_TEST], known[:N_TEST]),
        )
    train, val, test = ((halved(x), y) for x, y in parts)
    augment = in_turn(random_flip, random_shift)
    mix = partial(random_mixup, n_classes=10)
    return TensorData(train, val=val, test=test, batch_size=64, augment=augment, mix=mix)


space = partial(nasbench201.network, channels=8, cells=1)


def baseline(trial: Trial) -> nn.Module:
    """Two convolutions and a shortcut, the residual block as a cell."""
    cell = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
    return space(replay(nasbench201.params_of(cell)))


task = Classification(n_classes=10, lr=1e-2)
estimator = Training(task, data(), monitor="val_acc", mode="max", max_epochs=8)
objective = Objective(space, estimator)

study_name = "cifar_cells"
storage = "sqlite:///cifar.db"
n_trials = 25
n_retrain = 5
