"""Searches as scikit-learn has estimators: `fit` searches a network for a table, `predict` uses the best one.

    from optnas.sklearn import SearchClassifier

    search = SearchClassifier(n_trials=50, random_state=0).fit(x, y)
    search.score(x_test, y_test)
    search.best_model_  # a torch module, which takes the standardized columns

They go wherever scikit-learn takes an estimator (pipelines, `cross_val_score`), and take numbers: categories
are encoded before, by `OneHotEncoder` for example. For several objectives, limits and other data, take
`optnas.Objective` and `optnas.optimize`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from optnas.data.tensors import TensorData
from optnas.hub import tabular
from optnas.objective import Objective
from optnas.search.best import best
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.tasks.classification import Classification
from optnas.tasks.regression import Regression
from optnas.tasks.supervised import LearningRate
from optnas.tasks.task import Task
from optnas.training.training import Training

TableSpace = Callable[..., nn.Module]
"""A space with the number of outputs as an argument, `space(trial, outputs=3)`: those of `hub.tabular`."""

USUAL: TableSpace = partial(tabular.resnet, width=(32, 64, 128, 256), depth=(1, 2, 3, 4))


class _Search(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What both have in common; see `SearchClassifier`."""

    def __init__(
        self,
        space: TableSpace | None = None,
        *,
        n_trials: int = 20,
        timeout: float | None = None,
        max_epochs: int = 50,
        batch_size: int = 64,
        lr: LearningRate = (1e-3, 1e-2),
        validation_fraction: float = 0.2,
        study_name: str | None = None,
        storage: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.space = space
        self.n_trials = n_trials
        self.timeout = timeout
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.study_name = study_name
        self.storage = storage
        self.random_state = random_state
        self.verbose = verbose

    def _search(self, x: NDArray[Any], y: Tensor, outputs: int, task: Task, labels: Any) -> None:
        """Find the best network for standardized columns and targets; `labels` to stratify by, or None."""
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        rows = np.arange(len(x))
        if len(x) < 3:
            raise ValueError(f"n_samples={len(x)}: a search needs 3 at least, to train on and to validate.")
        size = min(max(1, math.ceil(self.validation_fraction * len(x))), len(x) - 2)
        train, val = train_test_split(
            rows, test_size=size, random_state=seed, stratify=_to_stratify(labels, size)
        )
        self.scaler_ = StandardScaler().fit(x[train])
        columns = torch.from_numpy(self.scaler_.transform(x).astype(np.float32))
        held_out = columns[val], y[val]
        data = TensorData(
            (columns[train], y[train]), held_out, held_out, batch_size=self.batch_size, seed=seed
        )
        with tempfile.TemporaryDirectory() as folder:
            training = Training(
                task,
                data,
                monitor="val_loss",
                mode="min",
                max_epochs=self.max_epochs,
                folder=None if self.storage else Path(folder),
                keep=1,
            )
            objective = Objective(partial(self.space or USUAL, outputs=outputs), training)
            self.study_ = create_study(
                objective,
                study_name=self.study_name or type(self).__name__,
                storage=self.storage,
                seed=seed,
            )
            optimize(
                self.study_,
                objective,
                self.n_trials,
                timeout=self.timeout,
                show_progress=bool(self.verbose),
            )
            winner = best(self.study_, objective)
            self.best_model_: nn.Module = winner.model()
        self.best_params_ = winner.params
        self.best_loss_ = winner.value

    def __getstate__(self) -> dict[str, Any]:
        """Without the study, which may hold a connection; who needs it later gives a storage."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "study_"}

    def _outputs(self, x: ArrayLike) -> Tensor:
        """What the best network returns for each row."""
        check_is_fitted(self)
        columns = self.scaler_.transform(validate_data(self, x, reset=False, dtype=np.float64))
        # In double precision, a row's prediction does not depend on the rows beside it.
        model = deepcopy(self.best_model_).double().eval()
        with torch.inference_mode():
            outputs: Tensor = torch.cat(
                [model(part) for part in torch.split(torch.from_numpy(columns), 4096)]
            )
        return outputs


class SearchClassifier(ClassifierMixin, _Search):  # type: ignore[misc]  # as above
    """Searches a network that classifies the rows of a table.

    Args:
        space: `(trial, outputs=...) -> module`, such as `hub.tabular.ft_transformer`; by default residual
            networks (`hub.tabular.resnet`) of at most 256 channels and 4 blocks.
        n_trials: networks to train.
        timeout: seconds after which no other network is begun.
        max_epochs, batch_size: of each training.
        lr: the learning rate, or a range in which it is searched for.
        validation_fraction: the share of the rows on which networks are compared. No network is trained on
            them, the best one neither.
        study_name, storage: where trials are kept, such as `"sqlite:///nas.db"`: a `fit` that is interrupted
            then goes on, and a second one on the same data does nothing. By default they are forgotten.
        random_state: a number makes the search reproducible.
        verbose: whether to show how the search goes.

    Attributes:
        best_model_: the best network, on the CPU, in evaluation mode; it takes standardized columns
            (`scaler_.transform`) as float32.
        best_params_: its decisions.
        best_loss_: its validation loss, which is optimistic: it is the smallest of many.
        study_: the `optuna.Study`; not of an estimator that was pickled.
        classes_: the labels, in the order of the columns of `predict_proba`.
        scaler_: standardizes columns.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Examples:
        >>> from optnas.sklearn import SearchClassifier
        >>> search = SearchClassifier(n_trials=2, max_epochs=1, random_state=0)
        >>> rows = torch.randn(60, 4).numpy()
        >>> search.fit(rows, rows[:, 0] > 0).predict(rows).shape
        (60,)
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Search on rows `(n, columns)` and labels `(n,)`.

        Raises:
            ValueError: there is one class only, there are fewer than three rows, or a value is missing.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Every row is of one class, {self.classes_[0]!r}; a classifier needs two or more."
            )
        task = Classification(len(self.classes_), lr=self.lr)
        self._search(np.asarray(X), torch.from_numpy(labels), len(self.classes_), task, labels)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities `(n, n_classes)`, in the order of `classes_`."""
        return np.asarray(self._outputs(X).softmax(1).numpy())

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels `(n,)`."""
        best_class = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best_class])


