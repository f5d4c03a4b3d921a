"""Score a model by training it once for each fold of the data."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
from optuna.trial import FrozenTrial
from torch import nn

from optnas import private
from optnas.data.fingerprint import data_fingerprint
from optnas.data.folds import Foldable
from optnas.estimation.estimator import Direction, Estimator, Preview
from optnas.estimation.run import Run
from optnas.estimation.settings import describe
from optnas.facts.inputs import Example
from optnas.record import Reason, Why
from optnas.seeds import random_state, set_random_state
from optnas.training.training import Training
from optnas.trial import Trial


class CrossValidation(Estimator):
    """Trains a model on each of `k` folds, and returns the mean of each metric over the folds.

        CrossValidation(Training(Classification(3), TensorData((x, y)), monitor="val_acc", ...), k=5)

    Each fold is an ordinary `Training`, which begins with the same untrained weights and the same random
    state and trains on all but one k-th of the training and validation data. The test data are not used. The
    data divide themselves into folds, as `TensorData.fold` describes: stratified by class, by whole groups,
    or in order of time. Beside the means, `<metric>_std` is the sample standard deviation over the folds, and
    `<monitor>_fold_<i>` the value of each.

    After each fold the mean so far of `monitor` is reported, and the pruner may end the trial: a step is a
    fold. An interrupted trial continues at the fold and the epoch that it had reached. The network of the
    first fold is kept.

    Args:
        training: what is done on each fold; its data are a `TensorData`, another data module with a method
            `fold(i, k, repeat)`, or a function of the trial that makes one.
        k: number of folds, at least 2.
        repeats: how often the data are divided into folds, each time in another way.

    Raises:
        ValueError: fewer than two folds, or no repetition.
        TypeError: the data cannot be divided.

    Examples:
        >>> folds = optnas.CrossValidation(training, k=3)
        >>> cross_validated = optnas.Objective(space, folds)
    """

    def __init__(self, training: Training, k: int = 5, *, repeats: int = 1) -> None:
        if k < 2 or repeats < 1:
            raise ValueError(f"CrossValidation(k={k}, repeats={repeats}): k is at least 2, repeats 1.")
        if isinstance(training.data, pl.LightningDataModule):
            _foldable(training.data)
        self.training = training
        self.k = k
        self.repeats = repeats
        self.folds = [
            training.with_data(_Fold(training.data, i, k, repeat))
            for repeat in range(repeats)
            for i in range(k)
        ]

    def __call__(self, model: nn.Module, run: Run) -> dict[str, float]:
        """The means over the folds; what ends a fold early (divergence, memory) ends the trial."""
        return self._estimate(model, Run.of(run), test=False)

    def estimate_and_test(self, model: nn.Module, run: Run) -> dict[str, float]:
        """The same with the metrics on the test data, if there are any, of the networks of all folds."""
        return self._estimate(model, Run.of(run), test=True)

    def _estimate(self, model: nn.Module, run: Run, test: bool) -> dict[str, float]:
        state, found = random_state(), []
        told = set() if run.lone else set(private.stored(run).intermediate_values)
        monitor = self.training.monitor
        for i, fold in enumerate(self.folds):
            set_random_state(state)
            of_fold = _OfFold.within(run)
            network = deepcopy(model)
            found.append(fold.estimate_and_test(network, of_fold) if test else fold(network, of_fold))
            fold.forget_data()
            if run.lone or i + 1 == len(self.folds):
                continue
            mean = statistics.fmean(metrics[monitor] for metrics in found)
            if i not in told:
                run.report(i, {monitor: mean})
            if run.should_prune():
                words = f"pruned after fold {i + 1} of {len(self.folds)}: {monitor} is {mean:.6g}"
                run.pause(Reason(Why.PRUNED, words))
        return _means(found, monitor)

    @property
    def values(self) -> Mapping[str, Direction]:
        """The metric to optimize, by its mean over the folds, and in which direction."""
        return self.training.values

    @property
    def max_reports(self) -> int:
        """One a fold, but the last."""
        return len(self.folds)

    @property
    def resumes(self) -> bool:
        """With the fold in which it was interrupted."""
        return True

    @property
    def has_example(self) -> bool:
        """Its data has one."""
        return True

    @property
    def folder(self) -> Path | None:
        """That of the training."""
        return self.training.folder

    @property
    def keeps_weights(self) -> bool:
        """Those of the first fold, of the best trials."""
        return True

    @property
    def scores_given_weights(self) -> bool:
        """Where the training inherits weights."""
        return self.training.scores_given_weights

    @cached_property
    def settings(self) -> Any:
        """Those of the training, and how the data are divided."""
        data = [describe(self.training.data), data_fingerprint(self.training.data)]
        of_folds = {**self.folds[0].settings, "data": data}
        return {"estimator": "CrossValidation", "k": self.k, "repeats": self.repeats, "training": of_folds}

    def ask(self, model: nn.Module, trial: Trial) -> None:
        """Ask everything that training depends on, without training."""
        self.folds[0].ask(model, trial)

    def example(self, trial: Trial) -> Example:
        """What the task calls the model with, of two training samples."""
        return self.folds[0].example(trial)

    def rehearse(self, model: nn.Module, run: Run) -> None:
        """One training step and one validation step on the first fold."""
        self.folds[0].rehearse(model, run)

    def preview(self, model: nn.Module, run: Run) -> Preview:
        """That of the first fold, for the time that all of them take."""
        of_one = self.folds[0].preview(model, run)
        names = of_one.metrics
        if names is not None:
            folds = {f"{self.training.monitor}_fold_{i}" for i in range(len(self.folds))}
            names = names | {f"{name}_std" for name in names} | folds
        return replace(of_one, seconds=of_one.seconds and of_one.seconds * len(self.folds), metrics=names)

    def provenance(self) -> dict[str, Any]:
        """What a study records of its data."""
        return self.training.provenance()

    def finish(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Delete the states from which the trial could have gone on."""
        self.training.finish(study, trial)

    def tidy(self, study: optuna.Study) -> None:
        """Delete the files that finished trials left, except the weights of the best ones."""
        for fold in self.folds:
            fold.tidy(study)

    def settle(self, study: optuna.Study) -> Path:
        """The folder that the training keeps its files in."""
        return self.training.settle(study)

    def has_trained(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the weights of the first fold are still there."""
        return self.folds[0].has_trained(study, trial)

    def trained(self, model: nn.Module, study: optuna.Study, trial: FrozenTrial) -> nn.Module:
        """The network of the first fold as it was when it was scored. Raises as `Training.trained`."""
        return self.folds[0].trained(model, study, trial)

    def test(self, model: nn.Module, study: optuna.Study, trial: FrozenTrial) -> dict[str, float]:
        """Metrics of the network of the first fold on the test data. Raises as `Training.test`."""
        return self.folds[0].test(model, study, trial)

    def with_max_epochs(self, max_epochs: int) -> CrossValidation:
        """The same folds, trained for another number of epochs."""
        return CrossValidation(self.training.with_max_epochs(max_epochs), self.k, repeats=self.repeats)


class _Fold:
    """Makes the data of one fold; a function of the trial."""

    def __init__(self, data: Any, i: int, k: int, repeat: int) -> None:
        self.data, self.i, self.k, self.repeat = data, i, k, repeat

    def __call__(self, trial: Any) -> pl.LightningDataModule:
        given = isinstance(self.data, pl.LightningDataModule)
        return _foldable(self.data if given else self.data(trial)).fold(self.i, self.k, self.repeat)

    def fingerprint(self) -> str:
        """Of the data, with what is told of the fold by its description."""
        return data_fingerprint(self.data)


class _OfFold(Run):
    """The trial as the training of one fold sees it: it reports nothing and is not pruned."""

    @classmethod
    def within(cls, run: Run) -> _OfFold:
        """The same trial: what is asked or written here is of the trial."""
        fold = cls.__new__(cls)
        fold.__dict__ = run.__dict__
        return fold

    def report(self, value: float | int, step: int | Mapping[str, float]) -> None:
        """Nothing: a step of the trial is a fold."""

    def should_prune(self) -> bool:
        """No: after the fold is asked."""
        return False


def _foldable(data: Any) -> Foldable:
    if not isinstance(data, Foldable):
        raise TypeError(
            f"CrossValidation: {type(data).__name__} has no method fold(i, k, repeat) that makes the data "
            "module of one fold; put tensors into optnas.TensorData((x, y)), which has it, or write one."
        )
    return data


def _means(found: list[dict[str, float]], monitor: str) -> dict[str, float]:
    names = [name for name in found[0] if all(name in metrics for metrics in found)]
    means = {name: statistics.fmean(metrics[name] for metrics in found) for name in names}
    spreads = {f"{name}_std": statistics.stdev(metrics[name] for metrics in found) for name in names}
    return {**means, **spreads, **{f"{monitor}_fold_{i}": m[monitor] for i, m in enumerate(found)}}
