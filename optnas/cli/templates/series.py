"""Search a convolutional network that classifies time series.

    optnas check NAME.py    # what would go wrong, and how long the search takes
    optnas run NAME.py      # search; the same command goes on where it stopped
    optnas best NAME.py --retrain 3

It runs as it stands, on series that it makes: noise with a slow wave in it, or a fast one. For series of your
own, change the three lines that are marked 1, 2 and 3.
"""

from functools import partial

import torch

from optnas import Classification, Objective, TensorData, Training
from optnas.hub import inception_time

random = torch.Generator().manual_seed(0)
kind = torch.arange(400) % 2
phase = 6.28 * torch.rand(400, 1, generator=random)
wave = torch.sin(torch.arange(128) * (0.15 + 0.05 * kind[:, None]) + phase)
noisy = wave + 1.5 * torch.randn(400, 128, generator=random)

x = noisy[:, None]  # 1: series (n, channels, length)
y = kind  # 2: their classes (n,), from 0 on
N_CLASSES = 2  # 3: how many classes there are
# For arrays in files of NumPy, (n, length) and (n,), put these lines here, and `import numpy` at the top:
# x = torch.from_numpy(numpy.load("series.npy")).float()[:, None]
# y = torch.from_numpy(numpy.load("classes.npy")).long()

# A fifth of the series is held out to compare networks on, a fifth for the test of the winner.
data = TensorData((x, y), val=0.2, test=0.2, batch_size=32)

# What can be built: the networks of InceptionTime (Ismail Fawaz et al., 2020), here kept small. A space is a
# function of a trial that returns a module; `optnas new module` shows one that is written by hand.
space = partial(
    inception_time.network,
    depth=(2, 3, 4),
    width=(4, 8),
    kernel=(10, 20, 40),
    bottleneck=(8, 16),
    classes=N_CLASSES,
)

# How a network is scored: by its smallest validation loss in eight epochs.
training = Training(
    Classification(n_classes=N_CLASSES, lr=3e-3), data, monitor="val_loss", mode="min", max_epochs=8
)
objective = Objective(space, training)
n_trials = 20
