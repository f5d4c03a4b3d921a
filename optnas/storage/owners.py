"""Our tables beside Optuna's: who runs which trial, and until when; and the version of all that.

Functions on a connection; who calls them has begun the transaction. Optuna does not look at these tables, and
they have no foreign keys, so that it can delete a study. SQLite then gives the ids of its trials again: a row
is a trial's only where study and start agree, too (`OF_TRIAL`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from optnas.errors import StorageUnavailableError
from optnas.storage.base import HELD
from optnas.storage.schema import insert_into, system_attrs, trials, user_attrs

FORMAT = 2
"""Of our tables. 1 was a table without study and start, `optnas_attempts`, and without a format."""

metadata = sa.MetaData()

owners = sa.Table(
    "optnas_owners",
    metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False),
    sa.Column("trial_start", sa.DateTime),  # when the attempt began, as the trial says
    sa.Column("created_by", sa.String(32), unique=True),  # key of the request that created the trial
    sa.Column("token", sa.String(32), unique=True),  # of the attempt that owns the trial now
    sa.Column("n_attempts", sa.Integer, nullable=False),  # how often it was taken
    sa.Column("machine", sa.Text),
    sa.Column("host", sa.Text),
    sa.Column("pid", sa.Integer),
    sa.Column("started", sa.Text),  # start time of the process, which tells it from a later one of that pid
    sa.Column("expires", sa.Float(53)),  # by Database.now
)
_format = sa.Table(
    "optnas_format", metadata, sa.Column("format", sa.Integer, primary_key=True, autoincrement=False)
)
# An optnas of format 1 knows no format: it takes this table for its own, and stops at its first statement.
_closed = sa.Table("optnas_attempts", metadata, sa.Column("moved_to_optnas_owners", sa.Integer))

OF_TRIAL = sa.and_(
    owners.c.trial_id == trials.c.trial_id,
    owners.c.study_id == trials.c.study_id,
    owners.c.trial_start.is_not_distinct_from(trials.c.datetime_start),
)


# ---- making ----


def are_made(connection: Connection, found: Collection[str], name: str) -> bool:
    """Whether all our tables are there, among those `found`; raises where they are of a later optnas."""
    if _format.name not in found:
        return False
    version = connection.execute(sa.select(sa.func.max(_format.c.format))).scalar() or 0
    if version > FORMAT:
        raise StorageUnavailableError(
            f"storage={name} was written by a later optnas: its tables have format {version}, and this "
            f"optnas knows {FORMAT}. Update optnas (pip install -U optnas), or choose another database."
        )
    return version == FORMAT


def make(connection: Connection, found: Collection[str]) -> None:
    """Make our tables, of which nobody else makes any meanwhile, from those of an older optnas."""
    before: Sequence[Any] = []
    if _closed.name in found:
        old = sa.Table(_closed.name, sa.MetaData(), autoload_with=connection)
        columns = [old.c[column.name] for column in owners.c if column.name in old.c]
        query = sa.select(*columns, trials.c.study_id, trials.c.datetime_start.label("trial_start"))
        before = connection.execute(query.join(trials, trials.c.trial_id == old.c.trial_id)).mappings().all()
        old.drop(connection)
    metadata.create_all(connection)
    if before:
        connection.execute(sa.insert(owners), [dict(row) for row in before])
    connection.execute(sa.insert(_format), {"format": FORMAT})


# ---- one trial's owner ----


def record(connection: Connection, trial_id: int, **columns: Any) -> None:
    """Write these columns of the trial's row, of which there may be none yet, or one of another trial."""
    insert = insert_into(owners, connection.dialect.name).values(trial_id=trial_id, **columns)
    newer = {name: insert.excluded[name] for name in columns}
    connection.execute(insert.on_conflict_do_update(index_elements=["trial_id"], set_=newer))


def release(connection: Connection, trial_id: int) -> None:
    """The trial waits for its next owner."""
    connection.execute(sa.update(owners).where(owners.c.trial_id == trial_id).values(token=None))


