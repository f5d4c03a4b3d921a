"""Optuna's databases, faster, and shared by workers that may die at any moment; open.py says what holds."""

from optnas.errors import StorageUnavailableError, TrialTakenError
from optnas.storage.lease import Loss, StaleTrial
from optnas.storage.open import claim, open_storage
from optnas.storage.ownership import Claim
from optnas.storage.shared_storage import SharedStorage

__all__ = [
    "Claim",
    "Loss",
    "SharedStorage",
    "StaleTrial",
    "StorageUnavailableError",
    "TrialTakenError",
    "claim",
    "open_storage",
]
