"""How trials change hands in the database: created, taken, guarded, ended; budgets and leases.

Functions on a connection; who calls them has begun the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from optnas.storage.tables import Header, attempts, to_utc, trials, user_attrs, write_values

# User attributes of a finished trial that was not estimated: it does not count toward n_trials.
NOT_COUNTED = ("twin_of", "infeasible")


def insert_trial(
    connection: Connection, study_id: int, state: TrialState, **times: datetime | None
) -> Header:
    """A row of a new trial. Its number is the count of the older ones; the study must be locked."""
    count = sa.select(sa.func.count()).select_from(trials).where(trials.c.study_id == study_id)
    number = connection.execute(count).scalar_one()
    row = {"study_id": study_id, "number": number, "state": state, **times}
    (trial_id,) = connection.execute(sa.insert(trials), row).inserted_primary_key or (None,)
    assert trial_id is not None
    return Header(
        trial_id, study_id, number, state, times.get("datetime_start"), times.get("datetime_complete")
    )


def start_waiting(connection: Connection, trial_id: int) -> bool:
    """WAITING becomes RUNNING; False if it is WAITING no more."""
    query = sa.update(trials).where(trials.c.trial_id == trial_id, trials.c.state == TrialState.WAITING)
    started = {"state": TrialState.RUNNING, "datetime_start": to_utc(datetime.now())}
    return connection.execute(query.values(started)).rowcount == 1


def end_trial(
    connection: Connection, trial_id: int, state: TrialState, numbers: Sequence[float] | None
) -> datetime | None:
    """Set any state but RUNNING; returns the time of completion (UTC) where it is one of the end."""
    if numbers is not None:
        write_values(connection, trial_id, numbers)
    complete = to_utc(datetime.now()) if state.is_finished() else None
    row = {"state": state} if complete is None else {"state": state, "datetime_complete": complete}
    connection.execute(sa.update(trials).where(trials.c.trial_id == trial_id).values(row))
    if state == TrialState.WAITING:
        connection.execute(sa.update(attempts).where(attempts.c.trial_id == trial_id).values(token=None))
    return complete


def record_attempt(connection: Connection, trial_id: int, **columns: Any) -> None:
    """Write these columns of the trial's row in `attempts`, of which there may be none yet."""
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(attempts)
    insert = insert.values(trial_id=trial_id, **columns)
    newer = {name: insert.excluded[name] for name in columns}
    connection.execute(insert.on_conflict_do_update(index_elements=["trial_id"], set_=newer))


def find_trial(connection: Connection, column: Literal["created_by", "token"], key: str) -> int | None:
    """The id of the trial that an earlier try of the same request got."""
    query = sa.select(attempts.c.trial_id).where(attempts.c[column] == key)
    return connection.execute(query).scalar_one_or_none()


def count_attempts(connection: Connection, trial_id: int) -> int:
    query = sa.select(attempts.c.n_attempts).where(attempts.c.trial_id == trial_id)
    return connection.execute(query).scalar_one_or_none() or 0


_OWNER = (
    sa.select(trials.c.state, attempts.c.token)
    .join(attempts, attempts.c.trial_id == trials.c.trial_id)
    .where(trials.c.trial_id == sa.bindparam("trial_id"))
    .with_for_update()
)


def lock_owned(connection: Connection, trial_id: int) -> tuple[TrialState, str | None]:
    """State and owner's token of a trial, both locked until this transaction ends.

    Raises KeyError where there is no such trial, or one that never had an owner.
    """
    row = connection.execute(_OWNER, {"trial_id": trial_id}).one_or_none()
    if row is None:
        raise KeyError(f"There is no trial with the id {trial_id} in this storage any more.")
    return row.state, row.token


def lock_trial(connection: Connection, trial_id: int) -> TrialState:
    """The state of a trial, locked until this transaction ends; KeyError where there is none."""
    query = sa.select(trials.c.state).where(trials.c.trial_id == trial_id).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise KeyError(f"There is no trial with the id {trial_id} in this storage.")
    return TrialState(row.state)


# ---- the budget ----


def count_budget(connection: Connection, study_id: int) -> tuple[int, int]:
    """(trials that count toward n_trials, trials that run)."""
    excused = sa.exists().where(user_attrs.c.trial_id == trials.c.trial_id, user_attrs.c.key.in_(NOT_COUNTED))
    done = sa.and_(trials.c.state.in_((TrialState.COMPLETE, TrialState.PRUNED)), ~excused)
    query = (
        sa.select(
            sa.func.coalesce(sa.func.sum(sa.case((done, 1), else_=0)), 0),
            sa.func.coalesce(sa.func.sum(sa.case((trials.c.state == TrialState.RUNNING, 1), else_=0)), 0),
        )
        .select_from(trials)
        .where(trials.c.study_id == study_id)
    )
    counted, running = connection.execute(query).one()
    return int(counted), int(running)


def next_waiting(connection: Connection, study_id: int) -> int | None:
    """The WAITING trial to take first: one that was begun before, then by number."""
    begun = sa.func.coalesce(attempts.c.n_attempts, 0) > 0
    query = (
        sa.select(trials.c.trial_id)
        .outerjoin(attempts, attempts.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.WAITING)
        .order_by(sa.case((begun, 0), else_=1), trials.c.number)
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none()


# ---- leases ----


def running_attempts(connection: Connection, now: sa.ColumnElement[float], **which: int) -> Sequence[Any]:
    """RUNNING trials (`study_id=` or `trial_id=`) with their owner, None where unknown, and the time."""
    owner = [column for column in attempts.c if column.name != "trial_id"]
    query = (
        sa.select(trials.c.trial_id, trials.c.number, *owner, now.label("now"))
        .outerjoin(attempts, attempts.c.trial_id == trials.c.trial_id)
        .where(trials.c.state == TrialState.RUNNING)
        .order_by(trials.c.number)
    )
    return connection.execute(query.where(*(trials.c[name] == key for name, key in which.items()))).all()


def renew(connection: Connection, tokens: Iterable[str], expires: sa.ColumnElement[float]) -> set[str]:
    """Returns the tokens that still own their trial."""
    mine = attempts.c.token.in_(list(tokens))
    connection.execute(sa.update(attempts).where(mine).values(expires=expires))
    return set(connection.execute(sa.select(attempts.c.token).where(mine)).scalars())


def forget_study(connection: Connection, study_id: int) -> None:
    """Delete our rows of its trials."""
    ids = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    connection.execute(sa.delete(attempts).where(attempts.c.trial_id.in_(ids)))
