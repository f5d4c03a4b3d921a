"""What a process knows of a study's trials: finished ones never change, so each is read once."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from optnas.storage import tables
from optnas.storage.database import Database
from optnas.storage.tables import Header


class _Gone(Exception):
    """A finished trial is not there any more, or is another."""


@dataclass
class KnownStudy:
    """Whole finished trials, and the rows of trials that may change or that nobody asked for yet."""

    study_id: int
    finished: dict[int, FrozenTrial] = field(default_factory=dict)
    rows: dict[int, Header] = field(default_factory=dict)
    last: int = -1
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    ended: dict[tuple[str, float], float] = field(default_factory=dict)
    """Since when leases (token, expiry) are seen to have ended, by `time.monotonic()`."""

    def add(self, trial: FrozenTrial) -> None:
        """A finished trial."""
        self.rows.pop(trial._trial_id, None)
        self.finished[trial._trial_id] = trial

    def finished_in(self, states: Container[TrialState] | None) -> list[FrozenTrial]:
        """Those that are known to have ended so; None: however."""
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
        KeyError where there is no such study.
        """
        unfinished = [row.trial_id for row in self.rows.values() if not row.state.is_finished()]
        witness = next(iter(self.finished.values()), None)

        def work(connection: Connection) -> tuple[list[Header], list[FrozenTrial]]:
            again = [] if witness is None else [witness._trial_id]
            rows = tables.read_headers(connection, self.study_id, self.last, unfinished + again)
            if witness is not None:
                found = [row for row in rows if row.trial_id == witness._trial_id]
                if [tables.to_local(row.complete) for row in found] != [witness.datetime_complete]:
                    raise _Gone
                rows.remove(found[0])
            if not rows and self.last < 0:
                tables.check_study(connection, self.study_id)
            newest = self.rows | {row.trial_id: row for row in rows}
            wanted = [
                row for row in newest.values() if (states is None or row.state in states) and not skip(row)
            ]
            return rows, tables.read_trials(connection, wanted)

        try:
            rows, trials = database.read(work)
        except _Gone:  # deleted by another process; and SQLite gives its ids, and those of its trials, again
            self.__dict__.update(vars(KnownStudy(self.study_id)))
            return self.read_news(database, states, skip)
        for row in rows:
            self.rows[row.trial_id] = row
            self.last = max(self.last, row.trial_id)
        for trial in trials:
            self.distributions = trial.distributions | self.distributions
            if trial.state.is_finished():
                self.add(trial)
        return [trial for trial in trials if not trial.state.is_finished()]