def find_trial(connection: Connection, column: Literal["created_by", "token"], key: str) -> int | None:
    """The id of the trial that an earlier try of the same request got."""
    query = sa.select(owners.c.trial_id).where(owners.c[column] == key)
    return connection.execute(query).scalar_one_or_none()


def count_attempts(connection: Connection, trial_id: int) -> int:
    query = sa.select(owners.c.n_attempts).join(trials, OF_TRIAL).where(trials.c.trial_id == trial_id)
    return connection.execute(query).scalar_one_or_none() or 0


_OWNER = (
    sa.select(trials.c.state, sa.case((OF_TRIAL, owners.c.token)).label("token"))
    .join(owners, owners.c.trial_id == trials.c.trial_id)
    .where(trials.c.trial_id == sa.bindparam("trial_id"))
    .with_for_update()
)


def lock(connection: Connection, trial_id: int) -> tuple[TrialState, str | None]:
    """State and owner's token of a trial, both locked until this transaction ends.

    Raises KeyError where there is no such trial, or one that never had an owner.
    """
    row = connection.execute(_OWNER, {"trial_id": trial_id}).one_or_none()
    if row is None:
        raise KeyError(f"There is no trial with the id {trial_id} in this storage any more.")
    return row.state, row.token


# ---- the budget ----


_HELD = sa.exists().where(
    system_attrs.c.trial_id == trials.c.trial_id,
    system_attrs.c.key == HELD,
    system_attrs.c.value_json == "true",
)


MOST_OPEN = 500
"""Trials that may change in a tally: their ids are part of every claim's statements, which have a limit."""


@dataclass(frozen=True)
class Tally:
    """Of a study, what is true for good of its trials up to the id `last`; few others are to be looked at.

    Attributes:
        counted: trials that count toward `n_trials` and cannot change any more.
        number: the highest.
        open: the ids up to `last` of trials that may change: unfinished ones, and those that may be reopened.
    """

    last: int = -1
    counted: int = 0
    number: int = -1
    open: frozenset[int] = frozenset()

    def leaves(self, study_id: int) -> sa.ColumnElement[bool]:
        """Which trials of the study are to be looked at."""
        if self.last < 0:
            return trials.c.study_id == study_id
        # Not by the index of studies, which finds them all.
        ids = trials.c.trial_id >= self.last
        if self.open:
            ids = sa.or_(ids, trials.c.trial_id.in_(self.open))
        return sa.and_(trials.c.study_id + 0 == study_id, ids)


@dataclass(frozen=True)
class Budget:
    """How a study stands: trials that count, that run, that are held; the highest number and id of all; how
    many have ended since the tally was taken; and the sum of the ids of those that are held."""

    counted: int
    running: int
    held: int
    number: int
    newest: int
    ended: int
    held_ids: int


def _excused(counts: str) -> sa.ColumnElement[bool]:
    return sa.exists().where(
        user_attrs.c.trial_id == trials.c.trial_id,
        user_attrs.c.key == counts,
        user_attrs.c.value_json == "false",
    )


def take_tally(connection: Connection, study_id: int, counts: str, before: Tally) -> Tally:
    """A newer one, up to where there are `MOST_OPEN` trials that may change; see `count_budget`."""
    query = sa.select(
        trials.c.trial_id,
        trials.c.number,
        trials.c.state,
        _excused(counts).label("excused"),
        _HELD.label("held"),
    )
    last, counted, number = before.last, before.counted, before.number
    left: set[int] = set()
    for row in connection.execute(query.where(before.leaves(study_id)).order_by(trials.c.trial_id)):
        if row.trial_id == before.last and row.trial_id not in before.open:
            continue
        if row.trial_id > before.last and len(left) == MOST_OPEN:
            break
        last, number = max(last, row.trial_id), max(number, row.number)
        if not row.state.is_finished() or (row.held and row.state == TrialState.PRUNED):
            left.add(row.trial_id)
        elif row.state != TrialState.FAIL and not row.excused:
            counted += 1
    return Tally(last, counted, number, frozenset(left))


