"""Search a network that predicts one column of a table from the others.

    optnas check NAME.py    # what would go wrong, and how long the search takes
    optnas run NAME.py      # search; the same command goes on where it stopped
    optnas best NAME.py --retrain 3

It runs as it stands, on the wines that scikit-learn brings along. For a table of your own, change the three
lines that are marked 1, 2 and 3.
"""

from typing import Any

from sklearn.datasets import load_wine
from torch import nn

from optnas import Classification, Objective, Regression, Training, Trial
from optnas.data import TableData
from optnas.hub import tabular

wine = load_wine()
columns = dict(zip(wine.feature_names, wine.data.T, strict=True)) | {"vineyard": wine.target}

table = columns  # 1: a file such as "houses.csv" or "houses.parquet", a data frame, or a dict of columns
TARGET = "vineyard"  # 2: the column to predict
IGNORE: tuple[str, ...] = ()  # 3: columns that must not be used, such as an identifier

# A fifth of the rows is held out to compare networks on, a fifth for the test of the winner.
data = TableData(table, TARGET, ignore=IGNORE, val=0.2, test=0.2, batch_size=32)

# Text, true and false, and whole numbers with few values are classes; any other target is a number.
n_classes = len(data.classes)


def call(network: nn.Module, x: Any) -> Any:
    """How a batch is given to a network: numbers alone, or with categories beside them."""
    return network(x["numbers"], x["categories"]) if data.cardinalities else network(x)


task = Classification(n_classes, lr=3e-3, call=call) if n_classes else Regression(lr=3e-3, call=call)


def space(trial: Trial) -> nn.Module:
    """What can be built: the networks of Gorishniy et al. (2021), here kept small.

    Residual networks; or transformers, which take categories beside the numbers.
    """
    outputs = n_classes or 1
    if data.cardinalities:
        return tabular.ft_transformer(
            trial, categories=data.cardinalities, width=(32, 64, 128), depth=(1, 2, 3), outputs=outputs
        )
    return tabular.resnet(trial, width=(32, 64, 128), depth=(1, 2, 3), outputs=outputs)


# How a network is scored: by its smallest validation loss in twenty epochs.
training = Training(task, data, monitor="val_loss", mode="min", max_epochs=20)
objective = Objective(space, training)
n_trials = 20
