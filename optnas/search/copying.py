"""Copy a whole study with its files to another storage or name; then both go on independently."""

from __future__ import annotations

import os

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from optnas import private, record
from optnas.errors import ParamsMismatchError
from optnas.estimation import remote
from optnas.estimation.folders import own_folder, settle
from optnas.search import carry
from optnas.storage.base import HELD
from optnas.storage.open import open_storage

_OWN = frozenset((record.IDENTITY.name, record.FOLDER.name, record.COMING.name, record.BUDGET.name))
"""Attributes that a copy does not take over."""


def copy_study(
    study: optuna.Study,
    storage: str | os.PathLike[str] | BaseStorage,
    *,
    study_name: str | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> optuna.Study:
    """Copy a study with its weights, drawings and other files to another storage, and to a folder of its own.

    The copy has the same trials under the same numbers, seed and provenance, and goes on as the original
    would. A trial that runs, waits or is paused begins anew there: the state from which it could go on stays
    with the original, which is only read. A copy that was interrupted is finished by the same call.

    Args:
        storage: as for `create_study`; it may be the one of the study.
        study_name: of the copy; by default as it is.
        folder: of the copy's files, a path or a URL; by default `runs/<study name>` beside its database.

    Raises:
        ParamsMismatchError: there is a study of that name.
        CheckpointError: the files cannot be written.

    Examples:
        >>> copy = optnas.copy_study(study, "sqlite:///copy.db", study_name="copied")
        >>> len(copy.trials) == len(study.trials)
        True
    """
    if carry.half_made(study):
        raise ParamsMismatchError(
            f"Study {study.study_name!r} is incomplete: it is still being made from another study."
        )
    opened = open_storage(storage)
    new = _begin(study, opened, study_name or study.study_name)
    trials = sorted(study.get_trials(deepcopy=False), key=lambda trial: trial.number)
    there = carry.add(new, [_copied(study, trial) for trial in trials])
    source = own_folder(study)
    if source is not None and remote.exists(source):
        target = settle(new, None if folder is None else os.fspath(folder))
        for trial, copied in zip(trials, there, strict=True):
            if copied.state.is_finished():
                carry.copy_files(study, trial, target, copied)
        carry.copy_rest(source, target)
    elif folder is not None:
        settle(new, os.fspath(folder))
    record.COMING.write(new, {})
    return new


def _begin(study: optuna.Study, storage: BaseStorage, study_name: str) -> optuna.Study:
    """The copy without trials, or what an interrupted call has copied."""
    if study_name in optuna.get_all_study_names(storage):
        new = optuna.load_study(study_name=study_name, storage=storage)
        begun = carry.half_made(new) == study.study_name
        if not begun and (new.get_trials(deepcopy=False) or new.user_attrs):
            raise ParamsMismatchError(
                f"study_name={study_name!r}: there is a study of that name in that storage; choose another."
            )
    else:
        new = optuna.create_study(study_name=study_name, storage=storage, directions=study.directions)
    record.COMING.write(new, {"from": study.study_name, "how": "copy_study"})
    for name, value in study.user_attrs.items():
        if name not in _OWN:
            new.set_user_attr(name, value)
    for name, value in private.study_system_attrs(study).items():
        private.set_study_system_attr(new, name, value)
    return new


def _copied(study: optuna.Study, trial: FrozenTrial) -> FrozenTrial:
    before = record.CARRIED.of(trial)
    carried = {"study": study.study_name, "identity": carry.place_of(study), "number": trial.number}
    about = {record.CARRIED.name: {**carried, **({"before": before} if before else {})}}
    system = {name: value for name, value in trial.system_attrs.items() if name != HELD}
    if trial.state.is_finished():
        return carry.altered(trial, user_attrs={**trial.user_attrs, **about}, system_attrs=system)
    seed = record.SEED.of(trial)
    fixed = {**system.get("fixed_params", {}), **trial.params}
    return FrozenTrial(
        number=trial.number,
        trial_id=-1,
        state=TrialState.WAITING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={**about, **({} if seed is None else {record.SEED.name: seed})},
        system_attrs={"fixed_params": fixed} if fixed else {},
        intermediate_values={},
    )
