"""What a storage can do beyond Optuna's interface, declared once, so that no code checks its class."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL

from optnas.private import trial_id as id_of
from optnas.storage.leases import StaleTrial

HELD = "optnas:held"
"""A system attribute of a trial. A WAITING one that has it (True) is given out by its id only, and keeps its
place in the budget; a PRUNED one that has it may be queued again (`Storage.reopen`)."""

_settling = threading.Lock()


@dataclass(frozen=True)
class Seen:
    """How a study stood when somebody decided by it; what begins, goes on, pauses or ends changes it.

    Attributes:
        number: the highest of a trial; -1 where there is none.
        running: how many trials run.
        held: the sum of the ids of those that are held.

    Examples:
        >>> optnas.storage.Seen.of(optnas.create_study(objective).trials)
        Seen(number=-1, running=0, held=0)
    """

    number: int
    running: int
    held: int

    @classmethod
    def of(cls, trials: Iterable[FrozenTrial]) -> Seen:
        """The trials of a study."""
        found = list(trials)
        return cls(
            max((trial.number for trial in found), default=-1),
            sum(trial.state == TrialState.RUNNING for trial in found),
            sum(id_of(trial) for trial in found if trial.state == TrialState.WAITING and is_held(trial)),
        )


NEVER = Seen(-2, 0, 0)
"""As no study ever stands."""


@dataclass(frozen=True)
class Claim:
    """The answer to `claim`: a trial to run, or None, and how the budget stood before.

    No trial and `counted >= n_trials`: the search is done. No trial and `running > 0`: wait, one of those may
    come back or turn out not to count. No trial and `held > 0`: those may be taken, by their ids. `refused`:
    there is budget, but the study does not stand as it was seen.

    Examples:
        >>> claimed = optnas.storage.claim(optnas.create_study(objective), n_trials=1, counts="counts")
        >>> claimed.trial_id is not None, claimed.counted
        (True, 0)
    """

    trial_id: int | None
    counted: int
    running: int
    held: int = 0
    refused: bool = False


@dataclass(frozen=True)
class Outline:
    """The little that a list shows of a trial: no answers, reports or attributes.

    `counts`: whether it counts toward `n_trials`, as `counted` says.
    """

    trial_id: int
    number: int
    state: TrialState
    values: tuple[float, ...] | None
    counts: bool


def complete(rows: Iterable[Outline]) -> dict[int, tuple[float, ...]]:
    """The values of the COMPLETE trials, by id."""
    return {
        row.trial_id: row.values
        for row in rows
        if row.state == TrialState.COMPLETE and row.values is not None
    }


@dataclass(frozen=True)
class Place:
    """Where studies are stored: in a file of this machine, on a server, or (neither) in memory.

    `server` leaves the host out, which workers may call by different names.
    """

    file: Path | None = None
    server: str | None = None

    @classmethod
    def of(cls, url: URL) -> Place:
        """The place that a URL stands for."""
        if url.get_backend_name() != "sqlite":
            return cls(server=f"{url.get_backend_name()}:{url.database}")
        in_memory = url.database in (None, "", ":memory:")
        return cls() if in_memory else cls(file=Path(os.path.realpath(str(url.database))))


class Storage(BaseStorage):
    """Optuna's storage interface and what a search asks beyond it.

    The methods here suit a storage without owners: it buffers nothing, does not know which process runs a
    trial, and never finds a trial to be lost.

    Examples:
        >>> isinstance(optnas.open_storage("sqlite:///nas.db"), optnas.storage.Storage)
        True
    """

    shared = False
    """Whether other processes can open it with `open_storage(**arguments())` and work on its studies."""

    recovers = False
    """Whether a trial whose process died is found, and goes on."""

    place = Place()
    """Where its studies are."""

    lacks = ""
    """A sentence about what a search lacks with this storage and how to get it; "" if it lacks nothing."""

    refuses = ""
    """Why no search may work on its studies, although they can be read; "" if one may."""

    @abstractmethod
    def claim(
        self,
        study_id: int,
        n_trials: int | None,
        counts: str,
        wanted: int | None = None,
        seen: Seen | None = None,
    ) -> Claim:
        """Take a WAITING trial or create one, unless `n_trials` of the study count, run or are held already.

        `counts` names the user attribute by which a trial says that it does not count; see `counted`. With
        `wanted`, take the trial of that id, which is held no more, or none where it does not wait any more.
        With `seen`, create no trial and take none that is `wanted` unless the study still stands so.
        """

    @abstractmethod
    def reopen(self, trial_id: int) -> bool:
        """Set a held PRUNED trial to WAITING, in place; returns False for any other trial."""

    def outlines(self, study_id: int, counts: str) -> list[Outline]:
        """All trials of a study, by number, without their large parts; `counts` as for `claim`."""
        return [
            Outline(
                id_of(trial),
                trial.number,
                trial.state,
                None if trial.values is None else tuple(trial.values),
                counted(trial, counts),
            )
            for trial in self.get_all_trials(study_id, deepcopy=False)
        ]

    def last_start(self, study_id: int) -> datetime | None:
        """When the latest trial began; None if none has begun."""
        trials = self.get_all_trials(study_id, deepcopy=False)
        return max((trial.datetime_start for trial in trials if trial.datetime_start), default=None)

    def trials_of(self, study_id: int, trial_ids: Collection[int]) -> list[FrozenTrial]:
        """The whole trials of these ids, by number."""
        return [trial for trial in self.get_all_trials(study_id, deepcopy=False) if id_of(trial) in trial_ids]

    def flush(self, trial_id: int | None = None) -> None:
        """Write what is buffered for one trial, or for all that run here; when it returns, it is stored.

        Raises TrialTakenError if another process has that one trial now; then nothing was written.
        """

    def owns(self, trial_id: int) -> bool:
        """Whether this process is known to run the trial."""
        return False

    def stale_trials(self, study_id: int) -> list[StaleTrial]:
        """RUNNING trials that once had a lease and that no process runs any more."""
        return []

    def take_over(self, trial: StaleTrial) -> bool:
        """Become the owner of a stale trial, to requeue or to finish it; False if another was faster."""
        return False

    def requeue(self, trial: StaleTrial | int) -> bool:
        """RUNNING becomes WAITING in place: number, parameters, reports and attributes stay.

        Of an own trial, by its id, or of a stale one; False if another process was faster with that.
        """
        if isinstance(trial, StaleTrial):
            if not self.take_over(trial):
                return False
            trial = trial.trial_id
        return self.set_trial_state_values(trial, TrialState.WAITING)

    def requeue_abandoned(self) -> None:
        """Queue trials again that this process gave up while the storage failed."""

    def settle_study_user_attr(self, study_id: int, key: str, value: Any) -> Any:
        """Set an attribute unless it is set; if several processes do so at once, one of them decides.

        Returns its value.
        """
        with _settling:
            known = self.get_study_user_attrs(study_id)
            if key not in known:
                self.set_study_user_attr(study_id, key, value)
            return known.get(key, value)

    def arguments(self) -> dict[str, Any]:
        """For `open_storage(**arguments)` in another process; only of a `shared` storage."""
        raise ValueError(f"{self} cannot be opened by another process.")

    def fold_log(self) -> None:
        """If a storage keeps its data in two files, put all of it into the one that people copy."""

    def close(self) -> None:
        """Flush, and let go of all connections."""


def is_held(trial: FrozenTrial) -> bool:
    """Whether a trial may go on, but not before somebody takes it by its id."""
    return trial.state in (TrialState.WAITING, TrialState.PRUNED) and trial.system_attrs.get(HELD) is True


def counted(trial: FrozenTrial, counts: str) -> bool:
    """Whether a trial counts toward `n_trials`: COMPLETE or PRUNED, its user attribute `counts` not false."""
    finished = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return finished and trial.user_attrs.get(counts) is not False
