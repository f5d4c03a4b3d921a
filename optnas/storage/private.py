"""Every private name of Optuna that a storage needs; other rooms may take theirs from here, too."""

from __future__ import annotations

import optuna
from optuna.storages import BaseStorage, _CachedStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages._rdb import models
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial

__all__ = [
    "BaseHeartbeat",
    "FrozenStudy",
    "forget_trials",
    "kind",
    "models",
    "storage",
    "study_id",
    "trial_id",
]


def storage(study: optuna.Study) -> BaseStorage:
    """Where the study lives, as Optuna knows it."""
    return study._storage


def study_id(study: optuna.Study) -> int:
    return study._study_id


def trial_id(trial: FrozenTrial | optuna.Trial) -> int:
    return trial._trial_id


def forget_trials(study: optuna.Study) -> None:
    """Let a study read its trials again, as `study.ask` does: once a trial."""
    study._thread_local.cached_all_trials = None


def kind(storage: BaseStorage) -> str:
    """The class of a storage as people write it: Optuna wraps RDBStorage into a cache."""
    return type(storage._backend if isinstance(storage, _CachedStorage) else storage).__name__
