"""Search an InceptionTime network for engine noise: FordA of the UCR archive, or a synthetic stand-in.

    optnas run studies/fordA_series.py

Is something wrong with the engine? Each series has 500 values. With FordA in
`../shared/data/ucr_timeseries.npz` beside the repository that is the data; otherwise two kinds of
autoregressive noise, which differ in a weak resonance, stand in. The space is that of InceptionTime, narrow
enough for a laptop; the baseline is the published network at the same width.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from optnas import Classification, Objective, TensorData, Training, Trial
from optnas.hub import inception_time

FILE = Path(__file__).parents[2] / "shared" / "data" / "ucr_timeseries.npz"
N_TRAIN, LENGTH = 600, 500


def engines(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise `(n, 1, LENGTH)` that remembers its last two values, and whether it has a second resonance."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    series = np.zeros((n, LENGTH))
    noise = rng.standard_normal((n, LENGTH))
    frequency = np.where(labels, 0.7, 0.6)[:, None] + 0.03 * rng.standard_normal((n, 1))
    for t in range(2, LENGTH):
        pull = 2 * 0.95 * np.cos(frequency[:, 0]) * series[:, t - 1] - 0.95**2 * series[:, t - 2]
        series[:, t] = pull + noise[:, t]
    series = (series - series.mean(1, keepdims=True)) / series.std(1, keepdims=True)
    return torch.tensor(series[:, None], dtype=torch.float32), torch.tensor(labels)


def data() -> TensorData:
    """600 series to train on, a quarter of them for validation, and the archive's own test series."""
    if not FILE.exists():
        return TensorData(engines(N_TRAIN, 0), val=0.25, test=engines(200, 1), batch_size=32)
    with np.load(FILE) as file:
        parts = [(file[f"FordA__x_{part}"], file[f"FordA__y_{part}"]) for part in ("train", "test")]
    (x, y), test = [(torch.tensor(x), torch.tensor((y > 0).astype("int64"))) for x, y in parts]
    return TensorData((x[:N_TRAIN], y[:N_TRAIN]), val=0.25, test=test, batch_size=32)


space = partial(
    inception_time.network,
    depth=(2, 3, 4, 6),
    width=(4, 8, 16),
    kernel=(10, 20, 40, 80),
    bottleneck=(8, 16),
    classes=2,
)


def baseline(trial: Trial) -> nn.Module:
    """InceptionTime as published, eight channels a branch."""
    return inception_time.network(trial, depth=6, width=8, kernel=40, bottleneck=8, classes=2)


estimator = Training(
    Classification(n_classes=2, lr=3e-3), data(), monitor="val_loss", mode="min", max_epochs=12
)
objective = Objective(space, estimator)

study_name = "fordA_series"
storage = "sqlite:///fordA.db"
n_trials = 20
n_retrain = 5
