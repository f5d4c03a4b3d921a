"""What a process knows of a study's trials: finished ones never change, so each is read once."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from optnas.search import tables
from optnas.search.database import Database
from optnas.search.tables import Header


@dataclass
class KnownStudy:
    """Whole finished trials, and the rows of trials that may change or that nobody asked for yet."""

    study_id: int
    finished: dict[int, FrozenTrial] = field(default_factory=dict)
    rows: dict[int, Header] = field(default_factory=dict)
    last: int = -1
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)

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

        def work(connection: Connection) -> tuple[list[Header], list[FrozenTrial]]:
            rows = tables.read_headers(connection, self.study_id, self.last, unfinished)
            if not rows and self.last < 0:
                tables.check_study(connection, self.study_id)
            newest = self.rows | {row.trial_id: row for row in rows}
            wanted = [
                row for row in newest.values() if (states is None or row.state in states) and not skip(row)
            ]
            return rows, tables.read_trials(connection, wanted)

        rows, trials = database.read(work)
        for row in rows:
            self.rows[row.trial_id] = row
            self.last = max(self.last, row.trial_id)
        for trial in trials:
            self.distributions = trial.distributions | self.distributions
            if trial.state.is_finished():
                self.add(trial)
        return [trial for trial in trials if not trial.state.is_finished()]
