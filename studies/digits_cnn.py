"""Search a small conditional CNN for handwritten digits (scikit-learn's, 8 by 8 pixels, no download).

    make search        # or: optnas run studies/digits_cnn.py

The search sees the training and validation splits only; `optnas best` retrains the winner and reports its
accuracy on the test split, beside `baseline`, a CNN designed by hand and trained in the same way.
"""

from functools import partial

import optuna
from torch import nn

from optnas import Classification, Digits, Objective, Training, Trial, scope
from optnas.space.blocks import conv, head, mbconv, residual, separable_conv

OPS = {"conv": conv, "separable": separable_conv, "mbconv": mbconv}


def space(trial: Trial) -> nn.Module:
    layers: list[nn.Module] = [conv(scope(trial, "stem"), width=(8, 16, 32), kernel=3)]
    for i in range(trial.suggest_int("depth", 1, 3)):
        block = scope(trial, "block", i)
        op = OPS[block.suggest_categorical("op", list(OPS))]
        stride = block.suggest_int("stride", 1, 2)
        layers.append(residual(block, partial(op, width=(8, 16, 32), stride=stride)))
    layers.append(head(scope(trial, "head"), n_classes=10, hidden=(None, 32), dropout=(0.0, 0.2)))
    return nn.Sequential(*layers)


def baseline(trial: Trial) -> nn.Module:
    """Two stages of two 3x3 convolutions, 16 then 32 wide: a sound CNN of the textbook kind."""
    fixed = partial(conv, trial, kernel=3)
    return nn.Sequential(
        fixed(width=16),
        fixed(width=16),
        fixed(width=32, stride=2),
        fixed(width=32),
        head(trial, n_classes=10, hidden=32, dropout=0.2),
    )


estimator = Training(
    Classification(n_classes=10, lr=3e-3),
    Digits(batch_size=64),
    monitor="val_loss",  # 359 samples leave too many ties in accuracy
    mode="min",
    max_epochs=15,
)
objective = Objective(space, estimator)

study_name = "digits_cnn"
storage = "sqlite:///digits.db"
pruner = optuna.pruners.MedianPruner(n_startup_trials=8, n_warmup_steps=5)
n_trials = 20  # about three minutes; optnas resume --trials 50 finds more
n_retrain = 3