def count_budget(
    connection: Connection, study_id: int, counts: str, beside: Collection[int], tally: Tally
) -> Budget:
    """How a study stands, beside running trials of the ids `beside`.

    A trial that is COMPLETE or PRUNED counts unless its user attribute `counts` is false.
    """
    known = sa.and_(trials.c.trial_id == tally.last, trials.c.trial_id.not_in(tally.open))
    done = sa.and_(trials.c.state.in_((TrialState.COMPLETE, TrialState.PRUNED)), ~_excused(counts), ~known)
    runs = trials.c.state == TrialState.RUNNING
    if beside:
        runs = sa.and_(runs, trials.c.trial_id.not_in(beside))
    held = sa.and_(trials.c.state == TrialState.WAITING, _HELD)
    ended = trials.c.state.in_([state for state in TrialState if state.is_finished()])
    of_each = [(done, 1), (runs, 1), (held, 1), (ended, 1), (held, trials.c.trial_id)]
    sums = [sa.func.coalesce(sa.func.sum(sa.case((which, one), else_=0)), 0) for which, one in of_each]
    highest = (sa.func.coalesce(sa.func.max(trials.c[name]), -1) for name in ("number", "trial_id"))
    query = sa.select(*sums, *highest).where(tally.leaves(study_id))
    n_counted, n_running, n_held, n_ended, held_ids, number, newest = connection.execute(query).one()
    return Budget(
        tally.counted + int(n_counted),
        int(n_running),
        int(n_held),
        max(tally.number, number),
        newest,
        int(n_ended),
        int(held_ids),
    )


def highest(connection: Connection, study_id: int, known: int) -> tuple[int, int]:
    """The highest id and number among a study's trials from the id `known` on; -1 where there are none."""
    maxima = (sa.func.coalesce(sa.func.max(trials.c[name]), -1) for name in ("trial_id", "number"))
    row = connection.execute(sa.select(*maxima).where(Tally(last=known).leaves(study_id))).one()
    return row[0], row[1]


def next_waiting(connection: Connection, study_id: int, tally: Tally) -> tuple[int, int] | None:
    """Id and number of attempts of the trial to take first: one that was begun before, then by number.

    Held ones are not among them.
    """
    n_attempts = sa.func.coalesce(owners.c.n_attempts, 0)
    query = (
        sa.select(trials.c.trial_id, n_attempts)
        .outerjoin(owners, OF_TRIAL)
        .where(tally.leaves(study_id), trials.c.state == TrialState.WAITING, ~_HELD)
        .order_by(sa.case((n_attempts > 0, 0), else_=1), trials.c.number)
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row[0], row[1])


# ---- leases ----


def running(
    connection: Connection, now: sa.ColumnElement[float], which: sa.ColumnElement[bool]
) -> Sequence[Any]:
    """Those of some trials that are RUNNING, with their owner, None where unknown, and the time."""
    owner = [column for column in owners.c if column.name not in ("trial_id", "study_id", "trial_start")]
    query = (
        sa.select(trials.c.trial_id, trials.c.number, trials.c.datetime_start, *owner, now.label("now"))
        .outerjoin(owners, OF_TRIAL)
        .where(trials.c.state == TrialState.RUNNING)
        .order_by(trials.c.number)
    )
    return connection.execute(query.where(which)).all()


def renew(connection: Connection, tokens: Iterable[str], expires: sa.ColumnElement[float]) -> set[str]:
    """Returns the tokens that still own their trial."""
    mine = owners.c.token.in_(list(tokens))
    connection.execute(sa.update(owners).where(mine).values(expires=expires))
    query = sa.select(owners.c.token).join(trials, OF_TRIAL).where(mine)
    return set(connection.execute(query).scalars())


def forget_study(connection: Connection, study_id: int) -> None:
    """Delete our rows of its trials."""
    connection.execute(sa.delete(owners).where(owners.c.study_id == study_id))
