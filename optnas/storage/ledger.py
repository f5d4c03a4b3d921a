"""Which process runs which trial: how trials are claimed, taken, leased and lost; see open.py."""

from __future__ import annotations

import copy
import logging
import math
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from optnas.errors import StorageUnavailableError, TrialTakenError
from optnas.private import trial_id as id_of
from optnas.storage import owners, schema
from optnas.storage.base import HELD, Claim, Seen
from optnas.storage.database import Database
from optnas.storage.leases import Heart, Loss, Process, StaleTrial, stale
from optnas.storage.owners import Budget, Tally
from optnas.storage.schema import Changes

logger = logging.getLogger(__name__)

_FAR = 200
"""How many trials may end before a tally is taken anew."""


class OtherStudy(Exception):
    """Raised if the id of a study that this process works on belongs to another study now."""


@dataclass
class Own:
    """A trial that this process runs, including `pending`, which the database does not have yet."""

    token: str
    study_id: int
    trial: FrozenTrial
    pending: Changes = field(default_factory=Changes)
    lost: bool = False
    abandoned: bool = False  # whether it is to become WAITING, which could not be written yet

    def show(self, news: Mapping[str, Mapping[Any, Any]]) -> None:
        """Put `{field: {key: value}}` into a new trial object; the one that was given out stays as it was."""
        self.trial = copy.copy(self.trial)
        for name, entries in news.items():
            setattr(self.trial, name, {**getattr(self.trial, name), **entries})

    def taken(self) -> TrialTakenError:
        """The error that says that another process has the trial now."""
        return TrialTakenError(
            f"Trial {self.trial.number} was taken over by another attempt: this process (pid {os.getpid()}) "
            "gave no sign of life for longer than its lease, or somebody queued the trial again or told its "
            "result. Nothing was written; give it up and take another trial."
        )


