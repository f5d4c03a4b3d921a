"""Loggers for `Training(logger=...)`: one run for each trial, in an experiment of the study's name.

    training = Training(..., logger=TensorBoard("logs"))
    training = Training(..., logger=MLflow("sqlite:///mlflow.db"))
    training = Training(..., logger=WandB())  # the study's name is the project

A run has the answers of its trial as hyperparameters. A later attempt at the same trial goes on in its run.
Trainings beside the search (`best --retrain`) are not logged.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optuna.trial import BaseTrial
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from optnas import record
from optnas.estimation.run import Run

_TAG = "optnas.trial"


@dataclass(frozen=True)
class TensorBoard:
    """For `tensorboard --logdir FOLDER`: event files in `<folder>/<study>/trial-0007`.

    Examples:
        >>> from optnas.training.loggers import TensorBoard
        >>> logged = optnas.Training(
        ...     optnas.Classification(3),
        ...     data,
        ...     monitor="val_acc",
        ...     mode="max",
        ...     max_epochs=1,
        ...     logger=TensorBoard("logs"),
        ... )
    """

    folder: str | Path = "logs"

    def __call__(self, trial: BaseTrial) -> Logger | bool:
        run = Run.of(trial)
        if run.lone:
            return False
        name = re.sub(r"[^\w.-]+", "_", run.study.study_name)
        logger = TensorBoardLogger(self.folder, name=name, version=_name(run))
        logger.log_hyperparams(run.params)
        return logger


@dataclass(frozen=True)
class MLflow:
    """For MLflow: a run named `trial-0007` in the experiment of the study's name.

    Args:
        tracking_uri: such as `"sqlite:///mlflow.db"` or the URL of a server; by default MLflow's own, which
            the environment variable MLFLOW_TRACKING_URI sets.

    Examples:
        >>> from optnas.training.loggers import MLflow
        >>> logger = MLflow("sqlite:///mlflow.db")
    """

    tracking_uri: str | None = None

    def __call__(self, trial: BaseTrial) -> Logger | bool:
        run = Run.of(trial)
        if run.lone:
            return False
        import mlflow

        uri = self.tracking_uri or mlflow.get_tracking_uri()
        client = mlflow.MlflowClient(uri)
        known = client.get_experiment_by_name(run.study.study_name)
        which = f"tags.`{_TAG}` = '{_identity(run)}'"
        before = client.search_runs([known.experiment_id], which) if known else []
        logger = MLFlowLogger(
            experiment_name=run.study.study_name,
            run_name=_name(run),
            tracking_uri=uri,
            tags={_TAG: _identity(run)},
            run_id=before[0].info.run_id if before else None,
        )
        if not before:
            logger.log_hyperparams(run.params)
        return logger


@dataclass(frozen=True)
class WandB:
    """For Weights & Biases: a run named `trial-0007` in the project of the study's name.

    Args:
        offline: write to `folder` only; `wandb sync` sends it later.
        folder: where runs are kept on this machine.

    Examples:
        >>> from optnas.training.loggers import WandB
        >>> logger = WandB(offline=True)
    """

    offline: bool = False
    folder: str | Path = "."

    def __call__(self, trial: BaseTrial) -> Logger | bool:
        run = Run.of(trial)
        if run.lone:
            return False
        logger = _Run(
            project=run.study.study_name,
            name=_name(run),
            id=_identity(run),
            resume="allow",
            offline=self.offline,
            save_dir=self.folder,
        )
        logger.log_hyperparams(run.params)
        return logger


class _Run(WandbLogger):
    """Ends its run with the training: the next trial of this process has another."""

    def finalize(self, status: Literal["success", "failed", "finished"] | str) -> None:
        super().finalize(status)
        self.experiment.finish(exit_code=int(status == "failed"))


def _name(run: Run) -> str:
    return f"trial-{run.number:04}"


def _identity(run: Run) -> str:
    """Equal for all attempts at one trial, and for no other trial of any study."""
    began = next((attempt["started"] for attempt in record.attempts(run)), None)
    text = f"{record.origin(run.study)} {run.study.study_name} {run.number} {began}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
