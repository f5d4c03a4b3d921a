"""The base class of estimators that do something before or after another estimator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from torch import nn

from optnas.estimation.estimator import Direction, Estimator, Preview
from optnas.estimation.run import Run
from optnas.trial import Trial


class Around(Estimator):
    """Everything but the estimate is that of `estimator`, unless a subclass says otherwise."""

    estimator: Estimator

    @property
    def values(self) -> Mapping[str, Direction]:
        return self.estimator.values

    @property
    def settings(self) -> Any:
        return self.estimator.settings

    @property
    def max_reports(self) -> int:
        return self.estimator.max_reports

    @property
    def scores_given_weights(self) -> bool:
        return self.estimator.scores_given_weights

    @property
    def is_noisy(self) -> bool:
        return self.estimator.is_noisy

    @property
    def resumes(self) -> bool:
        return self.estimator.resumes

    @property
    def share_in_full(self) -> float:
        return self.estimator.share_in_full

    def ask(self, model: nn.Module, trial: Trial) -> None:
        self.estimator.ask(model, trial)

    @property
    def has_example(self) -> bool:
        return self.estimator.has_example

    def example(self, trial: Trial) -> Any:
        return self.estimator.example(trial)

    def rehearse(self, model: nn.Module, run: Run) -> Collection[str] | None:
        return self.estimator.rehearse(model, run)

    def preview(self, model: nn.Module, run: Run) -> Preview:
        return self.estimator.preview(model, run)

    def provenance(self) -> Mapping[str, Any]:
        return self.estimator.provenance()

    def finish(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.estimator.finish(study, trial)

    def tidy(self, study: optuna.Study) -> None:
        self.estimator.tidy(study)

    def settle(self, study: optuna.Study) -> Path:
        return self.estimator.settle(study)

    @property
    def folder(self) -> Path | None:
        return self.estimator.folder

    @property
    def keeps_weights(self) -> bool:
        return self.estimator.keeps_weights

    def has_trained(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return self.estimator.has_trained(study, trial)

    def trained(self, model: nn.Module, study: optuna.Study, trial: FrozenTrial) -> nn.Module:
        return self.estimator.trained(model, study, trial)

    def test(self, model: nn.Module, study: optuna.Study, trial: FrozenTrial) -> dict[str, float]:
        return self.estimator.test(model, study, trial)

    def estimate_and_test(self, model: nn.Module, run: Run) -> Mapping[str, float]:
        return self.estimator.estimate_and_test(model, run)

    def with_max_epochs(self, max_epochs: int) -> Estimator:
        return self.estimator.with_max_epochs(max_epochs)

    @property
    def name(self) -> str:
        return self.estimator.name