class Ledger:
    """The table of owners on a database, and what of it is this process's; `lock` guards the latter.

    Args:
        lease: seconds that a trial stays with a process that gives no sign of life.
        beat: renews the leases of its object when called; a thread does so four times a lease.
    """

    def __init__(self, database: Database, lease: float, beat: Callable[[], None]) -> None:
        self.lease = lease
        self._database = database
        self._beat = weakref.WeakMethod(beat)
        self._begin(parent=None)
        if hasattr(os, "register_at_fork"):  # not on Windows
            reference = weakref.ref(self)

            def forked() -> None:
                if (ledger := reference()) is not None:
                    ledger._begin(parent=os.getppid() if ledger.runs_trials() else ledger._parent)

            os.register_at_fork(after_in_child=forked)

    def _begin(self, parent: int | None) -> None:
        """Own nothing; for ever, if this is a forked child of `parent`, a process that runs trials."""
        self.lock = threading.RLock()
        self.own: dict[int, Own] = {}
        self._parent = parent
        self._incarnations: dict[int, str] = {}
        self._tallies: dict[int, tuple[str, Tally]] = {}
        self._ended_since: dict[int, int] = {}  # that tally
        self._full: set[int] = set()  # studies that had no trial left when this process last asked
        self._highest: dict[int, tuple[int, int]] = {}  # id and number of the trials of a study
        self._ended: dict[int, dict[tuple[str, float], float]] = {}
        self._unowned: dict[int, tuple[tuple[Any, ...], float]] = {}
        self._heart: Heart | None = None

    def check_not_forked(self) -> None:
        """A forked child that returns from the code of a trial must not go on with its parent's search.

        Raises StorageUnavailableError.
        """
        if self._parent is not None:
            raise StorageUnavailableError(
                f"This process (pid {os.getpid()}) is a forked child of process {self._parent}, which runs a "
                "trial: it owns nothing and writes nothing. End it with os._exit() where its own work is "
                "done; to work on the study in it, open the storage anew."
            )

    def forget(self, study_id: int) -> None:
        """The study is gone, or another one: its trials are lost, and what was known of it is forgotten."""
        with self.lock:
            for own in self.own.values():
                own.lost = own.lost or own.study_id == study_id
            for known in (self._incarnations, self._ended, self._tallies, self._ended_since, self._highest):
                known.pop(study_id, None)
            self._full.discard(study_id)

    def stop(self) -> None:
        """Stop renewing leases."""
        if self._heart is not None:
            self._heart.stop()

    # ---- taking trials ----

    def claim(
        self, study_id: int, n_trials: int | None, counts: str, wanted: int | None, seen: Seen | None = None
    ) -> Claim:
        """See `Storage.claim`; it is one transaction, for which others wait.

        If other processes run the rest of the budget, a trial that no process of optnas runs, and that has
        shown no sign of life for a lease, does not hold up the end.
        """
        claim = self._claim(study_id, n_trials, counts, wanted, seen)
        if claim.trial_id is not None or wanted is not None or n_trials is None or claim.counted >= n_trials:
            return claim
        silent = [] if claim.refused else self._silent_trials(study_id)
        return self._claim(study_id, n_trials, counts, seen=seen, beside=silent) if silent else claim

    def _claim(
        self,
        study_id: int,
        n_trials: int | None,
        counts: str,
        wanted: int | None = None,
        seen: Seen | None = None,
        beside: Collection[int] = (),
    ) -> Claim:
        token = uuid.uuid4().hex
        tally = self._take_tally(study_id, counts)

        def count(connection: Connection) -> Budget:
            budget = owners.count_budget(connection, study_id, counts, beside, tally)
            if budget.newest < tally.last:
                raise OtherStudy  # the database was put back to an older copy
            self._ended_since[study_id] = budget.ended
            return budget

        def is_full(budget: Budget) -> bool:
            return n_trials is not None and budget.counted + budget.running + budget.held >= n_trials

        # A process that waits for the last trials of others asks often, and must not be in their way.
        if study_id in self._full and wanted is None:
            budget = self._database.read(count)
            if is_full(budget):
                return Claim(None, budget.counted, budget.running, budget.held)

        def work(connection: Connection, again: bool) -> tuple[Claim, FrozenTrial | None, str]:
            incarnation = self._lock_study(connection, study_id)
            if incarnation is None:
                incarnation = schema.settle_incarnation(connection, study_id, uuid.uuid4().hex)
            claim, trial = take(connection, again)
            return claim, trial, incarnation

        def take(connection: Connection, again: bool) -> tuple[Claim, FrozenTrial | None]:
            budget = count(connection)
            counted, running, held = budget.counted, budget.running, budget.held
            if again and (found := owners.find_trial(connection, "token", token)):
                return Claim(found, counted, running - 1, held), schema.read_trial(connection, found)
            stands = Seen(budget.number, running + len(beside), budget.held_ids)
            refused = seen is not None and stands != seen
            if wanted is not None:
                if refused:
                    return Claim(None, counted, running, held, refused=True), None
                trial_id, n_attempts = wanted, owners.count_attempts(connection, wanted)
            elif is_full(budget):
                return Claim(None, counted, running, held), None
            elif (waiting := owners.next_waiting(connection, study_id, tally)) is None:
                if refused:
                    return Claim(None, counted, running, held, refused=True), None
                trial = self._insert_running(connection, study_id, budget.number + 1, token)
                return Claim(id_of(trial), counted, running, held), trial
            else:
                trial_id, n_attempts = waiting
            if not (start := schema.start_waiting(connection, trial_id)):
                if wanted is not None:
                    return Claim(None, counted, running, held), None
                return take(connection, again)  # Optuna takes them without that lock
            if wanted is not None:
                Changes(system_attrs={HELD: "false"}).write(connection, trial_id)
            self._record(connection, trial_id, study_id, start, token, n_attempts + 1)
            return Claim(trial_id, counted, running, held), schema.read_trial(connection, trial_id)

        with self.lock:
            claim, trial, incarnation = self._database.write(work)
            self._incarnations[study_id] = incarnation
            (self._full.add if claim.trial_id is None else self._full.discard)(study_id)
            if trial is not None:
                self._hold(study_id, trial, token)
            return claim

    def create(self, study_id: int) -> int:
        """A new RUNNING trial of this process."""
        key = uuid.uuid4().hex

        def work(connection: Connection, again: bool) -> FrozenTrial:
            self._lock_study(connection, study_id)
            if again and (found := owners.find_trial(connection, "token", key)):
                return schema.read_trial(connection, found)
            return self._insert_running(connection, study_id, self._next_number(connection, study_id), key)

        with self.lock:
            trial = self._database.write(work)
            self._hold(study_id, trial, key)
            return id_of(trial)

    def copy(self, study_id: int, template: FrozenTrial) -> int:
        """A new trial like `template`, in any state, which nobody owns."""
        key = uuid.uuid4().hex
        start, complete = (schema.to_utc(t) for t in (template.datetime_start, template.datetime_complete))

        def work(connection: Connection, again: bool) -> int:
            self._lock_study(connection, study_id)
            if again and (found := owners.find_trial(connection, "created_by", key)):
                return found
            number = self._next_number(connection, study_id)
            times = {"datetime_start": start, "datetime_complete": complete}
            row = schema.insert_trial(connection, study_id, number, template.state, **times)
            schema.template_changes(template).write(connection, row.trial_id)
            if template.values is not None:
                schema.write_values(connection, row.trial_id, template.values)
            about = {"study_id": study_id, "trial_start": start, "created_by": key}
            owners.record(connection, row.trial_id, token=None, n_attempts=0, **about)
            return row.trial_id

        return self._database.write(work)

    def take(self, trial_id: int, study_id: int) -> bool:
        """WAITING becomes RUNNING, and ours; False if it is RUNNING already."""
        token = uuid.uuid4().hex

        def work(connection: Connection, again: bool) -> FrozenTrial | None:
            self._lock_study(connection, study_id)
            if again and owners.find_trial(connection, "token", token):
                return schema.read_trial(connection, trial_id)
            check_updatable(trial_id, schema.lock_trial(connection, trial_id))
            n_attempts = owners.count_attempts(connection, trial_id)
            if not (start := schema.start_waiting(connection, trial_id)):
                return None
            self._record(connection, trial_id, study_id, start, token, n_attempts + 1)
            return schema.read_trial(connection, trial_id)

        with self.lock:
            taken = self._database.write(work)
            if taken is not None:
                self._hold(study_id, taken, token)
            return taken is not None

    def _lock_study(self, connection: Connection, study_id: int) -> str | None:
        """Lock the study: who takes or creates a trial waits. Raises KeyError, OtherStudy."""
        incarnation = schema.lock_study(connection, study_id)
        if incarnation != self._incarnations.get(study_id, incarnation):
            raise OtherStudy
        return incarnation

    def _take_tally(self, study_id: int, counts: str) -> Tally:
        """What is known for good about the trials, so that a claim, for which others wait, looks at few.

        If many trials have ended since, it is taken anew, outside any lock.
        """
        name, known = self._tallies.get(study_id, (counts, Tally()))
        if name != counts:
            known = Tally()
        if known.last < 0 or self._ended_since.get(study_id, 0) > _FAR:
            known = self._database.read(lambda c: owners.take_tally(c, study_id, counts, known))
            self._tallies[study_id], self._ended_since[study_id] = (counts, known), 0
        return known

    def _left(self, study_id: int) -> sa.ColumnElement[bool]:
        """The trials of a study that are not known to have ended."""
        _, tally = self._tallies.get(study_id, ("", Tally()))
        return tally.leaves(study_id)

    def _next_number(self, connection: Connection, study_id: int) -> int:
        """The number for a new trial of the study, which is locked."""
        newest, number = self._highest.get(study_id, (-1, -1))
        newest_now, number_now = owners.highest(connection, study_id, newest)
        if newest_now < newest:
            raise OtherStudy  # the database was put back to an older copy
        self._highest[study_id] = newest_now, max(number, number_now)
        return self._highest[study_id][1] + 1

    def _insert_running(self, connection: Connection, study_id: int, number: int, token: str) -> FrozenTrial:
        start = schema.to_utc(datetime.now())
        row = schema.insert_trial(connection, study_id, number, TrialState.RUNNING, datetime_start=start)
        self._record(connection, row.trial_id, study_id, start, token, 1, created_by=token)
        return schema.new_trial(row)

    def _record(
        self,
        connection: Connection,
        trial_id: int,
        study_id: int,
        start: datetime | None,
        token: str,
        n_attempts: int,
        **columns: Any,
    ) -> None:
        about = {"study_id": study_id, "trial_start": start, "n_attempts": n_attempts}
        owner = {"token": token, "expires": self._expiry(), **asdict(Process.this())}
        owners.record(connection, trial_id, **about, **owner, **columns)

    def _expiry(self) -> Any:
        return self._database.now() + self.lease

    def _hold(self, study_id: int, trial: FrozenTrial, token: str) -> None:
        self.own[id_of(trial)] = Own(token, study_id, trial)
        beat = self._beat()
        if beat is not None and (self._heart is None or not self._heart.is_alive()):
            self._heart = Heart(beat, self.lease / 4)

    # ---- losing trials ----

    def owns(self, trial_id: int) -> bool:
        """Whether this process owned the trial at its last write or renewal of the lease."""
        own = self.own.get(trial_id)
        return own is not None and not own.lost

    def runs_trials(self) -> bool:
        return any(not own.lost for own in self.own.values())

    def while_owned(
        self, own: Own, work: Callable[[Connection], datetime | None], end: TrialState | None = None
    ) -> datetime | None:
        """Run `work` in a transaction in which the trial is still ours; `end` is the state that it sets."""
        trial_id = id_of(own.trial)
        token_after = None if end == TrialState.WAITING else own.token

        def checked(connection: Connection, again: bool) -> datetime | None:
            state, token = owners.lock(connection, trial_id)
            if again and state == end and token == token_after:
                return schema.read_header(connection, trial_id).complete  # an earlier try was committed
            if token == own.token:
                check_updatable(trial_id, state)
            if token != own.token or state != TrialState.RUNNING:
                raise own.taken()
            return work(connection)

        if own.lost:
            raise own.taken()
        try:
            return self._database.write(checked)
        except (UpdateFinishedTrialError, KeyError):  # taken over, finished or deleted by another process
            own.lost = True
            raise

    def renew(self) -> bool:
        """Renew all leases and find out which trials are lost; returns False if nothing was renewed."""
        with self.lock:
            mine = {own.token: own for own in self.own.values() if not own.lost}
            if not mine:
                return False
            try:
                kept = self._database.write(
                    lambda connection, again: owners.renew(connection, mine, self._expiry()), patience=0
                )
            except StorageUnavailableError:
                return False  # the next renewal, or the next write of the objective, will find out
            for token in mine.keys() - kept:
                mine[token].lost = True
            return True

    def stale_trials(self, study_id: int) -> list[StaleTrial]:
        """RUNNING trials whose process is dead, or whose lease has ended.

        A lease counts as ended only after this process has seen it ended for half a lease in which the
        database could be written. If it could not be written for a while, or its clock was set, all leases
        have ended, and live owners are about to renew theirs.
        """
        rows = self._database.read(
            lambda connection: owners.running(connection, self._database.now(), self._left(study_id))
        )
        judged = [(row, self._judge(row)) for row in rows]
        ended = [(row.token, row.expires) for row, trial in judged if trial and trial.loss is Loss.EXPIRED]
        seen = self._ended.setdefault(study_id, {})
        if not seen.keys() >= set(ended):  # it may be read and yet be locked: wait until it is not
            self._database.write(lambda connection, again: schema.lock_study(connection, study_id))
        now = time.monotonic()
        with self.lock:
            seen = self._ended[study_id] = {lease: seen.get(lease, now) for lease in ended}
            return [
                trial
                for row, trial in judged
                if trial and now - seen.get((row.token, row.expires), -math.inf) >= self.lease / 2
            ]

    def take_over(self, trial: StaleTrial) -> bool:
        """Become the owner of a stale trial; returns False if another process was faster.

        From now on the former owner's writes are refused. The count of attempts stays.
        """
        token = uuid.uuid4().hex

        def work(connection: Connection, again: bool) -> tuple[int, FrozenTrial] | None:
            schema.lock_trial(connection, trial.trial_id)
            header = schema.read_header(connection, trial.trial_id)
            if not (again and owners.find_trial(connection, "token", token)):
                rows = owners.running(
                    connection, self._database.now(), schema.trials.c.trial_id == trial.trial_id
                )
                now = [self._judge(row) for row in rows]
                if not now or now[0] is None or now[0].token != trial.token:
                    return None  # not RUNNING any more, renewed since, or taken
                study_id, start = header.study_id, header.start
                self._record(connection, trial.trial_id, study_id, start, token, trial.n_attempts)
            return header.study_id, schema.read_trial(connection, trial.trial_id)

        with self.lock:
            taken = self._database.write(work)
            if taken is None:
                return False
            self._hold(*taken, token)
            return True

    def _judge(self, row: Any) -> StaleTrial | None:
        """The trial of a row, if it is stale. Without a lease it is not known: another program runs it."""
        return None if row.token is None else stale(row, self.lease, one_machine=self._database.is_sqlite)

    def _silent_trials(self, study_id: int) -> list[int]:
        """RUNNING trials without an owner that have shown no sign of life for a lease."""

        def work(connection: Connection) -> tuple[dict[int, int], dict[int, tuple[Any, ...]]]:
            rows = owners.running(connection, self._database.now(), self._left(study_id))
            numbers = {row.trial_id: row.number for row in rows if row.token is None}
            return numbers, schema.signs_of_life(connection, list(numbers)) if numbers else {}

        numbers, signs = self._database.read(work)
        now, silent = time.monotonic(), []
        for trial_id, number in numbers.items():
            known, since = self._unowned.get(trial_id, (None, now))
            if known is None:
                logger.warning(
                    "Waiting for trial %d, which another program than optnas runs, or left RUNNING when "
                    "it was killed. If it reports nothing for %.0f s, the search goes on without it; if you "
                    "know that its process is dead: study.tell(%d, state=optuna.trial.TrialState.FAIL).",
                    number,
                    self.lease,
                    number,
                )
            since = since if known == signs[trial_id] else now
            self._unowned[trial_id] = signs[trial_id], since
            if now - since >= self.lease:
                silent.append(trial_id)
        return silent


def check_updatable(trial_id: int, state: TrialState) -> None:
    """As Optuna's, but without reading the trial for the message: it is called within transactions."""
    if state.is_finished():
        raise UpdateFinishedTrialError(f"The trial with the id {trial_id} has finished; it cannot change.")
