"""Optuna's databases, faster, and shared by workers that may die at any moment; see open.py."""

from optnas.errors import StorageUnavailableError, StudyGoneError, TrialTakenError
from optnas.storage.base import Claim, Seen, Storage
from optnas.storage.leases import Loss, StaleTrial
from optnas.storage.open import claim, open_storage, storage_of

__all__ = [
    "Claim",
    "Loss",
    "Seen",
    "StaleTrial",
    "Storage",
    "StorageUnavailableError",
    "StudyGoneError",
    "TrialTakenError",
    "claim",
    "open_storage",
    "storage_of",
]