class SearchRegressor(RegressorMixin, _Search):  # type: ignore[misc]  # as above
    """Searches a network that predicts a number for the rows of a table; see `SearchClassifier`.

    Attributes:
        target_scale_: mean and standard deviation of the targets, in which `best_model_` predicts.

    Examples:
        >>> from optnas.sklearn import SearchRegressor
        >>> search = SearchRegressor(n_trials=2, max_epochs=1, random_state=0)
        >>> rows = torch.randn(60, 4).numpy()
        >>> search.fit(rows, rows[:, 0]).predict(rows).shape
        (60,)
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Search on rows `(n, columns)` and targets `(n,)`.

        Raises:
            ValueError: there are fewer than three rows, or a value is missing.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        targets = np.asarray(y, dtype=np.float64)
        mean, deviation = float(targets.mean()), float(targets.std())
        self.target_scale_ = mean, deviation or 1.0
        scaled = torch.from_numpy(((targets - mean) / self.target_scale_[1]).astype(np.float32))
        self._search(np.asarray(X), scaled, 1, Regression(lr=self.lr), None)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Numbers `(n,)`."""
        mean, deviation = self.target_scale_ if self.__sklearn_is_fitted__() else (0.0, 1.0)
        return np.asarray(self._outputs(X)[:, 0].numpy() * deviation + mean)

    def __sklearn_is_fitted__(self) -> bool:
        return "best_model_" in vars(self)


def _to_stratify(labels: Any, size: int) -> Any:
    """The labels, where each class has rows enough to be in both parts."""
    if labels is None:
        return None
    counts = np.bincount(labels)
    fits = counts.min() > 1 and len(counts) <= size <= len(labels) - len(counts)
    return labels if fits else None
