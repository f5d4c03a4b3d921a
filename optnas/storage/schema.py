"""Studies and trials in Optuna's own tables, read and written: with owners.py all that depends on its schema.

Written for the version `SCHEMA`; `open_storage` leaves a database of another version to
Optuna's own storage. Functions on a connection; who calls them has begun the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from optnas.private import models

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

SCHEMA = "v3.2.0.a"

studies: sa.Table = models.StudyModel.__table__
study_user_attrs: sa.Table = models.StudyUserAttributeModel.__table__
study_system_attrs: sa.Table = models.StudySystemAttributeModel.__table__
trials: sa.Table = models.TrialModel.__table__
params: sa.Table = models.TrialParamModel.__table__
values: sa.Table = models.TrialValueModel.__table__
reports: sa.Table = models.TrialIntermediateValueModel.__table__
user_attrs: sa.Table = models.TrialUserAttributeModel.__table__
system_attrs: sa.Table = models.TrialSystemAttributeModel.__table__

heartbeats: sa.Table = models.TrialHeartbeatModel.__table__
_version: sa.Table = models.VersionInfoModel.__table__
_migrations = sa.Table(
    "alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True)
)

_MAX_IDS = 1000  # in one IN list, of which a statement has up to five


def are_made(found: Collection[str]) -> bool:
    """Whether Optuna's tables are among those `found`."""
    return {studies.name, _migrations.name} <= set(found)


def make(connection: Connection) -> None:
    """Make Optuna's tables in the transaction of this connection; RDBStorage would take several."""
    models.BaseModel.metadata.create_all(connection)
    _migrations.create(connection)
    for table, rows in _first_rows():
        connection.execute(sa.insert(table), rows)


@lru_cache(maxsize=1)
def _first_rows() -> list[tuple[sa.Table, list[dict[str, Any]]]]:
    """What the installed Optuna writes into a new database; to find that out takes a third of a second."""
    memory = RDBStorage("sqlite://")
    try:
        with memory.engine.connect() as connection:
            return [
                (table, [dict(row) for row in connection.execute(sa.select(table)).mappings()])
                for table in (_version, _migrations)
            ]
    finally:
        memory.engine.dispose()


@dataclass(frozen=True)
class Header:
    """A row of the table of trials."""

    trial_id: int
    study_id: int
    number: int
    state: TrialState
    start: datetime | None
    complete: datetime | None


@dataclass
class Changes:
    """What is to be written to one trial, as stored: values internal, attributes JSON."""

    params: dict[str, tuple[float, str]] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)
    user_attrs: dict[str, str] = field(default_factory=dict)
    system_attrs: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.params or self.reports or self.user_attrs or self.system_attrs)

    def __or__(self, newer: Changes) -> Changes:
        return Changes(
            {**self.params, **newer.params},
            {**self.reports, **newer.reports},
            {**self.user_attrs, **newer.user_attrs},
            {**self.system_attrs, **newer.system_attrs},
        )

    def write(self, connection: Connection, trial_id: int) -> None:
        """One statement for each kind; written twice is the same as once."""
        _upsert(
            connection,
            params,
            [
                {"trial_id": trial_id, "param_name": name, "param_value": value, "distribution_json": text}
                for name, (value, text) in self.params.items()
            ],
        )
        to_stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        columns = ("intermediate_value", "intermediate_value_type")
        _upsert(
            connection,
            reports,
            [
                {"trial_id": trial_id, "step": step, **dict(zip(columns, to_stored(value), strict=True))}
                for step, value in self.reports.items()
            ],
        )
        for table, attrs in ((user_attrs, self.user_attrs), (system_attrs, self.system_attrs)):
            rows = [{"trial_id": trial_id, "key": key, "value_json": text} for key, text in attrs.items()]
            _upsert(connection, table, rows)


