"""What a process knows of the trials that it runs itself."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from optnas.errors import TrialTakenError
from optnas.storage.tables import Changes


@dataclass(frozen=True)
class Claim:
    """The answer to `claim`: a trial to run, or None, and how the budget stood before.

    No trial and `counted >= n_trials`: the search is done. No trial and `running > 0`: wait, one of those may
    come back or turn out not to count.
    """

    trial_id: int | None
    counted: int
    running: int


@dataclass
class Own:
    """A trial that this process runs: as it is with `pending`, which the database does not have yet."""

    token: str
    study_id: int
    trial: FrozenTrial
    pending: Changes = field(default_factory=Changes)
    lost: bool = False
    abandoned: bool = False  # to be WAITING, which could not be written yet

    def show(self, news: Mapping[str, Mapping[Any, Any]]) -> None:
        """Put `{field: {key: value}}` into a new trial: the one given out before stays as it was."""
        self.trial = copy.copy(self.trial)
        for name, entries in news.items():
            setattr(self.trial, name, {**getattr(self.trial, name), **entries})

    def taken(self) -> TrialTakenError:
        """To be raised: another process has the trial now."""
        return TrialTakenError(
            f"Trial {self.trial.number} was taken over by another attempt: this process (pid {os.getpid()}) "
            "gave no sign of life for longer than its lease, or somebody queued the trial again or told its "
            "result. Nothing was written; give it up and take another trial."
        )
