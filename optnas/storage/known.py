"""What a process knows of a study's trials. Finished trials never change, so each is read once."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from optnas.private import trial_id
from optnas.storage import schema
from optnas.storage.base import is_held
from optnas.storage.database import Database
from optnas.storage.schema import Header


class Rewound(Exception):
    """Raised if earlier trials are gone or are others now, so that the past of the study has changed."""


@dataclass
class KnownStudy:
    """Whole finished trials, and the rows of trials that may change or were not asked for yet."""

    study_id: int
    name: str | None = None
    finished: dict[int, FrozenTrial] = field(default_factory=dict)
    rows: dict[int, Header] = field(default_factory=dict)
    last: int = -1
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    witness: FrozenTrial | None = None
    """The trial in `finished` that finished last: an older copy of the database lacks it first."""

    def add(self, trial: FrozenTrial) -> None:
        """A finished trial."""
        self.rows.pop(trial_id(trial), None)
        self.finished[trial_id(trial)] = trial
        if is_held(trial):
            return  # it may be opened again, and prove nothing
        last = None if self.witness is None else self.witness.datetime_complete
        if last is None or (trial.datetime_complete is not None and trial.datetime_complete >= last):
            self.witness = trial

    def forget(self, trial_id: int) -> None:
        """Forget a trial, so that it is read again."""
        known = self.finished.pop(trial_id, None)
        if known is not None:
            self.rows[trial_id] = Header(
                trial_id, self.study_id, known.number, TrialState.WAITING, None, None
            )

    def finished_in(self, states: Container[TrialState] | None) -> list[FrozenTrial]:
        """The known trials that ended in one of these states; None: in any."""
        if states is None:
            return list(self.finished.values())
        if not any(state in states for state in TrialState if state.is_finished()):
            return []
        return [trial for trial in self.finished.values() if trial.state in states]

    def read_news(
        self, database: Database, states: Container[TrialState] | None, skip: Callable[[Header], bool]
    ) -> list[FrozenTrial]:
        """Two statements at most: rows of new and unfinished trials, then whole trials in `states`.

        Returns the unfinished ones, except those to `skip`; finished ones are in `finished` now. Raises
        KeyError where there is no such study, and Rewound.
        """
        held = [key for key, trial in self.finished.items() if is_held(trial)]
        unfinished = [row.trial_id for row in self.rows.values() if not row.state.is_finished()] + held
        witness = self.witness
        again = [] if witness is None else [trial_id(witness)]

        def work(connection: Connection) -> tuple[list[Header], list[FrozenTrial]]:
            rows = {
                row.trial_id: row
                for row in schema.read_headers(connection, self.study_id, self.last, unfinished + again)
            }
            gone = any(known not in rows for known in unfinished)
            if witness is not None:
                found = rows.pop(trial_id(witness), None)
                complete = None if found is None else schema.to_local(found.complete)
                gone = gone or complete is None or complete != witness.datetime_complete
            if gone or (not rows and self.last < 0):
                schema.check_study(connection, self.study_id)
            if gone:
                raise Rewound
            newest = self.rows | rows
            wanted = [
                row for row in newest.values() if (states is None or row.state in states) and not skip(row)
            ]
            return list(rows.values()), schema.read_trials(connection, wanted)

        rows, trials = database.read(work)
        for row in rows:
            if not row.state.is_finished():
                self.finished.pop(row.trial_id, None)  # somebody opened it again
            self.rows[row.trial_id] = row
            self.last = max(self.last, row.trial_id)
        for trial in trials:
            self.distributions = trial.distributions | self.distributions
            if trial.state.is_finished():
                self.add(trial)
        return [trial for trial in trials if not trial.state.is_finished()]