def template_changes(template: FrozenTrial) -> Changes:
    """Everything that a template trial carries, to be written to a new one."""

    def texts(attrs: Mapping[str, Any]) -> dict[str, str]:
        return {key: json.dumps(value) for key, value in attrs.items()}

    return Changes(
        {
            name: (distribution.to_internal_repr(template.params[name]), distribution_to_json(distribution))
            for name, distribution in template.distributions.items()
        },
        dict(template.intermediate_values),
        texts(template.user_attrs),
        texts(template.system_attrs),
    )


def write_values(connection: Connection, trial_id: int, numbers: Sequence[float]) -> None:
    """The values of the objectives."""
    to_stored = models.TrialValueModel.value_to_stored_repr
    rows = []
    for objective, number in enumerate(numbers):
        value, kind = to_stored(number)
        rows.append({"trial_id": trial_id, "objective": objective, "value": value, "value_type": kind})
    _upsert(connection, values, rows)


def _upsert(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(_upsert_statement(connection.dialect.name, table, tuple(rows[0])), rows)


def insert_into(table: sa.Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that may overwrite; the dialect is imported here, because each takes its time."""
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


@lru_cache
def _upsert_statement(dialect: str, table: sa.Table, columns: tuple[str, ...]) -> sa.Executable:
    """An INSERT that overwrites; the first two of `columns` identify a row."""
    insert = insert_into(table, dialect)
    newer = {name: insert.excluded[name] for name in columns[2:]}
    statement: sa.Executable = insert.on_conflict_do_update(index_elements=columns[:2], set_=newer)
    return statement


# ---- reading ----

_HEADER = (
    trials.c.trial_id,
    trials.c.study_id,
    trials.c.number,
    trials.c.state,
    trials.c.datetime_start,
    trials.c.datetime_complete,
)
_BY_ID = sa.select(*_HEADER).where(trials.c.trial_id == sa.bindparam("trial_id"))
_ALL = sa.select(*_HEADER).where(trials.c.study_id == sa.bindparam("study_id"))
_NEW_OR_OPEN = sa.select(*_HEADER).where(
    trials.c.study_id + 0 == sa.bindparam("study_id"),  # not by the index of studies, which finds all
    sa.or_(
        trials.c.trial_id > sa.bindparam("last"), trials.c.trial_id.in_(sa.bindparam("open", expanding=True))
    ),
)


def read_header(connection: Connection, trial_id: int) -> Header:
    """Raises KeyError where there is no such trial."""
    row = connection.execute(_BY_ID, {"trial_id": trial_id}).one_or_none()
    if row is None:
        raise KeyError(f"There is no trial with the id {trial_id} in this storage.")
    return Header(*row)


def read_trial(connection: Connection, trial_id: int) -> FrozenTrial:
    """Raises KeyError where there is no such trial."""
    return read_trials(connection, [read_header(connection, trial_id)])[0]


def read_headers(connection: Connection, study_id: int, last: int, unfinished: Sequence[int]) -> list[Header]:
    """Of the trials newer than the id `last`, and of those in `unfinished`."""
    if last < 0:
        return [Header(*row) for row in connection.execute(_ALL, {"study_id": study_id})]
    found = {}
    for first in range(0, len(unfinished) or 1, _MAX_IDS):
        some = {"study_id": study_id, "last": last, "open": unfinished[first : first + _MAX_IDS]}
        found.update({row.trial_id: Header(*row) for row in connection.execute(_NEW_OR_OPEN, some)})
    return list(found.values())


def count_trials(connection: Connection, study_id: int, states: Collection[TrialState]) -> int:
    query = sa.select(sa.func.count()).where(trials.c.study_id == study_id, trials.c.state.in_(states))
    return connection.execute(query).scalar_one()


def read_states(connection: Connection, study_id: int) -> Sequence[Any]:
    """(trial_id, number, state) of all trials of a study, by number."""
    columns = trials.c.trial_id, trials.c.number, trials.c.state
    query = sa.select(*columns).where(trials.c.study_id == study_id).order_by(trials.c.number)
    return connection.execute(query).all()


def read_last_start(connection: Connection, study_id: int) -> datetime | None:
    query = sa.select(sa.func.max(trials.c.datetime_start)).where(trials.c.study_id == study_id)
    return to_local(connection.execute(query).scalar_one())


def read_values(connection: Connection, study_id: int) -> dict[int, tuple[float, ...]]:
    """What the objectives of all trials of a study that have values came to, by the trial's id."""
    of_study = sa.select(values.c.trial_id, values.c.value, values.c.value_type).join(
        trials, trials.c.trial_id == values.c.trial_id
    )
    query = of_study.where(trials.c.study_id == study_id).order_by(values.c.objective)
    to_value = models.TrialValueModel.stored_repr_to_value
    finite = models.TrialValueModel.TrialValueType.FINITE
    found: dict[int, tuple[float, ...]] = {}
    for trial_id, value, kind in connection.execute(query):
        number = value if kind == finite else to_value(value, kind)
        found[trial_id] = (*found.get(trial_id, ()), number)
    return found


def read_false(connection: Connection, study_id: int, key: str) -> set[int]:
    """The ids of a study's trials whose user attribute `key` is false."""
    of_study = sa.select(user_attrs.c.trial_id).join(trials, trials.c.trial_id == user_attrs.c.trial_id)
    which = (trials.c.study_id == study_id, user_attrs.c.key == key, user_attrs.c.value_json == "false")
    return set(connection.execute(of_study.where(*which)).scalars())


# ---- studies ----


def lock_study(connection: Connection, study_id: int) -> str | None:
    """Let nobody else, Optuna included, create or claim a trial of this study until this transaction ends.

    Returns its incarnation. Raises KeyError where there is no such study.
    """
    row = connection.execute(_LOCK_STUDY, {"study_id": study_id}).one_or_none()
    if row is None:
        raise KeyError("There is no such study in this storage.")
    return None if row.incarnation is None else str(json.loads(row.incarnation))


INCARNATION = "optnas:incarnation"
"""A system attribute that goes with a study, and tells it from a later one that gets its id and name."""

_INCARNATION = sa.select(study_system_attrs.c.value_json).where(
    study_system_attrs.c.study_id == sa.bindparam("study_id"), study_system_attrs.c.key == INCARNATION
)
_LOCK_STUDY = (
    sa.select(studies.c.study_id, _INCARNATION.scalar_subquery().label("incarnation"))
    .where(studies.c.study_id == sa.bindparam("study_id"))
    .with_for_update(of=studies)
)


def settle_incarnation(connection: Connection, study_id: int, new: str) -> str:
    """That of a study, which is locked; `new` where it has none."""
    found = connection.execute(_INCARNATION, {"study_id": study_id}).scalar_one_or_none()
    if found is not None:
        return str(json.loads(found))
    write_study_attr(connection, study_system_attrs, study_id, INCARNATION, new)
    return new


def check_study(connection: Connection, study_id: int) -> None:
    """Raises KeyError where there is no such study."""
    query = sa.select(studies.c.study_id).where(studies.c.study_id == study_id)
    if connection.execute(query).one_or_none() is None:
        raise KeyError("There is no such study in this storage.")


_STUDY_ATTRS = {
    table: sa.select(table.c.key, table.c.value_json).where(table.c.study_id == sa.bindparam("study_id"))
    for table in (study_user_attrs, study_system_attrs)
}


def read_study_attrs(connection: Connection, table: sa.Table, study_id: int) -> dict[str, Any]:
    """Of `study_user_attrs` or `study_system_attrs`. Raises KeyError where there is no such study."""
    rows = connection.execute(_STUDY_ATTRS[table], {"study_id": study_id}).all()
    if not rows:
        check_study(connection, study_id)
    return {key: json.loads(text) for key, text in rows}


def write_study_attr(connection: Connection, table: sa.Table, study_id: int, key: str, value: Any) -> None:
    """Into `study_user_attrs` or `study_system_attrs`."""
    check_study(connection, study_id)
    _upsert(connection, table, [{"study_id": study_id, "key": key, "value_json": json.dumps(value)}])


def count_studies(connection: Connection) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(studies)).scalar_one()


# ---- the states of trials ----


def insert_trial(
    connection: Connection, study_id: int, number: int, state: TrialState, **times: datetime | None
) -> Header:
    """A row of a new trial."""
    row = {"study_id": study_id, "number": number, "state": state, **times}
    (trial_id,) = connection.execute(sa.insert(trials), row).inserted_primary_key or (None,)
    assert trial_id is not None
    return Header(
        trial_id, study_id, number, state, times.get("datetime_start"), times.get("datetime_complete")
    )


def start_waiting(connection: Connection, trial_id: int) -> datetime | None:
    """WAITING becomes RUNNING; returns the start (UTC), None if it is WAITING no more."""
    start = to_utc(datetime.now())
    query = sa.update(trials).where(trials.c.trial_id == trial_id, trials.c.state == TrialState.WAITING)
    started = connection.execute(query.values(state=TrialState.RUNNING, datetime_start=start))
    return start if started.rowcount == 1 else None


def end_trial(
    connection: Connection, trial_id: int, state: TrialState, numbers: Sequence[float] | None
) -> datetime | None:
    """Set any state but RUNNING; returns the time of completion (UTC) where it is one of the end."""
    if numbers is not None:
        write_values(connection, trial_id, numbers)
    complete = to_utc(datetime.now()) if state.is_finished() else None
    row = {"state": state} if complete is None else {"state": state, "datetime_complete": complete}
    connection.execute(sa.update(trials).where(trials.c.trial_id == trial_id).values(row))
    return complete


def reopen(connection: Connection, trial_id: int) -> None:
    """A finished trial waits again, without a value; it must be locked."""
    row = {"state": TrialState.WAITING, "datetime_complete": None}
    connection.execute(sa.update(trials).where(trials.c.trial_id == trial_id).values(row))
    connection.execute(sa.delete(values).where(values.c.trial_id == trial_id))


def lock_trial(connection: Connection, trial_id: int) -> TrialState:
    """The state of a trial, locked until this transaction ends; KeyError where there is none."""
    query = sa.select(trials.c.state).where(trials.c.trial_id == trial_id).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise KeyError(f"There is no trial with the id {trial_id} in this storage.")
    return TrialState(row.state)


def signs_of_life(connection: Connection, trial_ids: Sequence[int]) -> dict[int, tuple[Any, ...]]:
    """What changes while somebody runs these trials: how much each holds, and its last heartbeat."""
    signs: dict[int, list[Any]] = {trial_id: [] for trial_id in trial_ids}
    for table in (params, reports, user_attrs, system_attrs):
        query = sa.select(table.c.trial_id, sa.func.count()).where(table.c.trial_id.in_(trial_ids))
        found = {row[0]: row[1] for row in connection.execute(query.group_by(table.c.trial_id))}
        for trial_id, sign in signs.items():
            sign.append(found.get(trial_id, 0))
    last = sa.select(heartbeats.c.trial_id, heartbeats.c.heartbeat)
    beats = last.where(heartbeats.c.trial_id.in_(trial_ids))
    for trial_id, beat in connection.execute(beats):
        signs[trial_id].append(beat)
    return {trial_id: tuple(sign) for trial_id, sign in signs.items()}


# ---- whole trials ----


@lru_cache(maxsize=1)
def _parts() -> sa.CompoundSelect[Any]:
    """All that belongs to some trials in one statement: (kind, row, trial_id, key, number, text)."""
    ids: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
    no_number, no_text = sa.cast(sa.null(), sa.Float(53)), sa.cast(sa.null(), sa.Text)

    def part(kind: int, key: Any, number: Any, text: Any) -> sa.Select[Any]:
        table = key.table
        return sa.select(
            sa.literal_column(str(kind)).label("kind"),
            next(iter(table.primary_key)).label("row"),
            table.c.trial_id,
            sa.cast(key, sa.Text).label("key"),
            number.label("number"),
            (no_text if text is None else sa.cast(text, sa.Text)).label("text"),
        ).where(table.c.trial_id.in_(ids))

    return sa.union_all(
        part(0, params.c.param_name, params.c.param_value, params.c.distribution_json),
        part(1, values.c.objective, values.c.value, values.c.value_type),
        part(2, reports.c.step, reports.c.intermediate_value, reports.c.intermediate_value_type),
        part(3, user_attrs.c.key, no_number, user_attrs.c.value_json),
        part(4, system_attrs.c.key, no_number, system_attrs.c.value_json),
    ).order_by(sa.text("1, 2"))


def read_trials(connection: Connection, headers: Sequence[Header]) -> list[FrozenTrial]:
    """The whole trials, in the order of `headers`."""
    parts: dict[int, list[Any]] = {header.trial_id: [] for header in headers}
    ids = list(parts)
    for first in range(0, len(ids), _MAX_IDS):
        for row in connection.execute(_parts(), {"ids": ids[first : first + _MAX_IDS]}):
            parts[row.trial_id].append(row)
    return [_frozen(header, parts[header.trial_id]) for header in headers]


def read_some(connection: Connection, study_id: int, trial_ids: Collection[int]) -> list[FrozenTrial]:
    """Those of a study's whole trials whose ids are given, by number."""
    ids = sorted(trial_ids)
    headers: list[Header] = []
    for first in range(0, len(ids), _MAX_IDS):
        which = trials.c.trial_id.in_(ids[first : first + _MAX_IDS])
        query = sa.select(*_HEADER).where(which, trials.c.study_id == study_id)
        headers += [Header(*row) for row in connection.execute(query)]
    return read_trials(connection, sorted(headers, key=lambda header: header.number))


@lru_cache(maxsize=4096)
def to_distribution(text: str) -> BaseDistribution:
    """Few distributions are shared by many trials; parsing them is most of the time of reading one."""
    return json_to_distribution(text)


def _frozen(header: Header, parts: Iterable[Any]) -> FrozenTrial:
    trial = new_trial(header)
    objectives: dict[int, float] = {}
    for kind, _, _, key, number, text in parts:
        if kind == 0:
            distribution = to_distribution(text)
            trial.distributions[key] = distribution
            trial.params[key] = distribution.to_external_repr(number)
        elif kind == 1:
            value_type = models.TrialValueModel.TrialValueType[text]
            objectives[int(key)] = models.TrialValueModel.stored_repr_to_value(number, value_type)
        elif kind == 2:
            report_type = models.TrialIntermediateValueModel.TrialIntermediateValueType[text]
            to_value = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
            trial.intermediate_values[int(key)] = to_value(number, report_type)
        elif kind == 3:
            trial.user_attrs[key] = json.loads(text)
        else:
            trial.system_attrs[key] = json.loads(text)
    trial.values = [objectives[i] for i in sorted(objectives)] or None
    return trial


def new_trial(header: Header) -> FrozenTrial:
    """A trial of which nothing but its row exists."""
    return FrozenTrial(
        number=header.number,
        state=header.state,
        value=None,
        datetime_start=to_local(header.start),
        datetime_complete=to_local(header.complete),
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=header.trial_id,
    )


def to_local(moment: datetime | None) -> datetime | None:
    """As Optuna shows a stored time."""
    return None if moment is None else moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def to_utc(moment: datetime | None) -> datetime | None:
    """As Optuna stores a local time."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)
