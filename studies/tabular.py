"""Search a network for a table: what a perceptron will score, from how it is made and trained.

    optnas run studies/tabular.py

The table is FC-Net of HPOLib (`pip install 'optnas[bench]'`): 62,208 perceptrons, each really trained four
times on protein structures. From nine numbers (activations, dropout, units, batch size, learning rate,
schedule) the logarithm of the validation loss is predicted, of networks that are not among the 2,000 known
ones. Without that package a function with ten inputs, of which five matter, stands in (Friedman, 1991). The
space holds the two networks of Gorishniy et al.; the baseline is the ResNet of their package's example.
"""

from functools import partial

import numpy as np
from torch import nn

from optnas import Choice, Objective, Regression, Training, Trial
from optnas.data import TableData
from optnas.hub import fcnet, tabular
from optnas.trial import replay

N_TRAIN, N_TEST = 2000, 2000


def columns() -> dict[str, np.ndarray]:
    """By name; `loss` is the target."""
    try:
        table = fcnet.table("protein_structure")
    except ModuleNotFoundError:
        from sklearn.datasets import make_friedman1

        x, y = make_friedman1(N_TRAIN + N_TEST, noise=0.5, random_state=0)
        return {**{f"x{i}": x[:, i] for i in range(x.shape[1])}, "loss": y}
    rows = np.random.default_rng(0).permutation(len(table.keys))[: N_TRAIN + N_TEST]
    keys = [table.keys[row] for row in rows]
    first, second, batch_size, *dropouts, rate, schedule, n_first, n_second = zip(*keys, strict=True)
    return {
        "tanh_1": np.array(first) == "tanh",
        "tanh_2": np.array(second) == "tanh",
        "batch_size": np.log2(batch_size),
        "dropout_1": np.array(dropouts[0]),
        "dropout_2": np.array(dropouts[1]),
        "learning_rate": np.log10(rate),
        "constant": np.array(schedule) == "const",
        "units_1": np.log2(n_first),
        "units_2": np.log2(n_second),
        "loss": np.log(np.nanmean(table.values[rows], 1)),
    }


space = Choice(
    "kind",
    {
        "resnet": partial(
            tabular.resnet,
            width=(32, 64, 128, 256),
            depth=(1, 2, 3, 4),
            expansion=(1.0, 2.0),
            dropout=(0.0, 0.1, 0.25),
        ),
        "transformer": partial(
            tabular.ft_transformer,
            width=(16, 32, 64),
            depth=(1, 2),
            expansion=(4 / 3, 2.0),
            heads=4,
            attention_dropout=(0.0, 0.2),
            dropout=(0.0, 0.1),
        ),
    },
)


def baseline(trial: Trial) -> nn.Module:
    """The ResNet of the example in the authors' package."""
    return tabular.resnet(replay(tabular.RESNET))


data = TableData(columns(), target="loss", val=0.125, test=N_TEST / (N_TRAIN + N_TEST), batch_size=64)
estimator = Training(Regression(lr=5e-3), data, monitor="val_loss", mode="min", max_epochs=20)
objective = Objective(space, estimator)

study_name = "tabular"
storage = "sqlite:///tabular.db"
n_trials = 30
n_retrain = 5
