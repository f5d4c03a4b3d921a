"""Search a convolutional network that classifies images.

    optnas check NAME.py    # what would go wrong, and how long the search takes
    optnas run NAME.py      # search; the same command goes on where it stopped
    optnas best NAME.py --retrain 3

It runs as it stands, on the handwritten digits that scikit-learn brings along. For images of your own, change
the three lines that are marked 1, 2 and 3.
"""

from collections.abc import Callable
from functools import partial

import torch
from sklearn.datasets import load_digits
from torch import nn

from optnas import Classification, Objective, TensorData, Training, Trial, scope
from optnas.space.blocks import conv, head, mbconv, residual, separable_conv

digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # 1: images (n, channels, height, width)
y = torch.tensor(digits.target)  # 2: their classes (n,), from 0 on
N_CLASSES = 10  # 3: how many classes there are

# A fifth of the images is held out to compare networks on, a fifth for the test of the winner.
data = TensorData((x, y), val=0.2, test=0.2, batch_size=64)
# For image files in a folder for each class, such as flowers/rose/1.jpg, put these lines here:
# from optnas.data import ImageFolder
# data = ImageFolder("flowers", size=64)
# N_CLASSES = len(data.classes)

OPERATIONS: dict[str, Callable[..., nn.Module]] = {
    "conv": conv,
    "separable": separable_conv,
    "mbconv": mbconv,
}


def space(trial: Trial) -> nn.Module:
    """What can be built: a stem, one to three blocks of which each may be another kind, and a classifier."""
    layers: list[nn.Module] = [conv(scope(trial, "stem"), width=(8, 16, 32), kernel=3)]
    for i in range(trial.suggest_int("depth", 1, 3)):
        block = scope(trial, "block", i)  # names become block.0.kind, block.0.width, ...
        operation = OPERATIONS[block.suggest_categorical("kind", list(OPERATIONS))]
        stride = block.suggest_int("stride", 1, 2)
        layers.append(residual(block, partial(operation, width=(8, 16, 32), stride=stride)))
    layers.append(head(scope(trial, "head"), n_classes=N_CLASSES, dropout=(0.0, 0.2)))
    return nn.Sequential(*layers)


# How a network is scored: by its smallest validation loss in ten epochs.
training = Training(
    Classification(n_classes=N_CLASSES, lr=3e-3), data, monitor="val_loss", mode="min", max_epochs=10
)
objective = Objective(space, training)
n_trials = 20
